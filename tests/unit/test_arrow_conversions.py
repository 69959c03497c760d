"""Values of every Arrow and Parquet type against exact arithmetic: taken, rounded as documented, or rejected.

The oracle knows docs/semantics.md and Python's integers, fractions and decimals; nothing of the code.
"""

import math
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from harness.streams import decoded, parquet, staged
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace_compute.formats.arrow import made_safe, raw_table
from headrace_compute.ingest.examine import examine
from headrace_compute.model import Block, DataType, UploadSpec
from headrace_compute.schemas.contract import describe

FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999."""


@dataclass(frozen=True)
class Instant:
    """A time, in seconds since the epoch, exactly."""

    seconds: Fraction


class Other:
    """A value that is no text, number or time."""


Exact = str | int | float | Fraction | Instant | Other | None
"""What a value is; floats are doubles, with NaN and infinities among them. Booleans are Other."""

Column = tuple[pa.Array, list[Exact]]
"""An Arrow array and what its values are."""

Outcome = tuple[str, Any]
"""A code, '' for what is taken; and the value taken."""


def as_id(value: Exact) -> Outcome:
    match value:
        case None | "":
            return "MISSING", None
        case float() if math.isnan(value):
            return "MISSING", None
        case str():
            return "", value
        case int():
            return "", str(value)
    return "BAD_TYPE", None


def as_price(value: Exact) -> Outcome:
    match value:
        case None:
            return "", None
        case float() if math.isnan(value):
            return "", None
        case float() | int() | Fraction():
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isinf(number):
                return "BAD_NUMBER", None
            return ("", abs(number)) if number >= 0 else ("OUT_OF_RANGE", None)
    return "BAD_TYPE", None


def as_timestamp(value: Exact) -> Outcome:
    match value:
        case None | "":
            return "MISSING", None
        case float() if math.isnan(value):
            return "MISSING", None
        case Instant():
            us = math.floor(value.seconds * 10**6)
            return ("", us) if FIRST_US <= us <= LAST_US else ("BAD_TIMESTAMP", None)
        case str():
            return "BAD_TIMESTAMP", None  # No text below is one.
    return "BAD_TYPE", None


CONTRACT: dict[str, tuple[DataType, Callable[[Exact], Outcome]]] = {
    "user_id": ("interactions", as_id),
    "timestamp": ("interactions", as_timestamp),
    "price": ("items", as_price),
}


def check(column: str, values: Sequence[Exact], raw: pa.Table) -> None:
    """Holds what becomes of a raw table's column against what its values are."""
    data_type, oracle = CONTRACT[column]
    rows = raw.num_rows
    spec = UploadSpec("up", data_type, "p/", "r/", "s/", 0, LAST_US, tuple(raw.column_names))
    examined = examine(spec, Block(0, "arrow", 0, rows, 0, rows, 0), raw)
    codes: list[str] = [""] * rows
    for failure in examined.failures:
        for row in failure.rows.tolist():
            assert (failure.column or failure.code) in (column, "DUPLICATE")
            if failure.column:
                assert codes[row] == ""
                codes[row] = failure.code
    taken = examined.parsed.table[column]
    taken = taken.cast(pa.int64()) if column == "timestamp" else taken
    found = [(code, None if code else value) for code, value in zip(codes, taken.to_pylist(), strict=True)]
    assert found == [oracle(value) for value in values]
    assert not any(math.copysign(1, value) < 0 for _, value in found if value == 0 and column == "price")


def table_around(column: str, array: pa.Array) -> pa.Table:
    """Rows that are good but for one column, no two of them alike."""
    others = [f"u{row}" for row in range(len(array))]
    good: dict[str, dict[str, Any]] = {
        "interactions": {
            "user_id": others,
            "item_id": others,
            "interaction_type": ["view"] * len(array),
            "timestamp": ["2025-01-01"] * len(array),
        },
        "items": {"item_id": others, "title": others, "price": [None] * len(array)},
    }
    return pa.table({**good[CONTRACT[column][0]], column: array})


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
DECIMALS = [(pa.decimal32, 9), (pa.decimal64, 18), (pa.decimal128, 38), (pa.decimal256, 76)]
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
ZONES = st.sampled_from([None, "UTC", "+05:30", "Europe/Berlin", "No/Where"])
INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES_US = st.integers(FIRST_US - 10**7, LAST_US + 10**7)
TEXTS = st.text("abcXYZ 0123456789.,:é日", max_size=12)


def _lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | values, min_size=1, max_size=6)


@st.composite
def integers(draw: st.DrawFn) -> Column:
    kind = draw(st.sampled_from(INTEGERS))
    least = 0 if pa.types.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
    numbers = draw(_lists(st.integers(least, 2**kind.bit_width - 1 + least)))
    return pa.array(numbers, kind), numbers


@st.composite
def floats(draw: st.DrawFn) -> Column:
    bits, kind = draw(st.sampled_from([(16, pa.float16()), (32, pa.float32()), (64, pa.float64())]))
    numbers = draw(_lists(st.floats(width=bits)))
    held = np.array([0.0 if number is None else number for number in numbers], f"f{bits // 8}")
    mask = np.array([number is None for number in numbers])
    return pa.array(held, kind, mask=mask), numbers


@st.composite
def decimals(draw: st.DrawFn) -> Column:
    make, most = draw(st.sampled_from(DECIMALS))
    precision = draw(st.integers(1, most))
    scale = draw(st.integers(-10, most) | st.integers(0, precision))
    limit = 10**precision - 1
    unscaled = draw(_lists(st.integers(-limit, limit)))
    kind = make(precision, scale)
    width = kind.bit_width // 8
    data = b"".join((number or 0).to_bytes(width, "little", signed=True) for number in unscaled)
    valid = pa.array([number is not None for number in unscaled]).buffers()[1]
    array = pa.Array.from_buffers(kind, len(unscaled), [valid, pa.py_buffer(data)])
    return array, [None if n is None else Fraction(n) / Fraction(10) ** scale for n in unscaled]


def _of_integers(numbers: list[int | None], width: pa.DataType, kind: pa.DataType) -> pa.Array:
    return pa.array(numbers, width).view(kind)


@st.composite
def dates(draw: st.DrawFn) -> Column:
    if draw(st.booleans()):
        days = draw(_lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-719_170, 2_932_900)))
        return _of_integers(days, pa.int32(), pa.date32()), [
            None if day is None else Instant(Fraction(86_400 * day)) for day in days
        ]
    days = draw(_lists(st.integers(-(10**11), 10**11) | st.integers(-719_170, 2_932_900)))
    millis = [None if day is None else day * 86_400_000 for day in days]
    return _of_integers(millis, pa.int64(), pa.date64()), [
        None if day is None else Instant(Fraction(86_400 * day)) for day in days
    ]


@st.composite
def timestamps(draw: st.DrawFn) -> Column:
    unit, per_second = draw(st.sampled_from(list(UNITS.items())))
    near = TIMES_US.map(lambda us: us * per_second // 10**6).filter(lambda n: abs(n) < 2**63)
    numbers = draw(_lists(INT64 | near))
    array = _of_integers(numbers, pa.int64(), pa.timestamp(unit, draw(ZONES)))
    return array, [None if n is None else Instant(Fraction(n, per_second)) for n in numbers]


@st.composite
def texts(draw: st.DrawFn) -> Column:
    found = draw(_lists(TEXTS))
    return pa.array(found, draw(st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]))), found


OTHERS: list[tuple[pa.DataType, Any]] = [
    (pa.bool_(), True),
    (pa.time32("s"), 1),
    (pa.time64("ns"), 1),
    (pa.duration("s"), 1),
    (pa.duration("ns"), 1),
    (pa.month_day_nano_interval(), (1, 2, 3)),
    (pa.binary(), b"abc"),
    (pa.large_binary(), b"abc"),
    (pa.binary_view(), b"abc"),
    (pa.binary(3), b"abc"),
    (pa.list_(pa.string()), ["a"]),
    (pa.large_list(pa.int64()), [1]),
    (pa.list_(pa.float64(), 1), [1.0]),
    (pa.list_view(pa.int64()), [1]),
    (pa.struct({"a": pa.int64()}), {"a": 1}),
    (pa.map_(pa.string(), pa.int64()), [("a", 1)]),
]


@st.composite
def others(draw: st.DrawFn) -> Column:
    kind, value = draw(st.sampled_from(OTHERS))
    given = draw(st.lists(st.booleans(), min_size=1, max_size=6))
    return pa.array([value if each else None for each in given], kind), [
        Other() if each else None for each in given
    ]


@st.composite
def unions(draw: st.DrawFn) -> Column:
    kinds = draw(st.lists(st.integers(0, 1), min_size=1, max_size=5))
    children = [pa.array([1] * len(kinds), pa.int64()), pa.array(["a"] * len(kinds))]
    places = pa.array(kinds, pa.int8())
    if draw(st.booleans()):
        return pa.UnionArray.from_sparse(places, children), [Other() for _ in kinds]
    offsets = pa.array(range(len(kinds)), pa.int32())
    return pa.UnionArray.from_dense(places, offsets, children), [Other() for _ in kinds]


def nulls() -> st.SearchStrategy[Column]:
    return st.integers(1, 5).map(lambda count: (pa.nulls(count), [None] * count))


PLAIN = integers() | floats() | decimals() | dates() | timestamps() | texts() | others() | nulls()


@st.composite
def dictionaries(draw: st.DrawFn) -> Column:
    array, values = draw(PLAIN)
    assume(not isinstance(array.type, pa.DictionaryType))
    index = draw(st.sampled_from([pa.int8(), pa.uint16(), pa.int64(), pa.uint64()]))
    places = draw(_lists(st.integers(0, len(values) - 1)))
    found = pa.DictionaryArray.from_arrays(pa.array(places, index), array)
    return found, [None if place is None else values[place] for place in places]


@st.composite
def run_ends(draw: st.DrawFn) -> Column:
    array, values = draw(PLAIN)
    lengths = draw(st.lists(st.integers(1, 3), min_size=len(values), max_size=len(values)))
    ends = pa.array(np.cumsum(lengths), draw(st.sampled_from([pa.int16(), pa.int32(), pa.int64()])))
    spread = [value for value, length in zip(values, lengths, strict=True) for _ in range(length)]
    return pa.RunEndEncodedArray.from_arrays(ends, array), spread


@st.composite
def slices(draw: st.DrawFn) -> Column:
    array, values = draw(PLAIN | dictionaries() | run_ends() | unions())
    start = draw(st.integers(0, len(values) - 1))
    return array.slice(start), values[start:]


@given(st.sampled_from(list(CONTRACT)), slices())
def test_an_arrow_value_is_taken_exactly_rounded_as_documented_or_rejected(name: str, column: Column) -> None:
    array, values = column
    batch = pa.RecordBatch.from_struct_array(table_around(name, array).to_struct_array().combine_chunks())
    check(name, values, raw_table(made_safe(batch, describe(CONTRACT[name][0]).columns)))


WRITERS = st.fixed_dictionaries(
    {
        "store_schema": st.booleans(),
        "version": st.sampled_from(["1.0", "2.6"]),
        "use_dictionary": st.booleans(),
        "store_decimal_as_integer": st.booleans(),
        "rows_per_group": st.integers(1, 9),
    }
)


def _through_parquet(name: str, data: bytes) -> pa.Table:
    with tempfile.TemporaryDirectory() as folder:
        config, source = staged(
            Path(folder), data, "parquet", data_type=CONTRACT[name][0], piece_bytes=1 << 20
        )
        return pa.concat_tables([payload for _, _, payload in decoded(config, source)]).combine_chunks()


@given(
    st.sampled_from(list(CONTRACT)),
    integers() | floats() | decimals() | dates() | timestamps() | texts(),
    WRITERS,
)
def test_a_parquet_value_is_taken_exactly_rounded_as_documented_or_rejected(
    name: str, column: Column, options: dict[str, Any]
) -> None:
    array, values = column
    # What the file cannot hold is the writer's affair.
    assume(not pa.types.is_decimal(array.type) or 0 <= array.type.scale <= array.type.precision)
    if pa.types.is_date64(array.type):
        assume(all(abs(each.seconds) < 86_400 * 2**31 for each in values if isinstance(each, Instant)))
    try:
        data = parquet(table_around(name, array), **options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        assume(False)
    check(name, values, _through_parquet(name, data))


@given(
    _lists(
        st.tuples(
            st.integers(-(2**31), 2**31 - 1) | st.integers(1_721_420, 5_373_490),
            st.integers(0, 86_399_999_999_999),
        )
    )
)
def test_int96_is_exact_in_all_years_there_are(stored: list[tuple[int, int] | None]) -> None:
    # No writer makes the far ones, so they take the place of others: Julian day, nanoseconds of the day.
    # Day 0, in the year -4713, is left out: Arrow writes it under nulls, and reads it as 1970.
    stored = [each if each is None or each[0] else (1, each[1]) for each in stored]
    places = [None if each is None else (row + 1) * 1_234_567 for row, each in enumerate(stored)]
    times = _of_integers(places, pa.int64(), pa.timestamp("ns"))
    table = table_around("timestamp", times)
    data = parquet(table, use_deprecated_int96_timestamps=True, use_dictionary=False, compression="NONE")
    values: list[Exact] = []
    for place, each in zip(places, stored, strict=True):
        values.append(
            None
            if each is None
            else Instant(Fraction((each[0] - 2_440_588) * 86_400) + Fraction(each[1], 10**9))
        )
        if each is not None and place is not None:
            old, new = struct.pack("<qi", place, 2_440_588), struct.pack("<qi", each[1], each[0])
            assert data.count(old) == 1
            data = data.replace(old, new)
    check("timestamp", values, _through_parquet("timestamp", data))
