"""Training data: positives of the core, and for each some items its user does not know.

A user's rows depend only on the user's own pairs, the seed, the parameters, the
candidates with their weights, and the core, so every shard plan gives the same rows.
"""

from dataclasses import dataclass
from typing import Generic

import numpy as np
import pyarrow as pa

from headrace_compute import cancellation
from headrace_compute.model import ROW_GROUP_ROWS, StoreConfig
from headrace_compute.parts import encoded_bytes
from headrace_compute.sink import Sink, W
from headrace_compute.training.groups import choose, cut
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.pairs import Pairs, Positives
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.rows import training_rows
from headrace_compute.training.sampler import CandidateSampler

PART_ROWS = 1 << 20
"""About as many rows as a part may have: bounds a worker's memory whatever the ratio."""

PIECE_ROWS = 1 << 17
"""About as many are drawn and laid out between two looks at whether the stage is cancelled."""


@dataclass(frozen=True)
class SampledShard(Generic[W]):
    """What one shard made of a split.

    Attributes:
        parts: What became of its rows, in their order.
        outside: Positives whose item is not a candidate.
        short: Negatives missing because too few candidates were left.
        without_user, without_item: Positives left out, as their user, or only their item, is not in the core.
    """

    parts: tuple[W, ...]
    positives: int
    outside: int
    negatives: int
    short: int
    without_user: int
    without_item: int


def sample_shard(
    config: StoreConfig,
    known: Pairs,
    positives: Positives,
    core: Pairs,
    alive: np.ndarray,
    index: ItemIndex,
    sampler: CandidateSampler,
    params: SamplingParams,
    split: str | None,
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
        params: What to make, with the ratio and the cap of the split.
        split: Its name; None if there is one for all.
        sink: Where its rows go.
        name: What they are called by, of this shard and split alone; a number follows.
    """
    chosen = choose(known, positives, core, alive, index, params)
    groups = chosen.groups
    output = sink.open(config)
    for number, some in enumerate(cut(groups, PART_ROWS, params)):
        pieces = []
        for piece in cut(some, PIECE_ROWS, params):
            cancellation.check()
            pieces.append(training_rows(positives, chosen.known, index, sampler, params, split, piece))
        output.write(f"{name}-{number:05d}", pa.concat_tables(pieces), stats=("timestamp", "split", "bucket"))
    negatives = int(groups.counts.sum())
    return SampledShard(
        parts=output.close(),
        positives=len(groups),
        outside=chosen.outside,
        negatives=negatives,
        short=params.negative_ratio * len(groups) - negatives,
        without_user=chosen.without_user,
        without_item=chosen.without_item,
    )


def forecast_shard(
    config: StoreConfig,
    known: Pairs,
    positives: Positives,
    core: Pairs,
    alive: np.ndarray,
    index: ItemIndex,
    sampler: CandidateSampler,
    params: SamplingParams,
    split: str | None,
) -> int:
    """About how many bytes `sample_shard` would write: its first row group's, for as many rows as it has."""
    chosen = choose(known, positives, core, alive, index, params)
    groups = chosen.groups
    for some in cut(groups, ROW_GROUP_ROWS, params):
        rows = len(groups) + int(groups.counts.sum())
        table = training_rows(positives, chosen.known, index, sampler, params, split, some)
        return encoded_bytes(table) * rows // len(table)
    return 0
