"""The events of a shard, folded into the pairs of a user and an item that training data is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.inputs.events import Events
from headrace_compute.kernels.core import NEVER_US, fold_pairs
from headrace_compute.training.history import starts_where
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.split import TEMPORAL, leave_last_out_views, temporal_views
from headrace_compute.training.strategies import STRATEGIES

VIEW = "view"
"""The type of which exposures have events, and of no other."""


@dataclass(frozen=True)
class Pairs:
    """Distinct (user, item) pairs of a shard, its users in the order of (bucket, user_id).

    Attributes:
        starts: int64, users + 1: user u has pairs `starts[u]` to `starts[u + 1]`.
        items: int32, the number of each pair's item, ascending per user.
    """

    starts: np.ndarray
    items: np.ndarray


@dataclass(frozen=True)
class TimedPairs(Pairs):
    """Pairs that have an event of some kind.

    Attributes:
        first_us: int64, the time of each one's first such event.
    """

    first_us: np.ndarray

    def where(self, which: np.ndarray) -> "TimedPairs":
        """Those for which a bool is true."""
        return TimedPairs(starts_where(self.starts, which), self.items[which], self.first_us[which])


@dataclass(frozen=True)
class Positives:
    """Who the users of a shard are, and which pairs of a split's view are drawn for, and from.

    Attributes:
        users: user_id, in the order of (bucket, user_id).
        buckets: Their buckets, int16.
        pairs: The split's positives, with the first event of a positive type.
        exposed: What users have only viewed, with the first view; none unless it is drawn from.
    """

    users: pa.Array
    buckets: np.ndarray
    pairs: TimedPairs
    exposed: TimedPairs


@dataclass(frozen=True)
class View:
    """The pairs of what a split sees.

    Attributes:
        positives: Pairs that are positives in it; the split's own, and those of the splits before.
    """

    known: Pairs
    positives: TimedPairs
    exposed: TimedPairs


class PairRows:
    """The events of a shard, ready to be folded for one view after the other."""

    def __init__(self, events: Events, params: SamplingParams) -> None:
        rows = events.rows
        self._users, self._items = rows["user_code"].to_numpy(), rows["item_code"].to_numpy()
        self._types, self._times_us = rows["interaction_type"].to_numpy(), rows["time_us"].to_numpy()
        keys = self._users.astype(np.uint64) << np.uint64(32) | self._items.astype(np.uint64)
        self._order = np.argsort(keys)
        self._kinds = [self._of_types(params.positive_types)]
        if STRATEGIES[params.strategy].exposed:
            self._kinds += [self._of_types([VIEW]), self._of_types([VIEW], others=True)]
        self._pairs = partial(fold_pairs, keys=keys, times_us=self._kinds, users=len(events.users))

    def views(self, params: SamplingParams) -> list[np.ndarray | None]:
        """Which rows each split sees: bool, one per row; None: all."""
        if params.split is None:
            return [None]
        if params.split.kind == TEMPORAL:
            return temporal_views(self._times_us, params.split.cuts_us)
        positives = self._everything.positives
        return leave_last_out_views(
            self._users, self._items, positives.starts, positives.items, positives.first_us
        )

    def fold(self, which: np.ndarray | None) -> View:
        """The pairs of the rows for which a bool is true; None: of all."""
        return self._everything if which is None else self._folded(self._order[which[self._order]])

    @cached_property
    def _everything(self) -> View:
        return self._folded(self._order)

    def _folded(self, order: np.ndarray) -> View:
        starts, items, (first_us, *viewed) = self._pairs(order)
        known = Pairs(starts, items)
        if not viewed:
            nothing = np.zeros(0, np.int64)
            none = TimedPairs(np.zeros_like(starts), nothing.astype(np.int32), nothing)
            return View(known, _timed(known, first_us), none)
        seen_us, other_us = viewed
        only_seen_us = np.where(other_us == NEVER_US, seen_us, NEVER_US)
        return View(known, _timed(known, first_us), _timed(known, only_seen_us))

    def _of_types(self, names: Sequence[str], *, others: bool = False) -> np.ndarray:
        """The times of events of some types, or of all others, NEVER_US for the rest."""
        counts = np.isin(INTERACTION_TYPES, names, invert=others)
        return np.where(counts[self._types], self._times_us, NEVER_US)


def _timed(pairs: Pairs, first_us: np.ndarray) -> TimedPairs:
    """Those pairs that have a first time."""
    return TimedPairs(pairs.starts, pairs.items, first_us).where(first_us != NEVER_US)


def among(pairs: Pairs, others: Pairs) -> np.ndarray:
    """Which pairs are among others of the same users: bool."""
    return np.isin(_keys(pairs), _keys(others), assume_unique=True)


def _keys(pairs: Pairs) -> np.ndarray:
    users = np.repeat(np.arange(pairs.starts.size - 1), np.diff(pairs.starts))
    keys: np.ndarray = users << 32 | pairs.items
    return keys
