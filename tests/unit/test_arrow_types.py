"""Which Arrow types the contract takes, and what it makes of each value."""

import decimal
import json
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import TooLargeError
from headrace_compute.formats.arrow import made_safe, raw_table, row_bytes, times_of
from headrace_compute.formats.records import ArrowRecords
from headrace_compute.ingest.examine import Examined, examine
from headrace_compute.ingest.rejects import reject_table
from headrace_compute.model import Block, UploadSpec
from headrace_compute.schemas.contract import describe

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("user_id", "item_id", "interaction_type", "timestamp", "rating")


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


SPEC = UploadSpec(
    "up", "interactions", "p/", "r/", "s/", micros(START), micros(START + timedelta(days=1)), NAMES
)


class Taken:
    """One batch, examined: typed values, and (row, code, value) of one column's rejects."""

    def __init__(self, **columns: pa.Array) -> None:
        count = len(next(iter(columns.values())))
        good: dict[str, pa.Array] = {
            "user_id": pa.array([f"u{n}" for n in range(count)]),
            "item_id": pa.array(["i"] * count),
            "interaction_type": pa.array(["view"] * count),
            "timestamp": pa.array(["2025-01-01"] * count),
            "rating": pa.nulls(count, pa.float64()),
        }
        batch = pa.record_batch(good | columns)
        safe = made_safe(batch, describe("interactions").columns)
        assert row_bytes(safe, 0).size == count
        table = raw_table(safe)
        block = Block(0, "arrow", 0, count, 0, count, 0)
        self.examined: Examined = examine(SPEC, block, table)
        self.table = self.examined.parsed.table
        self.rejects: list[dict[str, Any]] = []
        if self.examined.failures:
            records = self.examined.parsed.records
            self.rejects = reject_table(SPEC, block, records, self.examined.failures).to_pylist()

    def of(self, column: str) -> list[tuple[int, str, str]]:
        return [
            (row["row_number"], row["code"], row["value"]) for row in self.rejects if row["column"] == column
        ]


BINARIES = pa.schema([("user_id", pa.binary()), ("item_id", pa.binary())])
TEXTS = ["abc", None, "", "日本", "x" * 300]


@pytest.mark.parametrize("values", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("index", [None, pa.int8(), pa.uint16(), pa.int64()], ids=str)
def test_every_kind_of_text_is_text(values: pa.DataType, index: pa.DataType | None) -> None:
    array = pa.array(TEXTS, values)
    if index is not None:
        places = pa.array([0, None, 1, 2, 3], index)
        array = pa.DictionaryArray.from_arrays(places, pa.array([t for t in TEXTS if t is not None], values))
    taken = Taken(user_id=array, interaction_type=pa.array(["view"] * 5, pa.string()))
    assert taken.of("user_id") == [(1, "MISSING", ""), (2, "MISSING", ""), (4, "TOO_LONG", "x" * 256)]
    assert taken.table["user_id"].to_pylist() == ["abc", None, None, "日本", "x" * 300]


def test_views_that_show_the_same_bytes_again_and_again_are_not_written_out() -> None:
    views = pa.array(["x" * 100_000], pa.string_view()).buffers()
    many = pa.Array.from_buffers(
        pa.string_view(), 3000, [None, pa.py_buffer(views[1].to_pybytes() * 3000), views[2]]
    )
    with pytest.raises(TooLargeError, match="300000000 bytes"):
        Taken(user_id=pa.DictionaryArray.from_arrays(pa.array([0, 1]), many))


def test_slices_and_nulls_in_dictionaries_are_seen() -> None:
    ids = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2, 0]), pa.array(["a", None, "b"]))
    taken = Taken(user_id=ids.slice(1), item_id=pa.array(["q", "r", "s", "t", "u"]).slice(1))
    assert taken.table["user_id"].to_pylist() == [None, None, "b", "a"]
    assert taken.table["item_id"].to_pylist() == ["r", "s", "t", "u"]


def test_bad_utf8_is_a_bad_row_not_a_bad_file() -> None:
    texts = pa.array([b"ok", b"\xff\xfe", b"c\x01"], pa.binary())
    array = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    assert Taken(user_id=array).of("user_id") == [(1, "BAD_TEXT", "\ufffd\ufffd"), (2, "BAD_TEXT", "c\x01")]


MOMENT = datetime(2025, 3, 4, 5, 6, 7, 123456, UTC)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+05:30", "Europe/Berlin"])
def test_timestamps_of_any_unit_and_zone_are_taken_and_naive_is_utc(unit: str, zone: str | None) -> None:
    array = pa.array([micros(MOMENT), None, -1], pa.timestamp("us"))
    array = array.cast(pa.timestamp(unit), safe=False) if unit != "us" else array
    array = array.view(pa.int64()).view(pa.timestamp(unit, zone))
    taken = Taken(timestamp=array)
    per_unit = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1}[unit]
    expected = [micros(MOMENT) // per_unit * per_unit, None]
    assert taken.table["timestamp"].cast(pa.int64()).to_pylist()[:2] == expected
    assert taken.of("timestamp") == [(1, "MISSING", "")]


@given(st.sampled_from(["s", "ms", "us", "ns"]), st.integers(-(2**63), 2**63 - 1))
def test_any_time_is_floored_to_microseconds_or_outside_the_years(unit: str, number: int) -> None:
    times, outside = times_of(pa.array([number], pa.int64()).view(pa.timestamp(unit)))
    exact = number * {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit] // 1000
    first, last = micros(datetime.min.replace(tzinfo=UTC)), micros(datetime.max.replace(tzinfo=UTC))
    if first <= exact <= last:
        assert (times[0], outside[0]) == (exact, False)
    else:
        assert outside[0]


def test_a_time_outside_the_years_is_a_bad_timestamp_and_shown_as_its_number() -> None:
    taken = Taken(timestamp=pa.array([2**62, 0, -(2**62)], pa.int64()).view(pa.timestamp("s", "UTC")))
    shown = [(0, "BAD_TIMESTAMP", f"{2**62} as timestamp[s, tz=UTC]")]
    assert taken.of("timestamp") == [*shown, (2, "BAD_TIMESTAMP", f"{-(2**62)} as timestamp[s, tz=UTC]")]


def test_dates_are_midnight_and_strings_are_parsed_as_in_csv() -> None:
    days = [date(2025, 1, 2), None]
    for kind in (pa.date32(), pa.date64()):
        taken = Taken(timestamp=pa.array(days, kind))
        assert taken.table["timestamp"].to_pylist() == [datetime(2025, 1, 2, tzinfo=UTC), None]
    texts = pa.array(["2025-01-02T00:00:00+01:00", "1735689600", "2026-01-02T00:00:00.000001Z", ""])
    for array in (texts, texts.dictionary_encode(), texts.cast(pa.large_string())):
        taken = Taken(timestamp=array)
        assert [code for _, code, _ in taken.of("timestamp")] == [
            "BAD_TIMESTAMP",
            "FUTURE_TIMESTAMP",
            "MISSING",
        ]
        assert taken.table["timestamp"].to_pylist()[0] == datetime(2025, 1, 1, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
        *(pa.decimal32(5, 2), pa.decimal64(9, 2), pa.decimal128(20, 3), pa.decimal256(50, 4)),
    ],
    ids=str,
)
def test_every_kind_of_number_is_a_number(kind: pa.DataType) -> None:
    numbers = [decimal.Decimal(n) if pa.types.is_decimal(kind) else n for n in (3, 9)]
    taken = Taken(rating=pa.array([numbers[0], None, numbers[1]], kind))
    assert taken.table["rating"].to_pylist() == [3.0, None, 9.0]
    assert [(row, code) for row, code, _ in taken.of("rating")] == [(2, "OUT_OF_RANGE")]


def test_decimals_are_the_nearest_double_as_in_csv() -> None:
    texts = ["4.35", "1.1", "2.675", "4.999999999999999999"]
    array = pa.array([decimal.Decimal(text) for text in texts], pa.decimal128(38, 18))
    assert Taken(rating=array).table["rating"].to_pylist() == [float(text) for text in texts]


def test_nan_is_null_infinity_is_bad_and_minus_zero_is_zero() -> None:
    taken = Taken(rating=pa.array([float("nan"), float("inf"), -0.0]))
    assert taken.of("rating") == [(1, "BAD_NUMBER", "Infinity"), (2, "OUT_OF_RANGE", "-0.0")]
    assert taken.table["rating"].to_pylist()[0] is None


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@given(st.data(), st.sampled_from(INTEGERS), st.booleans())
def test_integers_are_ids_in_decimal_digits(data: st.DataObject, kind: pa.DataType, encoded: bool) -> None:
    minimum = 0 if pa.types.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
    maximum = 2**kind.bit_width - 1 + minimum
    numbers = data.draw(st.lists(st.none() | st.integers(minimum, maximum), min_size=1, max_size=9))
    array = pa.array(numbers, kind)
    taken = Taken(user_id=array.dictionary_encode() if encoded else array)
    assert taken.table["user_id"].to_pylist() == [None if n is None else str(n) for n in numbers]
    assert taken.of("user_id") == [(row, "MISSING", "") for row, n in enumerate(numbers) if n is None]


@given(st.sampled_from(INTEGERS[3::4]), st.integers(0, 2**63 - 1))
def test_integers_are_the_nearest_double(kind: pa.DataType, number: int) -> None:
    # A rating is the only number there is: what is no rating is out of range, and parsed all the same.
    assert Taken(rating=pa.array([number], kind)).table["rating"].to_pylist() == [float(number)]


WRONG: list[tuple[str, pa.Array, str]] = [
    ("user_id", pa.array([1.5, None]), "1.5"),
    ("user_id", pa.array([True, None]), "true"),
    ("user_id", pa.array([decimal.Decimal("1.50"), None]), "1.50"),
    ("user_id", pa.array([b"abc", None], pa.binary()), "abc"),
    ("user_id", pa.array([b"abcd", None], pa.binary(4)), "abcd"),
    ("user_id", pa.array([["a", None], None]), '["a", null]'),
    ("user_id", pa.array([[[1.5], []], None]), "[[1.5], []]"),
    ("user_id", pa.array([["é"], None], pa.list_view(pa.large_string())), '["é"]'),
    ("user_id", pa.array([[b"\xff"], None], pa.list_(pa.binary(), 1)), '["\N{REPLACEMENT CHARACTER}"]'),
    ("user_id", pa.array([{"a": 1, "b": True}, None]), '{"a": 1, "b": true}'),
    (
        "user_id",
        pa.array([[("k", MOMENT)], None], pa.map_("string", pa.timestamp("us"))),
        '[{"key": "k", "value": "20',
    ),
    ("user_id", pa.array([[2**62], None], pa.list_(pa.timestamp("s"))), '["timestamp[s]"]'),
    ("user_id", pa.array([["a"], None], pa.list_(pa.dictionary("int8", "string"))), '["a"]'),
    ("user_id", pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), '"MonthDayNano(months=1, days=2,'),
    ("user_id", pa.array([5.0, None], pa.float32()), "5"),
    (
        "user_id",
        pa.array([5.0, None]).dictionary_encode(),
        "5",
    ),
    ("interaction_type", pa.array([MOMENT, None], pa.timestamp("us")), MOMENT.isoformat()[:19]),
    ("user_id", pa.array([date(2026, 1, 31), None]), "2026-01-31T00:00:00Z"),
    ("user_id", pa.array([date(2026, 1, 31), None]).dictionary_encode(), "2026-01-31T00:00:00Z"),
    ("timestamp", pa.array([1735689600, None]), "1735689600"),
    ("timestamp", pa.array([time(1), None]), "01:00:00.000000"),
    ("timestamp", pa.array([1, None], pa.time64("ns")), "00:00:00.000000001"),
    ("timestamp", pa.array([timedelta(1), None]), "86400000000 us"),
    ("timestamp", pa.array([5, None], pa.duration("ns")), "5 ns"),
    ("rating", pa.array(["4", None]), "4"),
    ("rating", pa.array([False, None]), "false"),
    ("rating", pa.array(["4", None]).dictionary_encode(), "4"),
]


@pytest.mark.parametrize(("column", "array", "value"), WRONG, ids=lambda each: str(each)[:40])
def test_a_wrong_type_is_bad_type_where_there_is_a_value(column: str, array: pa.Array, value: str) -> None:
    taken = Taken(**{column: array})
    missing = [] if column == "rating" else [(1, "MISSING", "")]
    (_, code, shown), *rest = taken.of(column)
    assert (code, shown[: len(value)], rest) == ("BAD_TYPE", value, missing)
    message = next(row["message"] for row in taken.rejects if row["code"] == "BAD_TYPE")
    assert str(array.type)[:40] in message
    assert json.loads(taken.rejects[0]["raw"])[column] == shown


def test_a_large_value_of_a_wrong_type_is_written_out_as_far_as_it_is_shown() -> None:
    nested: Any = 7
    for _ in range(20):
        nested = [nested]
    (row,) = Taken(user_id=pa.array([list(range(1_000_000))])).of("user_id")
    assert (row[2][:10], len(row[2])) == ("[0, 1, 2, ", 256)
    assert Taken(user_id=pa.array([nested])).of("user_id") == [(0, "BAD_TYPE", "[[[[[[[[…]]]]]]]]")]
    (row,) = Taken(user_id=pa.array([["é" * 5_000]])).of("user_id")
    assert row[2] == '["' + "é" * 127


def test_a_column_of_nulls_has_no_type_and_an_absent_one_is_null() -> None:
    taken = Taken(rating=pa.nulls(2), item_id=pa.array(["i", "j"]))
    assert taken.rejects == []
    assert taken.table["rating"].to_pylist() == [None, None]
    assert Taken(user_id=pa.nulls(2)).of("user_id") == [(0, "MISSING", ""), (1, "MISSING", "")]


def test_nulls_may_cover_anything() -> None:
    # Under a null a file may hold any bytes, of any length.
    bits = pa.py_buffer(bytes([0b101]))
    offsets = pa.py_buffer(np.array([0, 1, 900, 901], np.int32).tobytes())
    array = pa.Array.from_buffers(pa.string(), 3, [bits, offsets, pa.py_buffer(b"a" + b"\xff" * 899 + b"b")])
    taken = Taken(user_id=array)
    assert taken.table["user_id"].to_pylist() == ["a", None, "b"]
    assert taken.of("user_id") == [(1, "MISSING", "")]


def test_the_two_ways_to_the_same_table_agree(tmp_path: Path) -> None:
    frame = {
        "user_id": ["a", "b"],
        "item_id": ["i", "j"],
        "interaction_type": ["view", "like"],
        "timestamp": [MOMENT, MOMENT],
        "rating": [None, 4.5],
    }
    plain = Taken(**{name: pa.array(values) for name, values in frame.items()})
    texts = [moment.isoformat() for moment in (MOMENT, MOMENT)]
    assert plain.table == Taken(**{n: pa.array(v) for n, v in (frame | {"timestamp": texts}).items()}).table


@given(
    st.lists(st.none() | st.binary(max_size=12), max_size=8),
    st.lists(st.none() | st.floats(allow_nan=False), max_size=8),
)
def test_rejected_rows_are_shown_as_the_json_of_what_they_have(
    ids: list[bytes | None], ratings: list[float | None]
) -> None:
    count = min(len(ids), len(ratings))
    names = {"user_id": ids[:count], "rating": ratings[:count]}
    kinds = {"user_id": pa.binary(), "rating": pa.float64()}
    records = ArrowRecords(pa.table({name: pa.array(cells, kinds[name]) for name, cells in names.items()}))
    rows = np.array([*range(count), *range(count)], np.int64)
    shown = records.raw(rows).to_pylist()
    for row, text in zip(rows.tolist(), shown, strict=True):
        user, rating = ids[row], ratings[row]
        told = {} if user is None else {"user_id": user.decode("utf-8", "replace")}
        expected = json.dumps(told | ({} if rating is None else {"rating": rating}), ensure_ascii=False)
        assert text == expected


def test_a_long_rejected_row_is_cut_between_characters() -> None:
    records = ArrowRecords(pa.table({"user_id": pa.array(["é" * 5_000]), "item_id": ["i"]}).cast(BINARIES))
    (text,) = records.raw(np.zeros(1, np.int64)).to_pylist()
    assert text == f'{{"user_id": "{"é" * 2_041}'
    assert len(text.encode()) == 4_095
