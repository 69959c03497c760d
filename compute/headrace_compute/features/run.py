"""The driver of a features run: the order of its stages, and which results stay with the workers.

The one place that knows the order. It runs on any `Workers`: the pool of Ray
actors, or a loop in one process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace_compute.features.aggregate import ItemFeatures, UnknownItems, UserShard, merge_items, user_shard
from headrace_compute.inputs.catalog import current_catalog
from headrace_compute.inputs.workers import Admit, Progress, Workers, admit_all, each
from headrace_compute.model import DataFile, Part, Shard, StoreConfig


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
    admit: Admit = admit_all,
) -> FeatureTables:
    """Writes the parts of both feature tables; committing them is the caller's.

    Args:
        interactions, items: Files of the pinned versions; no items means no catalog.
        as_of_us: Exclusive end of the events that count.
        users_prefix, items_prefix: Key prefixes of the parts, of this run alone.
        admit: Asked after each shard. All have about as many users, so the first tells what the rest takes.

    Raises:
        StoreFullError: There is no room for what is left to write.
    """
    catalog = await workers.hold(current_catalog, items)
    sizes: list[int] = []

    async def compute(number: int, shard: Shard) -> tuple[Any, Part | None, int]:
        key = f"{users_prefix}{number:05d}.parquet"
        held = await workers.hold(user_shard, interactions, shard, as_of_us, key)
        part, count = await workers.run(measure_shard, held)
        sizes.append(part.size_bytes if part else 0)
        await admit(sum(sizes) * len(shards) // len(sizes), sum(sizes))
        return held, part, count

    computed: list[tuple[Any, Part | None, int]] = await each(
        "users", [compute(number, shard) for number, shard in enumerate(shards)], progress
    )
    progress("items", 0, 1)
    merged: ItemFeatures = await workers.run(
        merge_shards, items_prefix, as_of_us, catalog, *(held for held, _, _ in computed)
    )
    progress("items", 1, 1)
    return FeatureTables(
        users=tuple(part for _, part, _ in computed if part is not None),
        items=merged.parts,
        interactions=sum(count for _, _, count in computed),
        unknown=merged.unknown,
    )


def measure_shard(config: StoreConfig, shard: UserShard) -> tuple[Part | None, int]:
    """What the coordinator needs of a shard's result: its part, and the number of interactions."""
    return shard.part, shard.interactions


def merge_shards(
    config: StoreConfig, part_prefix: str, as_of_us: int, catalog: pa.Table, *shards: UserShard
) -> ItemFeatures:
    """`merge_items` over the shards' item aggregates."""
    return merge_items(config, part_prefix, as_of_us, catalog, *(shard.items for shard in shards))
