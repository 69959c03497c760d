"""The events of a shard, folded into the pairs of a user and an item that training data is made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.inputs.events import Events, gather
from headrace_compute.inputs.exchange import Slice
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.kernels.core import NEVER_US, fold_pairs
from headrace_compute.model import Shard, StoreConfig
from headrace_compute.training.items import ItemCounts
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
