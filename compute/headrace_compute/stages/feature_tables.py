"""Features from end to end: which stage runs when, and what stays with the workers.

The one place that knows the order. It runs on any `Workers`: the pool of Ray
actors, or a loop in one process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace_compute.model import DataFile, Part, Shard, StoreConfig
from headrace_compute.stages.catalog import current_catalog
from headrace_compute.stages.features import ItemFeatures, UnknownItems, UserShard, merge_items, user_shard
from headrace_compute.stages.workers import Progress, Workers, each


@dataclass(frozen=True)
class FeatureTables:
    """What a features run wrote.

    Attributes:
        users, items: Parts of user_features and item_features.
        interactions: Events that counted, duplicates once.
        unknown: Interactions whose item the catalog lacks.
    """

    users: tuple[Part, ...]
    items: tuple[Part, ...]
    interactions: int
    unknown: UnknownItems


async def make_features(
    workers: Workers,
    interactions: Sequence[DataFile],
    items: Sequence[DataFile],
    shards: Sequence[Shard],
    as_of_us: int,
    users_prefix: str,
    items_prefix: str,
    progress: Progress = lambda step, done, total: None,
) -> FeatureTables:
    """Writes the parts of both feature tables; committing them is the caller's.

    Args:
        interactions, items: Files of the pinned versions; no items means no catalog.
        as_of_us: Exclusive end of the events that count.
        users_prefix, items_prefix: Key prefixes of the parts, of this run alone.
    """
    catalog = await workers.hold(current_catalog, items)
    computing = [
        workers.hold(user_shard, interactions, shard, as_of_us, f"{users_prefix}{number:05d}.parquet")
        for number, shard in enumerate(shards)
    ]
    computed = await each("users", computing, progress)
    measured: list[tuple[Part | None, int]] = [await workers.run(measure_shard, shard) for shard in computed]
    progress("items", 0, 1)
    merged: ItemFeatures = await workers.run(merge_shards, items_prefix, as_of_us, catalog, *computed)
    progress("items", 1, 1)
    return FeatureTables(
        users=tuple(part for part, _ in measured if part is not None),
        items=merged.parts,
        interactions=sum(count for _, count in measured),
        unknown=merged.unknown,
    )


def measure_shard(config: StoreConfig, shard: UserShard) -> tuple[Part | None, int]:
    """What the coordinator wants to know of a shard: its part, and its interactions."""
    return shard.part, shard.interactions


def merge_shards(
    config: StoreConfig, part_prefix: str, as_of_us: int, catalog: pa.Table, *shards: UserShard
) -> ItemFeatures:
    """`merge_items` over the shards' item aggregates."""
    return merge_items(config, part_prefix, as_of_us, catalog, *(shard.items for shard in shards))
