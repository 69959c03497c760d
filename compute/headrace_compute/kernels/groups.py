"""Aggregates of the rows of each group.

Groups have dense codes, 0 to n - 1, so a group is a place in an array: no hash table is needed, and a row
costs a nanosecond or two. Codes are int32, one per row.
"""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import types, void

from headrace_compute.kernels.types import INT8S, INT32S, INT32S_OUT, INT64S, INT64S_OUT, UINT64S_OUT

U64 = np.uint64

_DAY_BITS = 22
"""Days since the year 0 fit, up to the year 11,000."""


@nb.njit(void(INT32S, INT8S, types.int64, INT64S_OUT), nogil=True, cache=True)
def _histogram(codes: Any, values: Any, width: Any, counts: Any) -> None:
    for row in range(codes.size):
        counts[codes[row] * width + values[row]] += 1


@nb.njit(void(INT32S, INT8S, INT64S_OUT), nogil=True, cache=True)
def _count(codes: Any, flags: Any, counts: Any) -> None:
    for row in range(codes.size):
        counts[codes[row]] += flags[row]


@nb.njit(void(INT32S, INT64S, UINT64S_OUT), nogil=True, cache=True)
def _sum(codes: Any, values: Any, halves: Any) -> None:
    for row in range(codes.size):
        low = 2 * codes[row]
        value = U64(values[row])
        total = halves[low] + value
        # The sign extends into the upper half; what falls out of the lower one is carried.
        halves[low + 1] += U64(values[row] >> 63) + U64(total < value)
        halves[low] = total


@nb.njit(void(INT32S, INT64S, INT64S_OUT), nogil=True, cache=True)
def _least(codes: Any, values: Any, found: Any) -> None:
    for row in range(codes.size):
        found[codes[row]] = min(found[codes[row]], values[row])


@nb.njit(void(INT32S, INT64S, INT64S_OUT), nogil=True, cache=True)
def _greatest(codes: Any, values: Any, found: Any) -> None:
    for row in range(codes.size):
        found[codes[row]] = max(found[codes[row]], values[row])


@nb.njit(types.int64(INT64S, INT64S, INT64S, INT64S_OUT, INT32S_OUT, INT64S_OUT), nogil=True, cache=True)
def _fold(order: Any, keys: Any, times_us: Any, starts: Any, items: Any, last_us: Any) -> Any:
    pairs, user = 0, 0
    for place in range(order.size):
        row = order[place]
        if place == 0 or keys[row] != keys[order[place - 1]]:
            while user < keys[row] >> 32:
                user += 1
                starts[user] = pairs
            items[pairs] = keys[row] & 0xFFFFFFFF
            last_us[pairs] = times_us[row]
            pairs += 1
        elif times_us[row] > last_us[pairs - 1]:
            last_us[pairs - 1] = times_us[row]
    starts[user + 1 :] = pairs
    return pairs


@nb.njit(types.int64(INT64S, INT32S, INT64S, types.int64, INT32S_OUT, INT32S_OUT), nogil=True, cache=True)
def _newest(starts: Any, items: Any, last_us: Any, most: Any, ends: Any, chosen: Any) -> Any:
    total = 0
    times = np.empty(most, np.int64)
    for user in range(starts.size - 1):
        count = 0
        # Items come in ascending order, so of equal times a later one goes behind.
        for pair in range(starts[user], starts[user + 1]):
            if count == most and last_us[pair] <= times[most - 1]:
                continue
            place = min(count, most - 1)
            while place > 0 and times[place - 1] < last_us[pair]:
                times[place] = times[place - 1]
                chosen[total + place] = chosen[total + place - 1]
                place -= 1
            times[place] = last_us[pair]
            chosen[total + place] = items[pair]
            count = min(count + 1, most)
        total += count
        ends[user + 1] = total
    return total


def count(codes: np.ndarray, groups: int) -> np.ndarray:
    """How many rows each group has: int64."""
    return np.bincount(codes, minlength=groups)


def count_where(codes: np.ndarray, flags: np.ndarray, groups: int) -> np.ndarray:
    """How many rows of each group have a flag (int8, 0 or 1): int64."""
    counts = np.zeros(groups, np.int64)
    _count(codes, flags, counts)
    return counts


def histogram(codes: np.ndarray, values: np.ndarray, groups: int, width: int) -> pa.ListArray:
    """For each group how many rows have each value, int8, 0 to width - 1: list<int64> of `width` counts."""
    counts = np.zeros(groups * width, np.int64)
    _histogram(codes, values, width, counts)
    return pa.ListArray.from_arrays(np.arange(groups + 1, dtype=np.int32) * np.int32(width), counts)


def exact_sum(codes: np.ndarray, values: np.ndarray, groups: int) -> pa.Array:
    """The sum of an int64 of each group, in 128 bits: decimal128(38, 0)."""
    halves = np.zeros(2 * groups, np.uint64)
    add_values(codes, values, halves)
    return decimals(halves)


def add_values(codes: np.ndarray, values: np.ndarray, halves: np.ndarray) -> None:
    """Adds an int64 of each row to its group's total, two uint64 in `halves`, the lower one first."""
    _sum(codes, values, halves)


def decimals(halves: np.ndarray) -> pa.Array:
    """Totals of 128 bits, two uint64 each, the lower one first: decimal128(38, 0)."""
    return pa.Array.from_buffers(pa.decimal128(38, 0), halves.size // 2, [None, pa.py_buffer(halves)])


def least(codes: np.ndarray, values: np.ndarray, groups: int) -> pa.Array:
    """The smallest int64 of each group, all below the greatest there is; null where it has no row."""
    nothing = np.iinfo(np.int64).max
    found = np.full(groups, nothing)
    _least(codes, values, found)
    return pa.array(found, mask=found == nothing)


def greatest(codes: np.ndarray, values: np.ndarray, groups: int) -> pa.Array:
    """The greatest int64 of each group, all above the smallest there is; null where it has no row."""
    nothing = np.iinfo(np.int64).min
    found = np.full(groups, nothing)
    _greatest(codes, values, found)
    return pa.array(found, mask=found == nothing)


def count_days(codes: np.ndarray, days: np.ndarray, groups: int) -> np.ndarray:
    """How many different days (int64, since the year 0) the rows of each group have: int64."""
    keys = np.sort(codes.astype(np.int64) << _DAY_BITS | days)
    first = np.ones(keys.size, np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    return np.bincount(keys[first] >> _DAY_BITS, minlength=groups)


def newest_pairs(
    users: np.ndarray, items: np.ndarray, times_us: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct (user, item) pairs of some rows, each with the time of its newest row.

    Args:
        users, items: int32, one per row.
        times_us: int64, one per row.
        groups: How many users there are.

    Returns:
        starts (int64, groups + 1): user u has pairs `starts[u]` to `starts[u + 1]`; items (int32), ascending
        for each user; last_us (int64).
    """
    keys = users.astype(np.int64) << 32 | items
    starts = np.zeros(groups + 1, np.int64)
    found, last_us = np.empty(keys.size, np.int32), np.empty(keys.size, np.int64)
    pairs = _fold(np.argsort(keys), keys, times_us, starts, found, last_us)
    return starts, found[:pairs], last_us[:pairs]


def newest_items(starts: np.ndarray, items: np.ndarray, last_us: np.ndarray, most: int) -> pa.ListArray:
    """Each user's items, newest first, equal times in ascending order, `most` at most: list<int32>."""
    ends = np.zeros(starts.size, np.int32)
    chosen = np.empty(int(np.minimum(np.diff(starts), most).sum()), np.int32)
    total = _newest(starts, items, last_us, most, ends, chosen)
    return pa.ListArray.from_arrays(ends, chosen[:total])
