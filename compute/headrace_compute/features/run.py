"""The driver of a features run: the order of its stages, and which results stay with the workers.

The one place that knows the order. It runs on any `Workers`: the pool of Ray
actors, or a loop in one process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace_compute.features.aggregate import (
    UnknownItems,
    UserShard,
    forecast_items,
    user_shard,
    write_items,
)
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import features_of
from headrace_compute.features.snapshot import add_partials
from headrace_compute.features.totals import Totals
from headrace_compute.inputs.catalog import current_catalog
from headrace_compute.inputs.source import read_source
from headrace_compute.inputs.workers import Admit, Progress, Workers, admit_all, each
from headrace_compute.model import DataFile, Shard, StoreConfig
from headrace_compute.sink import Sink, W
from headrace_compute.statistics.sketch import merge_sketches_of
from headrace_compute.statistics.summary import summarize

T = TypeVar("T")


@dataclass(frozen=True)
class FeatureTables(Generic[W]):
    """What a features run made.

    Attributes:
        users, items: What became of the rows of user_features and item_features.
        user_statistics, item_statistics: Of their columns, as JSON.
        interactions: Events that counted, duplicates once.
        unknown: Interactions whose item the catalog lacks.
    """

    users: tuple[W, ...]
    items: tuple[W, ...]
    user_statistics: str
    item_statistics: str
    interactions: int
    unknown: UnknownItems


async def make_features(
    workers: Workers,
    interactions: Sequence[DataFile],
    items: Sequence[DataFile],
    shards: Sequence[Shard],
    as_of_us: int,
    params: FeatureParams,
    users_sink: Sink[W],
    items_sink: Sink[W],
    progress: Progress = lambda step, done, total: None,
    admit: Admit = admit_all,
) -> FeatureTables[W]:
    """Makes both feature tables; committing what their sinks wrote is the caller's.

    Args:
        interactions, items: Files of the pinned versions; no items means no catalog.
        as_of_us: Exclusive end of the events that count.
        params: What to compute.
        users_sink, items_sink: Where their rows go.
        admit: Asked after each shard. All have about as many users, so the first tells what the rest takes.

    Raises:
        StoreFullError: There is no room for what is left to write.
    """
    catalog = await workers.hold(current_catalog, items)
    source = await read_source(workers, interactions, catalog, shards, as_of_us, progress)
    totals = Totals(workers, add_partials, features_of("item", params))
    sketches = Totals(workers, merge_sketches_of)
    of_items = await workers.run(forecast_items, catalog, source.numbering)
    sizes: list[int] = []

    async def compute(number: int, shard: Shard) -> UserShard[W]:
        share = source.shares[number]
        how = (as_of_us, users_sink, f"{number:05d}", params)
        held, partial, sketch = await workers.hold_each(3, user_shard, shard, *how, source.numbering, *share)
        written: UserShard[W] = await workers.run(tell, held)
        workers.let_go(share)
        sizes.append(sum(part.size_bytes for part in written.parts))
        await admit(sum(sizes) * len(shards) // len(sizes) + of_items, sum(sizes))
        await totals.add(partial)
        await sketches.add(sketch)
        return written

    written = await each("users", [compute(*shard) for shard in enumerate(shards)], progress)
    progress("items", 0, 1)
    of_all = await totals.sum()
    how = (items_sink, as_of_us, params)
    merged = await workers.run(write_items, *how, catalog, source.numbering, of_all)
    (user_statistics,) = await workers.run(summarize, as_of_us, await sketches.sum())
    progress("items", 1, 1)
    return FeatureTables(
        users=tuple(part for shard in written for part in shard.parts),
        items=merged.parts,
        user_statistics=user_statistics,
        item_statistics=merged.statistics,
        interactions=sum(shard.interactions for shard in written),
        unknown=merged.unknown,
    )


def tell(config: StoreConfig, value: T) -> T:
    """What a held result is, for the coordinator to see."""
    return value
