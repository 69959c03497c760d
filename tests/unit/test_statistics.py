"""Statistics and drift against what docs/semantics.md says, read aloud in plain Python."""

import math
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.statistics.drift import (
    ColumnDrift,
    DriftLimits,
    column_drift,
    jensen_shannon,
    l_infinity,
    table_drift,
)
from headrace_compute.statistics.numbers import QUANTILE_UNIT, numbers_of
from headrace_compute.statistics.sketch import MAX_VALUES, merge_tables, sketch_table
from headrace_compute.statistics.summary import (
    MAX_BINS,
    MAX_TOP_VALUES,
    PROBABILITIES,
    ColumnStatistics,
    TableStatistics,
    from_json,
    statistics_of,
    to_json,
)
from headrace_compute.statistics.table import SCHEMA, statistics_rows

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
AS_OF_US = int(AS_OF.timestamp()) * 1_000_000

DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.sampled_from(["a", "b", "B", "é", "日本", ""]) | st.text(max_size=5)
INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(2026, 2, 28)).map(lambda time: time.replace(tzinfo=UTC))

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "count": st.integers(0, 2000),
            "rate": st.none() | DOUBLES,
            "time": st.none() | INSTANTS,
            "text": st.none() | TEXTS,
            "items": st.lists(st.sampled_from("xyz"), max_size=4),
            "hours": st.lists(st.integers(0, 9), min_size=3, max_size=3),
        }
    ),
    max_size=40,
)

SCHEMA_OF_ROWS = pa.schema(
    {
        "id": pa.string(),
        "count": pa.int64(),
        "rate": pa.float64(),
        "time": pa.timestamp("us", tz="UTC"),
        "text": pa.string(),
        "items": pa.list_(pa.string()),
        "hours": pa.list_(pa.int64()),
    }
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"id": f"u{n}", **row} for n, row in enumerate(rows)], SCHEMA_OF_ROWS)


def statistics(table: pa.Table) -> TableStatistics:
    return statistics_of(sketch_table(table, "id", AS_OF_US), AS_OF_US)


def column(values: list[Any], kind: pa.DataType | None = None) -> ColumnStatistics:
    return statistics(pa.table({"x": pa.array(values, kind)})).columns[0]


def assert_numbers(found: ColumnStatistics, numbers: list[float]) -> None:
    """The definitions: exact but for the last bits of what is not rational, quantiles within their error."""
    exact, n = [Fraction(number) for number in numbers], len(numbers)
    assert found.count == n
    if not numbers:
        assert (found.mean, found.stddev, found.minimum, found.maximum) == (None,) * 4
        assert (found.quantiles, found.bins) == ((), ())
        return
    mean = sum(exact) / n
    variance = sum((number - mean) ** 2 for number in exact) / n
    assert found.mean == float(mean)
    assert found.stddev is not None
    beside = (max(0.0, math.nextafter(found.stddev, -math.inf)), math.nextafter(found.stddev, math.inf))
    assert Fraction(beside[0]) ** 2 <= variance <= Fraction(beside[1]) ** 2
    assert (found.minimum, found.maximum) == (min(numbers), max(numbers))
    for p, quantile in zip(PROBABILITIES, found.quantiles, strict=True):
        true = sorted(numbers)[max(1, math.ceil(Fraction(str(p)) * n)) - 1]
        off = abs(Fraction(quantile) - Fraction(true))
        bound = max(Fraction(found.quantile_error) * abs(Fraction(true)), Fraction(QUANTILE_UNIT))
        assert off <= (bound if found.quantile_error else 0)
    left = Counter(numbers)
    for low, high, count in found.histogram:
        # A bin has its edge next to zero, and the outermost ones both.
        ends = (low if low >= 0 else high, sys.float_info.max, -sys.float_info.max)
        inside = [x for x in left if low < x < high or (x in (low, high) and x in ends)]
        assert count == sum(left.pop(x) for x in inside)
    assert not left
    assert sum(count for _, _, count in found.histogram) == n


def age(time: datetime) -> float:
    return float((AS_OF - time) // timedelta(microseconds=1)) / 86_400_000_000


@given(ROWS)
def test_statistics_are_what_the_definitions_say(rows: list[dict[str, Any]]) -> None:
    found = {each.name: each for each in statistics(table_of(rows)).columns}
    filled = {name: [row[name] for row in rows if row[name] is not None] for name in list(found)[1:]}
    assert {name: each.nulls for name, each in found.items()} == {
        "id": 0,
        **{name: len(rows) - len(values) for name, values in filled.items()},
    }
    assert_numbers(found["count"], filled["count"])
    assert_numbers(found["rate"], [0.0 if rate == 0 else rate for rate in filled["rate"]])
    assert_numbers(found["time"], [age(time) for time in filled["time"]])
    assert_numbers(found["text"], [len(text.encode()) for text in filled["text"]])
    assert_numbers(found["items"], [len(items) for items in filled["items"]])
    assert_numbers(found["id"], [len(f"u{n}") for n in range(len(rows))])
    counts = Counter(filled["text"])
    expected = sorted(counts.items(), key=lambda each: (-each[1], each[0].encode()))
    assert list(found["text"].top_values) == expected
    assert (found["text"].distinct, found["text"].distinct_error) == (len(counts), 0.0)
    assert (found["id"].distinct, found["id"].distinct_error, found["id"].values_total) == (
        len(rows),
        0.0,
        None,
    )
    assert (found["items"].distinct, found["items"].values_total) == (None, None)
    sums = [(str(place), sum(row["hours"][place] for row in rows)) for place in range(3)] if rows else []
    assert list(found["hours"].top_values) == sums


@given(ROWS, st.lists(st.integers(0, 40), max_size=6), st.randoms())
def test_however_rows_are_cut_and_merged_statistics_are_equal_to_the_bit(
    rows: list[dict[str, Any]], cuts: list[int], random: Any
) -> None:
    whole = table_of(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [whole.slice(a, b - a) for a, b in pairwise(edges)]
    random.shuffle(parts)
    sketches = [sketch_table(part, "id", AS_OF_US) for part in parts]
    while len(sketches) > 1:
        a, b = (sketches.pop(random.randrange(len(sketches))) for _ in range(2))
        sketches.append(merge_tables(a, b))
    assert to_json(statistics_of(sketches[0], AS_OF_US)) == to_json(statistics(whole))


def test_many_numbers_keep_the_errors_that_are_stated() -> None:
    dice = np.random.default_rng(7)
    for values in (dice.lognormal(3, 2, 5_000), dice.normal(0, 5, 5_000), dice.zipf(1.6, 5_000) * 1.0):
        found = column(values.tolist())
        assert_numbers(found, values.tolist())
        assert len(found.bins) <= MAX_BINS
        assert found.distinct == pytest.approx(len(set(values.tolist())), rel=4 * 0.016)


def test_small_whole_numbers_are_told_exactly() -> None:
    found = column([*range(257), 3, 3])
    assert (found.distinct, found.distinct_error, found.quantile_error) == (257, 0.0, 0.0)
    assert found.quantiles[3] == sorted([*range(257), 3, 3])[129]
    assert column([0.1] * 1000).stddev == 0.0
    assert column([-0.0, 0.0]).minimum == 0.0


def test_extremes_of_doubles_have_statistics() -> None:
    assert_numbers(column([1.7e308, -1.7e308, 1.7e308, 5e-324]), [1.7e308, -1.7e308, 1.7e308, 5e-324])
    for tiny in ([0.0, 5e-324], [0.0, 0.0, 5e-324, 2.0**-1023, 3e-310], [-5e-324, 2.0**-1022]):
        assert_numbers(column(tiny), tiny)
    spread = [10.0**exponent for exponent in range(-300, 300)]
    found = column([*spread, *(-x for x in spread)])
    assert len(found.bins) <= MAX_BINS
    assert_numbers(found, [*spread, *(-x for x in spread)])
    odd = column([1.0, math.nan, math.inf, None])
    assert (odd.count, odd.nulls, odd.mean) == (1, 3, 1.0)


def test_texts_that_are_too_many_are_estimated_wherever_that_shows() -> None:
    table = pa.table({"x": [f"t{n}" for n in range(MAX_VALUES + 1)]})
    whole = statistics_of(sketch_table(table, "", 0), 0)
    few = [sketch_table(table.slice(first, 1000), "", 0) for first in range(0, MAX_VALUES + 1, 1000)]
    assert all(part.columns[0].values is not None for part in few)
    assert statistics_of(reduce(merge_tables, few), 0) == whole
    (found,) = whole.columns
    assert (found.top_values, found.values_total, found.distinct_error) == ((), None, 0.016)
    assert found.distinct == pytest.approx(MAX_VALUES + 1, rel=4 * 0.016)
    (all_of_them,) = statistics_of(sketch_table(table.slice(1), "", 0), 0).columns
    assert (all_of_them.distinct, len(all_of_them.top_values)) == (MAX_VALUES, MAX_TOP_VALUES)
    assert all_of_them.values_total == MAX_VALUES


def test_long_values_are_cut_between_characters() -> None:
    ((value, count),) = column(["日" * 100] * 2).top_values
    assert (value, count) == ("日" * 85, 2)


def test_values_that_are_alike_where_they_are_cut_are_still_two_in_drift() -> None:
    long = "z" * 300
    all_a, all_b = column([long + "A"] * 20), column([long + "B"] * 20)
    both = column([long + "AB"[n % 2] for n in range(20)])
    assert all_a.top_values == all_b.top_values
    assert both.top_values == (("z" * 256, 10),) * 2
    for before, after, value in (
        (all_a, all_b, 1.0),
        (all_a, both, 0.5),
        (both, all_b, 0.5),
        (both, both, 0.0),
    ):
        drift = column_drift(before, after)
        assert (drift.distance, drift.value, drift.error) == ("l_infinity", value, 0.0)
    statistics_read = from_json(to_json(TableStatistics(0, (both,)))).columns[0]
    assert column_drift(statistics_read, all_a).value == 0.5
    crowd = column([long + f"{n:03}" for n in range(101)])
    assert column_drift(crowd, column([long + "000"])).error == 1 / 101


def test_lists_of_several_lengths_have_no_places() -> None:
    parts = [
        pa.table({"x": [[1, 2]]}),
        pa.table({"x": [[3]]}),
        pa.table({"x": pa.array([], pa.list_(pa.int64()))}),
    ]
    assert statistics(pa.concat_tables(parts)).columns[0].values_total is None
    merged = reduce(merge_tables, (sketch_table(part, "", 0) for part in parts))
    assert statistics_of(merged, 0).columns[0].values_total is None


def test_statistics_survive_their_text_and_become_rows() -> None:
    rows = [
        {"count": n, "rate": n / 3, "text": f"t{n}", "items": ["x"], "hours": [n, 0, 1]} for n in range(9)
    ]
    found = statistics(table_of([{"time": None, **row} for row in rows]))
    assert from_json(to_json(found)) == found
    table = statistics_rows("user_features", 4, found)
    assert table.schema == SCHEMA.remove_metadata()
    told = {row["column"]: row for row in table.to_pylist()}
    assert list(told) == SCHEMA_OF_ROWS.names
    assert (told["rate"]["mean"], told["rate"]["p50"]) == (
        found.columns[2].mean,
        found.columns[2].quantiles[3],
    )
    assert (told["time"]["mean"], told["time"]["p50"], told["items"]["top_values"]) == (None, None, None)
    assert told["hours"]["top_values"][0] == {"value": "0", "count": 36}
    with pytest.raises(ValueError, match="format 2"):
        from_json(to_json(found).replace('"format":1', '"format":2'))


SHARES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50), min_size=1).map(
    lambda counts: {name: count / sum(counts.values()) for name, count in counts.items()}
)


@given(SHARES, SHARES)
def test_distances_are_what_their_formulas_say(p: dict[Any, float], q: dict[Any, float]) -> None:
    names = sorted({*p, *q})
    middle = {name: (p.get(name, 0.0) + q.get(name, 0.0)) / 2 for name in names}

    def divergence(shares: dict[Any, float]) -> float:
        return sum(share * math.log2(share / middle[name]) for name, share in shares.items())

    assert jensen_shannon(p, q) == pytest.approx((divergence(p) + divergence(q)) / 2, abs=1e-12)
    assert l_infinity(p, q) == max(abs(p.get(name, 0.0) - q.get(name, 0.0)) for name in names)
    assert jensen_shannon(p, p) == l_infinity(p, p) == 0.0
    assert jensen_shannon(p, q) == jensen_shannon(q, p)


def test_drift_goes_by_values_where_they_are_counted_and_by_bins_elsewhere() -> None:
    texts = column_drift(column(["a", "a", "b", None]), column(["a", "b", "b", "b"]))
    assert (texts.distance, texts.value, texts.error) == ("l_infinity", 0.5, 0.0)
    numbers = column_drift(column([1.0, 1.0]), column([1.0, 9.0]))
    middle = (0.75, 0.25)
    expected = (math.log2(1 / middle[0]) + 0.5 * math.log2(0.5 / middle[0]) + 0.5 * math.log2(0.5 / 0.25)) / 2
    assert numbers.distance == "jensen_shannon"
    assert numbers.value == pytest.approx(expected)
    many = column([f"{n:05}" for n in range(MAX_VALUES + 1)])
    lengths = column_drift(column(["12345"]), many)
    assert (lengths.distance, lengths.value) == ("jensen_shannon", 0.0)
    assert column_drift(column([], pa.float64()), column([1.0])).value == 1.0
    assert column_drift(column([], pa.float64()), column([], pa.float64())).value == 0.0
    assert column_drift(column([1.0]), column([None], pa.float64())).value == 1.0
    unlisted = column_drift(column([str(n) for n in range(101)]), column(["0"]))
    assert (unlisted.value, unlisted.error) == (100 / 101, 1 / 101)


def test_histograms_of_unequal_widths_share_the_wider_edges() -> None:
    spread = [10.0**exponent for exponent in range(-300, 300)]
    wide, narrow = column([*spread, *spread, 5.0]), column(spread)
    assert wide.shift == narrow.shift > column([1.0]).shift
    assert column_drift(column([5.0]), column([6.0])).value == 1.0
    assert 0 < column_drift(column([5.0]), wide).value < 1
    assert column_drift(wide, column([5.0])).value == column_drift(column([5.0]), wide).value


def test_only_columns_of_both_versions_are_compared() -> None:
    before = statistics(pa.table({"a": [1], "b": ["x"]}))
    after = statistics(pa.table({"b": ["x"], "c": [1]}))
    assert [drift.column for drift in table_drift(before, after)] == ["b"]


def test_general_limits_are_not_for_keys_and_buckets() -> None:
    limits = DriftLimits(0.1, 0.2, {"user_features.bucket": 0.3})

    def limit(table: str, column: str, distance: Any = "jensen_shannon") -> float | None:
        return limits.of(table, ColumnDrift(column, distance, 1.0))

    assert limit("user_features", "price") == 0.2
    assert limit("user_features", "category", "l_infinity") == 0.1
    assert limit("user_features", "bucket") == 0.3
    assert [limit("item_features", name) for name in ("bucket", "item_id", "user_id")] == [None] * 3


def test_sums_do_not_depend_on_order() -> None:
    values = np.array([1e16, 1.0, -1e16, 1e-9] * 500)
    shuffled = np.random.default_rng(3).permutation(values)
    assert numbers_of(values).mean == numbers_of(shuffled).mean == float(Fraction(1 + Fraction(1e-9), 4))
