"""Kernels of points against plain Python that looks at all rows of a group for each point."""

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.kernels import timelines

BIG = st.integers(-(2**63), 2**63 - 1)
GROUPS = 4
ROWS = st.lists(st.tuples(st.integers(0, GROUPS - 1), st.integers(-3, 3), BIG), max_size=40)
POINTS = st.sets(st.tuples(st.integers(0, GROUPS - 1), st.integers(-4, 5)))

Rows = Sequence[tuple[int, int, int]]
Points = set[tuple[int, int]]


def ranges(rows: Rows, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Where each point's rows begin and end; rows are in order."""
    counts = np.bincount([row[0] for row in rows], minlength=GROUPS) if rows else np.zeros(GROUPS, np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    groups = np.array([group for group, _ in sorted(points)], np.int32)
    until = np.array([time for _, time in sorted(points)], np.int64)
    times = np.array([row[1] for row in rows], np.int64)
    return starts[groups], timelines.ends_before(starts, times, groups, until)


def mine(rows: Rows, points: Points) -> list[list[int]]:
    """The values that each point has."""
    return [[row[2] for row in rows if row[0] == group and row[1] < time] for group, time in sorted(points)]


@given(ROWS, POINTS)
def test_sums_and_extremes_are_those_of_the_rows_before(rows: Rows, points: Points) -> None:
    rows = sorted(rows, key=lambda row: row[:2])
    values = np.array([row[2] for row in rows], np.int64)
    wanted = mine(rows, points)
    begins, ends = ranges(rows, points)
    assert timelines.exact_sum(begins, ends, values).to_pylist() == [Decimal(sum(some)) for some in wanted]
    assert timelines.least(begins, ends, values).to_pylist() == [min(some, default=None) for some in wanted]
    assert timelines.greatest(begins, ends, values).to_pylist() == [
        max(some, default=None) for some in wanted
    ]


@given(ROWS, POINTS)
def test_histograms_are_those_of_the_rows_before(rows: Rows, points: Points) -> None:
    rows = sorted([(group, time, value % 5) for group, time, value in rows], key=lambda row: row[:2])
    values = np.array([row[2] for row in rows], np.int8)
    wanted = [[some.count(value) for value in range(5)] for some in mine(rows, points)]
    assert timelines.histogram(*ranges(rows, points), values, 5).to_pylist() == wanted


@given(ROWS, POINTS, st.integers(1, 6))
def test_newest_items_are_the_last_different_ones(rows: Rows, points: Points, most: int) -> None:
    rows = sorted([(group, time, value % 7) for group, time, value in rows], key=lambda row: row[:2])
    items = np.array([row[2] for row in rows], np.int32)
    wanted = [list(dict.fromkeys(reversed(some)))[:most] for some in mine(rows, points)]
    assert timelines.newest_items(*ranges(rows, points), items, most).to_pylist() == wanted


@given(ROWS, POINTS, st.integers(1, 7))
def test_spread_rows_are_each_point_s_whatever_the_pieces(rows: Rows, points: Points, piece: int) -> None:
    rows = sorted(rows, key=lambda row: row[:2])
    values = np.array([row[2] for row in rows], np.int64)
    begins, ends = ranges(rows, points)
    total = timelines.SpreadSum(begins, ends)
    assert total.size == int((ends - begins).sum())
    for begin in range(0, total.size, piece):
        places, owners = total.spread(begin, min(begin + piece, total.size))
        total.add(owners, values[places])
    assert total.result().to_pylist() == [Decimal(sum(some)) for some in mine(rows, points)]


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=60))
def test_the_order_keeps_equal_keys_as_they_were(keys: list[int]) -> None:
    array = np.array(keys, np.uint64)
    before = np.arange(array.size)
    assert timelines.stable_order(array).tolist() == sorted(range(len(keys)), key=keys.__getitem__)
    backwards = before[::-1].copy()
    wanted = sorted(backwards.tolist(), key=keys.__getitem__)
    assert timelines.stable_order(array, backwards).tolist() == wanted
    assert backwards.tolist() == before[::-1].tolist()


@pytest.mark.parametrize("groups", [1, 3])
def test_points_of_nothing_have_nothing(groups: int) -> None:
    begins = ends = np.zeros(groups, np.int64)
    nothing = np.empty(0, np.int64)
    assert timelines.exact_sum(begins, ends, nothing).to_pylist() == [0] * groups
    assert timelines.least(begins, ends, nothing).to_pylist() == [None] * groups
    assert timelines.newest_items(begins, ends, nothing.astype(np.int32), 3).to_pylist() == [[]] * groups
    assert timelines.SpreadSum(begins[:0], ends[:0]).size == 0
