"""Training data: positives of the core, and for each some items its user does not know.

A user's rows depend only on the user's own pairs, the seed, the parameters, the
candidates with their weights, and the core, so every shard plan gives the same rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias

import numpy as np
import pyarrow as pa

from headrace_compute import cancellation
from headrace_compute.model import ROW_GROUP_ROWS, StoreConfig
from headrace_compute.parts import encoded_bytes
from headrace_compute.sink import Sink, W
from headrace_compute.training.feature_columns import FeatureColumns, Found, asked
from headrace_compute.training.groups import Groups, choose, cut
from headrace_compute.training.history import Histories
from headrace_compute.training.history_columns import HistoryColumns
from headrace_compute.training.index_columns import IndexColumns
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.pairs import Pairs, Positives
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.rows import Columns, Rows, draw_rows, training_table
from headrace_compute.training.sampler import CandidateSampler
from headrace_compute.training.schema import schema_of

PART_ROWS = 1 << 20
"""About as many rows as a part may have: bounds a worker's memory whatever the ratio."""

PIECE_ROWS = 1 << 17
"""About as many are drawn and laid out between two looks at whether the stage is cancelled."""

PIECE_EVENTS = 1 << 22
"""So many events may their histories have together, and those of a part eight times as many."""


@dataclass(frozen=True)
class SplitPlan:
    """What to make of one split.

    Attributes:
        number: Its place, from 0.
        name: None if there is one for all.
        params: With the ratio and the cap of the split.
    """

    number: int
    name: str | None
    params: SamplingParams

    def rows(self, most: int) -> int:
        """So many rows at a time, for `most` without histories."""
        return min(most, most * PIECE_EVENTS // (PIECE_ROWS * max(1, self.params.history)))


@dataclass(frozen=True)
class SampledShard(Generic[W]):
    """What one shard made of a split.

    Attributes:
        parts: What became of its rows, in their order.
        outside: Positives whose item is not a candidate.
        short: Negatives missing because too few candidates were left.
        without_user, without_item: Positives left out, as their user, or only their item, is not in the core.
        without_category: Positives whose category would be drawn from, and is unknown.
    """

    parts: tuple[W, ...]
    positives: int
    outside: int
    negatives: int
    short: int
    without_user: int
    without_item: int
    without_category: int


DrawnFrom: TypeAlias = tuple[Pairs, Positives, Pairs, np.ndarray, ItemIndex, CandidateSampler, SplitPlan]
"""The first arguments of `ShardOfSplit`: what rows are drawn from."""

WithColumns: TypeAlias = tuple[
    *DrawnFrom,
    Histories | None,
    Found | None,
    Found | None,
    np.ndarray | None,
    np.ndarray | None,
]
"""All of them: with what the columns are from that a request adds."""


class ShardOfSplit:
    """One shard of one split, chosen and ready to be drawn for.

    Args:
        known, positives: What the split sees of the shard, and its positives.
        core: What the core was made of.
        alive: bool by item number: the items of the core.
        index: All items.
        sampler: The candidates.
        plan: What to make.
        histories: Of the shard's users; None without such a column.
        of_users, of_items: Features of the shard's users, and of all items; None without features.
        user_indices, item_indices: Of the shard's users, and of all items by number; None without indices.
    """

    def __init__(
        self,
        known: Pairs,
        positives: Positives,
        core: Pairs,
        alive: np.ndarray,
        index: ItemIndex,
        sampler: CandidateSampler,
        plan: SplitPlan,
        histories: Histories | None = None,
        of_users: Found | None = None,
        of_items: Found | None = None,
        user_indices: np.ndarray | None = None,
        item_indices: np.ndarray | None = None,
    ) -> None:
        self.chosen = choose(known, positives, core, alive, sampler, plan.params)
        self.plan, self.positives, self.index = plan, positives, index
        self._sampler = sampler
        self._columns: list[Columns] = []
        if of_users is not None and of_items is not None:
            self._columns.append(FeatureColumns(plan.params, of_users, of_items))
        if histories is not None:
            seen = histories.of_split(plan.number)
            how = (plan.params.history, plan.params.history_timestamps, item_indices)
            self._columns.append(HistoryColumns(seen, index.item_ids, *how))
        if user_indices is not None and item_indices is not None:
            self._columns.append(IndexColumns(user_indices, item_indices))

    def cut(self, groups: Groups, rows: int) -> Iterator[Groups]:
        """Groups that follow each other, with about so many rows at a time."""
        return cut(groups, self.plan.rows(rows), self.plan.params)

    def draw(self, groups: Groups) -> Rows:
        """The rows of some groups."""
        drawn_from = (self.positives, self.chosen.known, self.index, self._sampler)
        return draw_rows(*drawn_from, self.plan.params.seed, groups)

    def table(self, groups: Groups) -> pa.Table:
        """The same with all columns."""
        named = (self.positives, self.index.item_ids, self._sampler.sources, self.plan.name)
        schema = schema_of(self.plan.params).remove_metadata()
        return training_table(self.draw(groups), *named, self._columns, schema)


def ask_shard(config: StoreConfig, *drawn_from: *DrawnFrom) -> Iterator[pa.Table]:
    """Whose features of which days rows have: `feature_columns.asked`."""
    shard = ShardOfSplit(*drawn_from)
    pieces = map(shard.draw, shard.cut(shard.chosen.groups, PIECE_ROWS))
    return asked(pieces, shard.positives.users, shard.index.item_ids)


def sample_shard(config: StoreConfig, sink: Sink[W], name: str, *of_shard: *WithColumns) -> SampledShard[W]:
    """Makes the training data of one shard, of one split.

    Args:
        config: Where objects live.
        sink: Where its rows go.
        name: What they are called by, of this shard and split alone; a number follows.
        of_shard: What they are made of.
    """
    shard = ShardOfSplit(*of_shard)
    chosen, params, output = shard.chosen, shard.plan.params, sink.open(config)
    for number, some in enumerate(shard.cut(chosen.groups, PART_ROWS)):
        pieces = []
        for piece in shard.cut(some, PIECE_ROWS):
            cancellation.check()
            pieces.append(shard.table(piece))
        output.write(f"{name}-{number:05d}", pa.concat_tables(pieces), stats=("timestamp", "split", "bucket"))
    by_category = params.same_category_share > 0.0
    positives_made, negatives = len(chosen.groups), int(chosen.groups.counts.sum())
    return SampledShard(
        parts=output.close(),
        positives=positives_made,
        outside=chosen.outside,
        negatives=negatives,
        short=params.negative_ratio * positives_made - negatives,
        without_user=chosen.without_user,
        without_item=chosen.without_item,
        without_category=int(np.count_nonzero(chosen.groups.categories < 0)) if by_category else 0,
    )


def forecast_shard(config: StoreConfig, *of_shard: *WithColumns) -> int:
    """About how many bytes `sample_shard` would write: its first row group's, for as many rows as it has."""
    shard = ShardOfSplit(*of_shard)
    groups = shard.chosen.groups
    for some in cut(groups, ROW_GROUP_ROWS, shard.plan.params):
        rows = len(groups) + int(groups.counts.sum())
        table = shard.table(some)
        return encoded_bytes(table) * rows // len(table)
    return 0
