"""Kernels of groups against dictionaries in plain Python."""

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.kernels import groups

BIG = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(st.integers(0, 4), BIG), max_size=40)


def columns(rows: Any, *kinds: Any) -> list[np.ndarray]:
    return [np.array([row[place] for row in rows], kind) for place, kind in enumerate(kinds)]


@given(ROWS)
def test_sums_are_exact_beyond_64_bits(rows: Any) -> None:
    codes, values = columns(rows, np.int32, np.int64)
    totals: defaultdict[int, int] = defaultdict(int)
    for code, value in rows:
        totals[code] += value
    assert groups.exact_sum(codes, values, 5).to_pylist() == [Decimal(totals[code]) for code in range(5)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40))
def test_counts_flags_and_histograms(rows: Any) -> None:
    codes, values = columns(rows, np.int32, np.int8)
    pairs = Counter(rows)
    expected = [[pairs[code, value] for value in range(7)] for code in range(5)]
    assert groups.histogram(codes, values, 5, 7).to_pylist() == expected
    assert groups.count(codes, 5).tolist() == [sum(counts) for counts in expected]
    flags = (values == 3).astype(np.int8)
    assert groups.count_where(codes, flags, 5).tolist() == [counts[3] for counts in expected]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1 - 2**63, 2**63 - 2)), max_size=30))
def test_extremes_of_groups_and_null_for_those_without_rows(rows: Any) -> None:
    rows = [*rows, (1, -5), (2, 2**62)]
    codes, values = columns(rows, np.int32, np.int64)
    grouped = [[value for code, value in rows if code == group] for group in range(4)]
    assert groups.least(codes, values, 4).to_pylist() == [min(some, default=None) for some in grouped]
    assert groups.greatest(codes, values, 4).to_pylist() == [max(some, default=None) for some in grouped]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 719_528, 3_652_424])), max_size=30))
def test_days_are_counted_once(rows: Any) -> None:
    codes, days = columns(rows, np.int32, np.int64)
    expected = [len({day for code, day in rows if code == group}) for group in range(4)]
    assert groups.count_days(codes, days, 4).tolist() == expected


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(-3, 3)), max_size=60),
    st.integers(1, 7),
)
def test_each_user_s_newest_items(rows: Any, most: int) -> None:
    users, items, times = columns(rows, np.int32, np.int32, np.int64)
    newest: dict[tuple[int, int], int] = {}
    for user, item, time in rows:
        newest[user, item] = max(time, newest.get((user, item), time))
    starts, pair_items, last_us = groups.newest_pairs(users, items, times, 4)
    found = {
        (user, int(pair_items[pair])): int(last_us[pair])
        for user in range(4)
        for pair in range(starts[user], starts[user + 1])
    }
    assert list(found) == sorted(newest)
    assert found == newest
    expected = [
        sorted(
            (item for owner, item in newest if owner == user), key=lambda item: (-newest[user, item], item)
        )[:most]
        for user in range(4)
    ]
    assert groups.newest_items(starts, pair_items, last_us, most).to_pylist() == expected


@pytest.mark.parametrize("groups_count", [0, 3])
def test_no_rows_are_no_fault(groups_count: int) -> None:
    nothing = np.empty(0, np.int32)
    assert groups.count(nothing, groups_count).tolist() == [0] * groups_count
    starts, items, last_us = groups.newest_pairs(nothing, nothing, np.empty(0, np.int64), groups_count)
    assert groups.newest_items(starts, items, last_us, 50).to_pylist() == [[] for _ in range(groups_count)]
