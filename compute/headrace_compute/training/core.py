"""The k-core of (user, item) pairs: shards count, the caller adds up.

A round drops users with too few living items, shard by shard, and counts the
users that each item still has; `survivors` drops items. Repeated until no item
is dropped, this reaches the unique fixed point, whatever the order of removals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.inputs.events import Events, read_events
from headrace_compute.kernels.core import NEVER_US, count_core, fold_pairs
from headrace_compute.model import DataFile, Shard, StoreConfig


@dataclass(frozen=True)
class Pairs:
    """The distinct (user, item) pairs of a shard; sampling needs nothing else of its rows.

    Attributes:
        users: user_id, in the order of (bucket, user_id).
        buckets: Their buckets, int16.
        starts: int64, users + 1: user u has pairs `starts[u]` to `starts[u + 1]`.
        items: int32, the place in `item_ids` of each pair's item, ascending per user.
        first_us: int64, time of each pair's first positive event; NEVER_US if it has none.
        item_ids: The shard's items, in the order of item_id.
        events: int64, events of each item in the shard.
    """

    users: pa.Array
    buckets: np.ndarray
    starts: np.ndarray
    items: np.ndarray
    first_us: np.ndarray
    item_ids: pa.Array
    events: np.ndarray


@dataclass(frozen=True)
class ItemIndex:
    """All items of the source and the catalog, numbered in the order of item_id.

    Attributes:
        item_ids: item_id by number.
        events: int64, events in the source by number.
        candidates: int32, numbers of the items that can be negatives, ascending.
    """

    item_ids: pa.Array
    events: np.ndarray
    candidates: np.ndarray


@dataclass(frozen=True)
class CoreRound:
    """What one round left.

    Attributes:
        users: Users with enough living items.
        counts: int64, how many of those users each item of the index has.
    """

    users: int
    counts: np.ndarray

    @property
    def pairs(self) -> int:
        """Pairs of those users and living items."""
        return int(self.counts.sum())

    @property
    def items(self) -> int:
        """Living items that some such user has."""
        return int(np.count_nonzero(self.counts))


def read_pairs(
    config: StoreConfig,
    files: Sequence[DataFile],
    shard: Shard,
    as_of_us: int | None,
    positive_types: Sequence[str],
) -> Pairs:
    """Reads a shard's interactions before `as_of_us` (None: all), duplicates once, as pairs."""
    return pair_events(read_events(config, files, shard, as_of_us), positive_types)


def pair_events(events: Events, positive_types: Sequence[str]) -> Pairs:
    """Folds events into pairs, each with the time of its first event of a positive type."""
    rows = events.rows
    users = rows["user_code"].to_numpy().astype(np.uint64)
    items = rows["item_code"].to_numpy()
    kinds = rows["interaction_type"].combine_chunks()
    is_positive = pc.is_in(kinds.dictionary, value_set=pa.array(positive_types, pa.string())).to_numpy(False)
    if rows.num_rows:
        positive_us = np.where(is_positive[kinds.indices.to_numpy()], rows["time_us"].to_numpy(), NEVER_US)
    else:
        positive_us = np.empty(0, np.int64)
    counts = np.bincount(items, minlength=len(events.items))
    item_ids = events.items
    if not counts.all():
        item_ids = item_ids.filter(pa.array(counts > 0))
        items = (np.cumsum(counts > 0) - 1)[items]
        counts = counts[counts > 0]
    keys = users << np.uint64(32) | items.astype(np.uint64)
    starts, pair_items, first_us = fold_pairs(keys, positive_us, len(events.users))
    return Pairs(events.users, events.user_buckets, starts, pair_items, first_us, item_ids, counts)


def count_events(config: StoreConfig, pairs: Pairs) -> pa.Table:
    """A shard's share of the index: item_id, events."""
    return pa.table({"item_id": pairs.item_ids, "events": pairs.events})


def build_index(config: StoreConfig, catalog: pa.Table | None, *counts: pa.Table) -> ItemIndex:
    """Numbers all items and says which can be negatives.

    Args:
        config: Unused.
        catalog: The current catalog (item_id); its items are the candidates if it has any.
        counts: What `count_events` gave for each shard.
    """
    listed = (
        pa.table({"item_id": pa.array([], pa.string())}) if catalog is None else catalog.select(["item_id"])
    )
    nothing = pa.array(np.zeros(listed.num_rows, np.int64))
    mentions = pa.concat_tables([listed.append_column("events", nothing), *counts])
    names = mentions["item_id"].combine_chunks().dictionary_encode()
    order = pc.sort_indices(names.dictionary).to_numpy()
    numbers = np.empty(order.size, np.int64)
    numbers[order] = np.arange(order.size)
    mentioned = numbers[names.indices.to_numpy()]
    events = np.zeros(order.size, np.int64)
    np.add.at(events, mentioned, mentions["events"].to_numpy())
    candidates = np.unique(mentioned[: listed.num_rows]) if listed.num_rows else np.arange(order.size)
    return ItemIndex(names.dictionary.take(pa.array(order)), events, candidates.astype(np.int32))


def measure_index(config: StoreConfig, index: ItemIndex) -> tuple[int, int]:
    """How many items the index has, and how many of them are candidates."""
    return len(index.item_ids), len(index.candidates)


def place_items(config: StoreConfig, pairs: Pairs, index: ItemIndex) -> np.ndarray:
    """The number in the index of each item of a shard: int32, ascending."""
    return np.asarray(pc.index_in(pairs.item_ids, value_set=index.item_ids))


def core_round(
    config: StoreConfig, pairs: Pairs, places: np.ndarray, alive: np.ndarray, min_per_user: int
) -> CoreRound:
    """One round on one shard.

    Args:
        config: Unused.
        pairs: The shard.
        places: `place_items` of the shard.
        alive: bool by item number: the items not dropped so far.
        min_per_user: Living items a user needs; 0 and 1 ask for one.
    """
    users, counts = count_core(pairs.starts, pairs.items, alive[places], min_per_user)
    by_number = np.zeros(alive.size, np.int64)
    by_number[places] = counts
    return CoreRound(users, by_number)


def add_rounds(rounds: Sequence[CoreRound]) -> CoreRound:
    """One round of all shards; users never cross shards, so counts add up."""
    return CoreRound(sum(part.users for part in rounds), np.sum([part.counts for part in rounds], axis=0))


def survivors(alive: np.ndarray, total: CoreRound, min_per_item: int) -> np.ndarray:
    """The living items that still have enough users; equal to `alive` at the fixed point."""
    return alive & (total.counts >= min_per_item)
