"""The k-core of (user, item) pairs: shards count, the caller adds up.

A round drops users with too few living items, shard by shard, and counts the
users that each item still has; `survivors` drops items. Repeated until no item
is dropped, this reaches the unique fixed point, whatever the order of removals.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.inputs.events import Events, gather
from headrace_compute.inputs.exchange import Slice
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.kernels.core import NEVER_US, count_core, fold_pairs
from headrace_compute.model import Shard, StoreConfig
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.strategies import STRATEGIES

VIEW = "view"
"""The type of which exposures have events, and of no other."""

NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Pairs:
    """The distinct (user, item) pairs of a shard, its users in the order of (bucket, user_id).

    All that the core needs: each of its rounds reads the pairs of all shards.

    Attributes:
        starts: int64, users + 1: user u has pairs `starts[u]` to `starts[u + 1]`.
        items: int32, the number of each pair's item, ascending per user.
    """

    starts: np.ndarray
    items: np.ndarray


@dataclass(frozen=True)
class Positives:
    """Who the users of a shard are, and which of its pairs are positives: what sampling needs besides.

    Attributes:
        users: user_id, in the order of (bucket, user_id).
        buckets: Their buckets, int16.
        pairs: int32, ascending, the places of pairs that have an event of a positive type.
        first_us: int64, the time of each one's first such event.
        exposed: int32, ascending, the places of pairs that have views and nothing else; none unless they are
            drawn from.
        exposed_us: int64, the time of each one's first view.
    """

    users: pa.Array
    buckets: np.ndarray
    pairs: np.ndarray
    first_us: np.ndarray
    exposed: np.ndarray
    exposed_us: np.ndarray


@dataclass(frozen=True)
class ItemCounts:
    """Events of the items of a shard.

    Attributes:
        numbers: int32, of the items that have any, ascending.
        events: int64, how many each has.
    """

    numbers: np.ndarray
    events: np.ndarray


@dataclass(frozen=True)
class ItemIndex:
    """All items of the source and the catalog, by their numbers.

    Attributes:
        item_ids: item_id by number.
        events: int64, events in the source by number.
        candidates: int32, numbers of the items that can be negatives, ascending.
    """

    item_ids: pa.Array
    events: np.ndarray
    candidates: np.ndarray


@dataclass
class CoreRound:
    """What one round left, of the shards that were added up.

    Attributes:
        counts: int64, by number: how many users with enough living items each item has.
        users: How many such users there are.
    """

    counts: np.ndarray
    users: int = 0

    def add(self, users: int, counts: np.ndarray) -> None:
        """Adds what `core_round` gave for a shard; users never cross shards."""
        self.users += users
        self.counts += counts

    @property
    def pairs(self) -> int:
        """Pairs of those users and living items."""
        return int(self.counts.sum())

    @property
    def items(self) -> int:
        """Living items that some such user has."""
        return int(np.count_nonzero(self.counts))


def fold_shard(
    config: StoreConfig, shard: Shard, params: SamplingParams, numbering: Numbering, *slices: Slice
) -> Iterator[Pairs | Positives | ItemCounts]:
    """Folds the events of a shard into pairs.

    Args:
        config: Unused.
        shard: Which one, for its name.
        params: Which types make a positive, and whether exposures are drawn from.
        numbering: Of all items.
        slices: Its rows, of each batch.

    Yields:
        Its Pairs, its Positives, then its ItemCounts.
    """
    events = gather(numbering, slices)
    yield from fold_events(events, params)
    counts = np.bincount(events.rows["item_code"].to_numpy())
    numbers = np.flatnonzero(counts)
    yield ItemCounts(numbers.astype(np.int32), counts[numbers])


def fold_events(events: Events, params: SamplingParams) -> tuple[Pairs, Positives]:
    """The (user, item) pairs of events, and those of them that sampling asks more of."""
    rows = events.rows
    users = rows["user_code"].to_numpy().astype(np.uint64)
    items = rows["item_code"].to_numpy().astype(np.uint64)
    types, times_us = rows["interaction_type"].to_numpy(), rows["time_us"].to_numpy()

    def of_types(names: Sequence[str], *, others: bool = False) -> np.ndarray:
        """The times of events of some types, or of all others, NEVER_US for the rest."""
        counts = np.isin(INTERACTION_TYPES, names, invert=others)
        return np.where(counts[types], times_us, NEVER_US)

    wanted = [of_types(params.positive_types)]
    if STRATEGIES[params.strategy].exposed:
        wanted += [of_types([VIEW]), of_types([VIEW], others=True)]
    keys = users << np.uint64(32) | items
    starts, pair_items, (first_us, *viewed) = fold_pairs(keys, wanted, len(events.users))
    places, exposed, exposed_us = np.flatnonzero(first_us != NEVER_US), NOTHING, NOTHING
    if viewed:
        seen_us, other_us = viewed
        exposed = np.flatnonzero((seen_us != NEVER_US) & (other_us == NEVER_US))
        exposed_us = seen_us[exposed]
    return Pairs(starts, pair_items), Positives(
        users=events.users,
        buckets=events.user_buckets,
        pairs=places.astype(np.int32),
        first_us=first_us[places],
        exposed=exposed.astype(np.int32),
        exposed_us=exposed_us,
    )


def build_index(config: StoreConfig, numbering: Numbering, *counts: ItemCounts) -> ItemIndex:
    """Says how often each item occurs, and which can be negatives: those of the catalog, if it has any."""
    events = np.zeros(len(numbering), np.int64)
    for shard in counts:
        events[shard.numbers] += shard.events
    candidates = numbering.listed if len(numbering.listed) else np.arange(len(numbering), dtype=np.int32)
    return ItemIndex(numbering.item_ids, events, candidates)


def measure_index(config: StoreConfig, index: ItemIndex) -> tuple[int, int]:
    """How many items the index has, and how many of them are candidates."""
    return len(index.item_ids), len(index.candidates)


def core_round(
    config: StoreConfig, pairs: Pairs, alive: np.ndarray, min_per_user: int
) -> tuple[int, np.ndarray]:
    """One round on one shard.

    Args:
        config: Unused.
        pairs: The shard.
        alive: bool by item number: the items not dropped so far.
        min_per_user: Living items a user needs; 0 and 1 ask for one.

    Returns:
        How many users have enough living items; how many of these users each item has, int32 by number.
    """
    return count_core(pairs.starts, pairs.items, alive, min_per_user)


def survivors(alive: np.ndarray, total: CoreRound, min_per_item: int) -> np.ndarray:
    """The living items that still have enough users; equal to `alive` at the fixed point."""
    return alive & (total.counts >= min_per_item)
