"""Aggregates of what each group has until given times: of (group, time) pairs, which are called points.

Rows are in the order of group and time, so what a point has is a range of them, from its group's first row up
to the time. Points of one group follow each other with times that do not fall; so a kernel goes on where the
point before has ended, and the cost is that of the rows and of the points, not of one times the other.
"""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import types, void

from headrace_compute.kernels.groups import add_values, decimals
from headrace_compute.kernels.types import (
    INT8S,
    INT32S,
    INT32S_OUT,
    INT64S,
    INT64S_OUT,
    UINT64S,
    UINT64S_OUT,
)

U64 = np.uint64

_DIGIT_BITS = 16
_DIGITS = 1 << _DIGIT_BITS


@nb.njit(void(UINT64S, INT64S_OUT, INT64S_OUT), nogil=True, cache=True)
def _order(keys: Any, order: Any, spare: Any) -> None:
    ends = np.empty(_DIGITS, np.int64)
    for shift in range(0, 64, _DIGIT_BITS):
        ends[:] = 0
        for key in keys:
            ends[key >> U64(shift) & U64(_DIGITS - 1)] += 1
        if ends.max() == keys.size:
            continue
        total = 0
        for digit in range(_DIGITS):
            total, ends[digit] = total + ends[digit], total
        for row in order:
            digit = keys[row] >> U64(shift) & U64(_DIGITS - 1)
            spare[ends[digit]] = row
            ends[digit] += 1
        order[:] = spare


@nb.njit(void(INT64S, INT64S, INT32S, INT64S, INT64S_OUT), nogil=True, cache=True)
def _ends(starts: Any, times_us: Any, groups: Any, until_us: Any, ends: Any) -> None:
    for point in range(groups.size):
        low, high = starts[groups[point]], starts[groups[point] + 1]
        while low < high:
            middle = (low + high) // 2
            if times_us[middle] < until_us[point]:
                low = middle + 1
            else:
                high = middle
        ends[point] = low


@nb.njit(void(INT64S, INT64S, INT64S, UINT64S_OUT), nogil=True, cache=True)
def _sum(begins: Any, ends: Any, values: Any, halves: Any) -> None:
    low, high = U64(0), U64(0)
    for point in range(begins.size):
        row = begins[point]
        if point > 0 and row == begins[point - 1]:
            row = ends[point - 1]
        else:
            low, high = U64(0), U64(0)
        while row < ends[point]:
            value = U64(values[row])
            low += value
            # The sign extends into the upper half; what falls out of the lower one is carried.
            high += U64(values[row] >> 63) + U64(low < value)
            row += 1
        halves[2 * point], halves[2 * point + 1] = low, high


@nb.njit(void(INT64S, INT64S, INT64S, INT64S_OUT), nogil=True, cache=True)
def _least(begins: Any, ends: Any, values: Any, found: Any) -> None:
    for point in range(begins.size):
        row = begins[point]
        if point > 0 and row == begins[point - 1]:
            row, found[point] = ends[point - 1], found[point - 1]
        while row < ends[point]:
            found[point] = min(found[point], values[row])
            row += 1


@nb.njit(void(INT64S, INT64S, INT8S, types.int64, INT64S_OUT), nogil=True, cache=True)
def _histogram(begins: Any, ends: Any, values: Any, width: Any, counts: Any) -> None:
    for point in range(begins.size):
        row, place = begins[point], point * width
        if point > 0 and row == begins[point - 1]:
            row = ends[point - 1]
            counts[place : place + width] = counts[place - width : place]
        while row < ends[point]:
            counts[place + values[row]] += 1
            row += 1


@nb.njit(types.int64(INT64S, INT64S, INT32S, types.int64, INT32S_OUT, INT32S_OUT), nogil=True, cache=True)
def _newest(begins: Any, ends: Any, items: Any, most: Any, offsets: Any, chosen: Any) -> Any:
    recent = np.empty(most, np.int32)
    count, total = 0, 0
    for point in range(begins.size):
        row = begins[point]
        if point > 0 and row == begins[point - 1]:
            row = ends[point - 1]
        else:
            count = 0
        while row < ends[point]:
            place = 0
            while place < count and recent[place] != items[row]:
                place += 1
            if place == count:
                count = min(count + 1, most)
                place = min(place, most - 1)
            while place > 0:
                recent[place] = recent[place - 1]
                place -= 1
            recent[0] = items[row]
            row += 1
        chosen[total : total + count] = recent[:count]
        total += count
        offsets[point + 1] = total
    return total


@nb.njit(void(INT64S, INT64S, types.int64, types.int64, INT64S_OUT, INT32S_OUT), nogil=True, cache=True)
def _spread(begins: Any, ends: Any, point: Any, skipped: Any, rows: Any, points: Any) -> None:
    row = begins[point] + skipped
    for place in range(rows.size):
        while row == ends[point]:
            point += 1
            row = begins[point]
        rows[place], points[place] = row, point
        row += 1


def stable_order(keys: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """The rows in the order of their keys, equal ones as they stand in `order`: int64.

    Args:
        keys: uint64, one per row.
        order: int64, all rows; None as they are.
    """
    order = np.arange(keys.size) if order is None else order.copy()
    _order(keys, order, np.empty_like(order))
    return order


def by_time(times_us: np.ndarray, groups: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """The order of rows by group and time, what is equal as it stands in `order`: int64.

    Args:
        times_us: int64, one per row.
        groups: uint64, one per row.
        order: int64, all rows; None as they are.
    """
    # A signed integer's sign turned over makes an unsigned one of the same order.
    return stable_order(groups, stable_order(times_us.view(np.uint64) ^ np.uint64(1 << 63), order))


def ends_before(
    starts: np.ndarray, times_us: np.ndarray, groups: np.ndarray, until_us: np.ndarray
) -> np.ndarray:
    """Where the rows of each point end, that is those of its group before its time: int64.

    Args:
        starts: int64; group g has the rows `starts[g]` to `starts[g + 1]`.
        times_us: int64, one per row, ascending within a group.
        groups: int32, one per point.
        until_us: int64, one per point; at this instant and later rows do not count.
    """
    ends = np.empty(groups.size, np.int64)
    _ends(starts, times_us, groups, until_us, ends)
    return ends


def exact_sum(begins: np.ndarray, ends: np.ndarray, values: np.ndarray) -> pa.Array:
    """The sum of an int64 of the rows of each point, in 128 bits: decimal128(38, 0).

    Args:
        begins, ends: int64; a point has the rows `begins[p]` to `ends[p]`.
        values: int64, one per row.
    """
    halves = np.empty(2 * begins.size, np.uint64)
    _sum(begins, ends, values, halves)
    return decimals(halves)


def least(begins: np.ndarray, ends: np.ndarray, values: np.ndarray) -> pa.Array:
    """The smallest int64 of the rows of each point; null where it has none."""
    found = np.full(begins.size, np.iinfo(np.int64).max)
    _least(begins, ends, values, found)
    return pa.array(found, mask=begins == ends)


def greatest(begins: np.ndarray, ends: np.ndarray, values: np.ndarray) -> pa.Array:
    """The greatest int64 of the rows of each point; null where it has none."""
    # ~ turns the order of all integers round.
    found = np.full(begins.size, np.iinfo(np.int64).max)
    _least(begins, ends, ~values, found)
    return pa.array(~found, mask=begins == ends)


def histogram(begins: np.ndarray, ends: np.ndarray, values: np.ndarray, width: int) -> pa.ListArray:
    """How many rows of each point have each value, int8, 0 to width - 1: list<int64> of `width` counts."""
    counts = np.zeros(begins.size * width, np.int64)
    _histogram(begins, ends, values, width, counts)
    return pa.ListArray.from_arrays(np.arange(begins.size + 1, dtype=np.int32) * np.int32(width), counts)


def newest_items(begins: np.ndarray, ends: np.ndarray, items: np.ndarray, most: int) -> pa.ListArray:
    """The different items of the last rows of each point, `most` at most, the last one first: list<int32>."""
    offsets = np.zeros(begins.size + 1, np.int32)
    chosen = np.empty(int(np.minimum(ends - begins, most).sum()), np.int32)
    total = _newest(begins, ends, items, most, offsets, chosen)
    return pa.ListArray.from_arrays(offsets, chosen[:total])


class SpreadSum:
    """Sums in 128 bits over the rows of each point, of values that differ from point to point.

    Rows are spread: one is there for each point that has it, and comes with the point's number.

    Args:
        begins, ends: int64; a point has the rows `begins[p]` to `ends[p]`.
    """

    def __init__(self, begins: np.ndarray, ends: np.ndarray) -> None:
        self._begins, self._ends = begins, ends
        self._totals = np.cumsum(ends - begins)
        self._halves = np.zeros(2 * begins.size, np.uint64)

    @property
    def size(self) -> int:
        """How many spread rows there are."""
        return int(self._totals[-1]) if self._totals.size else 0

    def spread(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Some of the spread rows: the place of each (int64) and its point (int32)."""
        first = int(np.searchsorted(self._totals, begin, side="right"))
        skipped = begin - int(self._totals[first] - (self._ends[first] - self._begins[first]))
        rows, points = np.empty(end - begin, np.int64), np.empty(end - begin, np.int32)
        _spread(self._begins, self._ends, first, skipped, rows, points)
        return rows, points

    def add(self, points: np.ndarray, values: np.ndarray) -> None:
        """Adds an int64 to each of some points, int32."""
        add_values(points, values, self._halves)

    def result(self) -> pa.Array:
        """The sums: decimal128(38, 0)."""
        return decimals(self._halves)
