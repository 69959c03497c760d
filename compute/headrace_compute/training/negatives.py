"""Training data: positives of the core, and for each some items its user does not know.

A user's rows depend only on the user's own pairs, the seed, the parameters, the
candidates with their weights, and the core, so every shard plan gives the same rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np
import pyarrow as pa

from headrace_compute import cancellation
from headrace_compute.model import ROW_GROUP_ROWS, StoreConfig
from headrace_compute.parts import encoded_bytes
from headrace_compute.sink import Sink, W
from headrace_compute.training.feature_columns import FeatureColumns, Found, Instants, asked, find
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


NOBODY = pa.array([], pa.string())


@dataclass(frozen=True)
class SplitPlan:
    """What to make of one split.

    Attributes:
        number: Its place, from 0.
        name: None if there is one for all.
        params: With the ratio and the cap of the split.
        when: Before which instants features are.
    """

    number: int
    name: str | None
    params: SamplingParams
    when: Instants

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


class _Shard:
    """One shard of one split, chosen and ready to be drawn for."""

    def __init__(
        self,
        known: Pairs,
        positives: Positives,
        core: Pairs,
        alive: np.ndarray,
        index: ItemIndex,
        sampler: CandidateSampler,
        plan: SplitPlan,
    ) -> None:
        self.chosen = choose(known, positives, core, alive, sampler, plan.params)
        self._positives, self._index, self._sampler, self._plan = positives, index, sampler, plan

    def cut(self, groups: Groups, rows: int) -> Iterator[Groups]:
        """Groups that follow each other, with about so many rows at a time."""
        return cut(groups, self._plan.rows(rows), self._plan.params)

    def draw(self, groups: Groups) -> Rows:
        """The rows of some groups."""
        drawn_from = (self._positives, self.chosen.known, self._index, self._sampler)
        return draw_rows(*drawn_from, self._plan.params.seed, groups)

    def table(self, groups: Groups, more: Sequence[Columns]) -> pa.Table:
        """The same with all columns."""
        named = (self._positives, self._index.item_ids, self._sampler.sources, self._plan.name)
        return training_table(self.draw(groups), *named, more, schema_of(self._plan.params).remove_metadata())

    def columns(
        self,
        histories: Histories | None,
        of_users: pa.Table | None,
        of_items: Found | None,
        user_indices: np.ndarray | None,
        item_indices: np.ndarray | None,
    ) -> list[Columns]:
        """The columns that the request adds; arguments are those of `sample_shard`."""
        params, item_ids = self._plan.params, self._index.item_ids
        more: list[Columns] = []
        if of_users is not None and of_items is not None:
            users = find("user_id", self._positives.users, of_users)
            more.append(FeatureColumns(params, self._plan.when, users, of_items))
        if histories is not None:
            seen = histories.of_split(self._plan.number)
            how = (params.history, params.history_timestamps, item_indices)
            more.append(HistoryColumns(seen, item_ids, *how))
        if user_indices is not None and item_indices is not None:
            more.append(IndexColumns(user_indices, item_indices))
        return more


def ask_shard(
    config: StoreConfig,
    known: Pairs,
    positives: Positives,
    core: Pairs,
    alive: np.ndarray,
    index: ItemIndex,
    sampler: CandidateSampler,
    plan: SplitPlan,
) -> Iterator[pa.Table]:
    """Whose features rows have: `feature_columns.asked`. Arguments are the first ones of `sample_shard`.

    Of a snapshot that is the users alone: `ask_items` asks for the items.
    """
    shard = _Shard(known, positives, core, alive, index, sampler, plan)
    if plan.when.snapshot_us is not None:
        users = positives.users.take(pa.array(np.unique(shard.chosen.groups.users)))
        return iter([plan.when.of_all("user_id", users), plan.when.of_all("item_id", NOBODY)])
    pieces = map(shard.draw, shard.cut(shard.chosen.groups, PIECE_ROWS))
    return asked(pieces, plan.when, positives.users, index.item_ids)


def sample_shard(
    config: StoreConfig,
    known: Pairs,
    positives: Positives,
    core: Pairs,
    alive: np.ndarray,
    index: ItemIndex,
    sampler: CandidateSampler,
    plan: SplitPlan,
    histories: Histories | None,
    of_users: pa.Table | None,
    of_items: Found | None,
    user_indices: np.ndarray | None,
    item_indices: np.ndarray | None,
    sink: Sink[W],
    name: str,
) -> SampledShard[W]:
    """Makes the training data of one shard, of one split.

    Args:
        config: Where objects live.
        known, positives: What the split sees of the shard, and its positives.
        core: What the core was made of.
        alive: bool by item number: the items of the core.
        index: All items.
        sampler: The candidates.
        plan: What to make.
        histories: Of the shard's users; None without such a column.
        of_users, of_items: Features of what `ask_shard` asked for; None without features.
        user_indices, item_indices: Of the shard's users, and of all items by number; None without indices.
        sink: Where its rows go.
        name: What they are called by, of this shard and split alone; a number follows.
    """
    shard = _Shard(known, positives, core, alive, index, sampler, plan)
    more = shard.columns(histories, of_users, of_items, user_indices, item_indices)
    chosen, output = shard.chosen, sink.open(config)
    for number, some in enumerate(shard.cut(chosen.groups, PART_ROWS)):
        pieces = []
        for piece in shard.cut(some, PIECE_ROWS):
            cancellation.check()
            pieces.append(shard.table(piece, more))
        output.write(f"{name}-{number:05d}", pa.concat_tables(pieces), stats=("timestamp", "split", "bucket"))
    by_category = plan.params.same_category_share > 0.0
    positives_made, negatives = len(chosen.groups), int(chosen.groups.counts.sum())
    return SampledShard(
        parts=output.close(),
        positives=positives_made,
        outside=chosen.outside,
        negatives=negatives,
        short=plan.params.negative_ratio * positives_made - negatives,
        without_user=chosen.without_user,
        without_item=chosen.without_item,
        without_category=int(np.count_nonzero(chosen.groups.categories < 0)) if by_category else 0,
    )


def forecast_shard(
    config: StoreConfig,
    known: Pairs,
    positives: Positives,
    core: Pairs,
    alive: np.ndarray,
    index: ItemIndex,
    sampler: CandidateSampler,
    plan: SplitPlan,
    histories: Histories | None,
    of_users: pa.Table | None,
    of_items: Found | None,
    user_indices: np.ndarray | None,
    item_indices: np.ndarray | None,
) -> int:
    """About how many bytes `sample_shard` would write: its first row group's, for as many rows as it has."""
    shard = _Shard(known, positives, core, alive, index, sampler, plan)
    groups = shard.chosen.groups
    for some in cut(groups, ROW_GROUP_ROWS, plan.params):
        rows = len(groups) + int(groups.counts.sum())
        more = shard.columns(histories, of_users, of_items, user_indices, item_indices)
        table = shard.table(some, more)
        return encoded_bytes(table) * rows // len(table)
    return 0
