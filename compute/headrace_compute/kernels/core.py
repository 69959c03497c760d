"""User-item pairs and their k-core, on arrays of numbers.

Pairs lie in compressed rows: user u's items are `items[starts[u]:starts[u + 1]]`,
ascending. Item numbers keep the byte order of the item ids, so comparing numbers
compares ids.
"""

from collections.abc import Sequence
from typing import Any

import numba as nb
import numpy as np

U64 = np.uint64

NEVER_US = np.iinfo(np.int64).max
"""The time of a first positive event that did not happen."""

FEW = 32
"""Positives of a user that are sorted by insertion."""

# Arrays out of Ray's object store are read-only; a signature that says so takes both kinds.
_I32, _I64, _U64, _BOOL = (
    nb.types.Array(kind, 1, "C", readonly=True) for kind in (nb.int32, nb.int64, nb.uint64, nb.boolean)
)
_OUT_I32, _OUT_I64, _OUT_BOOL = nb.int32[::1], nb.int64[::1], nb.boolean[::1]


@nb.njit(nb.int64(_I64, _U64, _I64, _OUT_I64, _OUT_I32, _OUT_I64), nogil=True, cache=True)
def _fold(order: Any, keys: Any, times_us: Any, starts: Any, items: Any, first_us: Any) -> Any:
    pairs = 0
    user = 0
    for place in range(order.size):
        row = order[place]
        if place == 0 or keys[row] != keys[order[place - 1]]:
            while user < np.int64(keys[row] >> U64(32)):
                user += 1
                starts[user] = pairs
            items[pairs] = np.int32(keys[row] & U64(0xFFFFFFFF))
            first_us[pairs] = times_us[row]
            pairs += 1
        elif times_us[row] < first_us[pairs - 1]:
            first_us[pairs - 1] = times_us[row]
    starts[user + 1 :] = pairs
    return pairs


@nb.njit(nb.int64(_I64, _I32, _BOOL, nb.int64, nb.int64), nogil=True, cache=True)
def _degree(starts: Any, items: Any, alive: Any, user: Any, minimum: Any) -> Any:
    """Living items of the user, 0 if there are fewer than `minimum`."""
    degree = 0
    for pair in range(starts[user], starts[user + 1]):
        degree += alive[items[pair]]
    return degree if degree >= minimum else 0


@nb.njit(nb.int64(_I64, _I32, _BOOL, nb.int64, _OUT_I32), nogil=True, cache=True)
def _count(starts: Any, items: Any, alive: Any, minimum: Any, counts: Any) -> Any:
    users = 0
    for user in range(starts.size - 1):
        if _degree(starts, items, alive, user, minimum) == 0:
            continue
        users += 1
        for pair in range(starts[user], starts[user + 1]):
            counts[items[pair]] += alive[items[pair]]
    return users


@nb.njit(nb.void(_I64, _I32, _BOOL, nb.int64, _OUT_BOOL), nogil=True, cache=True)
def _members(starts: Any, items: Any, alive: Any, minimum: Any, members: Any) -> None:
    for user in range(starts.size - 1):
        members[user] = _degree(starts, items, alive, user, minimum) > 0


@nb.njit(nogil=True)
def _sort_few(places: Any, times_us: Any) -> None:
    """By insertion, stable; for a few, which is what most users have."""
    for end in range(1, places.size):
        place = places[end]
        at = end
        while at > 0 and times_us[places[at - 1]] > times_us[place]:
            places[at] = places[at - 1]
            at -= 1
        places[at] = place


@nb.njit(nb.int64(_I64, _I32, _I64, _BOOL, _BOOL, nb.int64, _OUT_I64, _OUT_I64), nogil=True, cache=True)
def _choose(
    starts: Any, items: Any, first_us: Any, members: Any, alive: Any, cap: Any, chosen: Any, owner: Any
) -> Any:
    total = 0
    for user in range(starts.size - 1):
        if not members[user]:
            continue
        begin = total
        for positive in range(starts[user], starts[user + 1]):
            if alive[items[positive]]:
                chosen[total] = positive
                owner[total] = user
                total += 1
        count = total - begin
        if count == 0:
            continue
        # Pairs come in item order and the sort is stable: (timestamp, item_id).
        if count <= FEW:
            _sort_few(chosen[begin:total], first_us)
        else:
            chosen[begin:total] = chosen[begin:total][
                np.argsort(first_us[chosen[begin:total]], kind="mergesort")
            ]
        if cap == 0 or count <= cap:
            continue
        order = chosen[begin:total].copy()
        # The oldest time that still has room takes its lowest item ids.
        edge_us = first_us[order[count - cap]]
        low = count - cap
        while low > 0 and first_us[order[low - 1]] == edge_us:
            low -= 1
        high = count - cap
        while high < count and first_us[order[high]] == edge_us:
            high += 1
        ties = cap - (count - high)
        chosen[begin : begin + ties] = order[low : low + ties]
        chosen[begin + ties : begin + cap] = order[high:]
        total = begin + cap
    return total


def fold_pairs(
    order: np.ndarray, keys: np.ndarray, times_us: Sequence[np.ndarray], users: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The distinct pairs of some rows.

    Args:
        order: int64, which rows, in the order of their keys.
        keys: uint64 `user << 32 | item`, one per row.
        times_us: For each kind of event that is looked for, int64: the row's time if it is such an event,
            else NEVER_US.
        users: How many users there are.

    Returns:
        starts (int64, users + 1), items (int32, one per pair), and for each kind int64, one per pair: the
        time of its first such event, or NEVER_US.
    """
    starts = np.zeros(users + 1, np.int64)
    items = np.empty(order.size, np.int32)
    firsts = []
    for each_us in times_us:
        first_us = np.empty(order.size, np.int64)
        pairs = _fold(order, keys, each_us, starts, items, first_us)
        firsts.append(first_us[:pairs].copy())
    return starts, items[:pairs].copy(), firsts


def count_core(
    starts: np.ndarray, items: np.ndarray, alive: np.ndarray, minimum: int
) -> tuple[int, np.ndarray]:
    """Users with at least `minimum` living items, and how many of them each living item has.

    Args:
        starts: int64, users + 1.
        items: int32, one per pair.
        alive: bool, one per item number.
        minimum: `min_interactions_per_user`; 0 and 1 keep every user with a living item.

    Returns:
        The number of such users, and counts (int32, one per item; 0 for dead items).
    """
    counts = np.zeros(alive.size, np.int32)
    return int(_count(starts, items, alive, minimum, counts)), counts


def core_members(starts: np.ndarray, items: np.ndarray, alive: np.ndarray, minimum: int) -> np.ndarray:
    """Which users are in the core: bool, one per user.

    Args:
        starts, items, alive, minimum: As of `count_core`.
    """
    members = np.empty(starts.size - 1, np.bool_)
    _members(starts, items, alive, minimum, members)
    return members


def choose_positives(
    starts: np.ndarray,
    items: np.ndarray,
    first_us: np.ndarray,
    members: np.ndarray,
    alive: np.ndarray,
    cap: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The positives of the core: each user's newest `cap` by (time DESC, item ASC); 0 = all.

    Args:
        starts: int64, users + 1: where each user's positives begin.
        items: int32, the item of each, ascending per user.
        first_us: int64, when each first was one.
        members: bool, one per user: `core_members`.
        alive: bool, one per item number.
        cap: Of each user.

    Returns:
        Which of the positives, and their users (int64), ordered by user, time, item.
    """
    chosen = np.empty(items.size, np.int64)
    owner = np.empty(items.size, np.int64)
    total = _choose(starts, items, first_us, members, alive, cap, chosen, owner)
    return chosen[:total].copy(), owner[:total].copy()
