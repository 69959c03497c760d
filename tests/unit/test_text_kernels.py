"""Hashes, timestamps, numbers and text against independent implementations."""

import json
import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.distinct import estimate, merge_sketches
from headrace_compute.kernels import warm
from headrace_compute.kernels.faults import FAULT_BYTES, timestamp_fault, timestamp_faults
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.kernels.numbers import parse_numbers
from headrace_compute.kernels.parsed import Status
from headrace_compute.kernels.quoting import json_strings
from headrace_compute.kernels.rows import clustered, first_rows
from headrace_compute.kernels.sketch import sketch_of
from headrace_compute.kernels.text import Fault, repair_text, show_text
from headrace_compute.kernels.timestamps import parse_timestamps

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_every_kernel_can_be_made_ready() -> None:
    warm()


@given(st.lists(st.binary(max_size=100), max_size=20), st.integers(0, 5))
def test_xxh64_is_that_of_the_xxhash_package(values: list[bytes], skip: int) -> None:
    expected = [xxhash.xxh64_intdigest(value) for value in values][skip:]
    for kind in (pa.binary(), pa.large_binary()):
        hashes = xxh64_strings(pa.array(values, kind)[skip:])
        assert hashes.tolist() == expected
        assert bucket_of(hashes).tolist() == [value % 1024 for value in expected]


def test_xxh64_takes_chunks_nulls_and_refuses_numbers() -> None:
    empty = xxhash.xxh64_intdigest(b"")
    assert xxh64_strings(pa.chunked_array([["a"], [None, ""]])).tolist() == [
        xxhash.xxh64_intdigest(b"a"),
        empty,
        empty,
    ]
    assert xxh64_strings(pa.array([], pa.string())).size == 0
    with pytest.raises(TypeError):
        xxh64_strings(pa.array([1]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-31", "2025-01-31T00:00:00+00:00"),
        ("2024-02-29", "2024-02-29T00:00:00+00:00"),
        ("2025-01-31T12:34:56", "2025-01-31T12:34:56+00:00"),
        ("2025-01-31 12:34:56", "2025-01-31T12:34:56+00:00"),
        ("2025-01-31T12:34", "2025-01-31T12:34:00+00:00"),
        ("2025-01-31T12:34:56Z", "2025-01-31T12:34:56+00:00"),
        ("2025-01-31T12:34:56.5Z", "2025-01-31T12:34:56.500000+00:00"),
        ("2025-01-31T12:34:56.1234569", "2025-01-31T12:34:56.123456+00:00"),
        ("2025-01-31T12:34:56.123456789123456789+00:00", "2025-01-31T12:34:56.123456+00:00"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999+00:00"),
        ("2025-01-31T00:30:00+01:00", "2025-01-30T23:30:00+00:00"),
        ("2025-01-31T00:30:00+0130", "2025-01-30T23:00:00+00:00"),
        ("2025-01-31 00:30:00.5+01", "2025-01-30T23:30:00.500000+00:00"),
        ("2025-01-31T00:30-12", "2025-01-31T12:30:00+00:00"),
        ("2025-01-31T12:34:56z", "2025-01-31T12:34:56+00:00"),
        ("2025-01-31T12:34:56.25z", "2025-01-31T12:34:56.250000+00:00"),
        ("2025-12-31T23:30:00-0100", "2026-01-01T00:30:00+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_timestamps(text: str, expected: str) -> None:
    times, status = parse_timestamps(pa.array([text]))
    assert status.tolist() == [Status.PARSED]
    assert EPOCH + timedelta(microseconds=int(times[0])) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1735689600",
            "1735689600000",
            "1735689600.5",
            "20250131",
            "20250131T120000Z",
            "2025-1-31",
            "2025-01-1",
        ),
        *("2025-02-29", "1900-02-29", "2025-04-31", "2025-13-01", "2025-00-10", "2025-01-00", "0000-01-01"),
        *("2025-01-31T24:00:00", "2025-01-31T12:60:00", "2025-01-31T12:00:60", "2016-12-31T23:59:60Z"),
        *("2025-01-31T", "2025-01-31T12", "2025-01-31T12:", "2025-01-31T1:00:00", "2025-01-31T120000"),
        *("2025-01-31T12:00:00.", "2025-01-31T12:00:00.Z", "2025-01-31T12:00:00,5", "2025-01-31T12:00:"),
        *(
            "2025-01-31t12:00:00Z",
            "2025-01-31Z",
            "2025-01-31+01:00",
            "2025-01-31_12:00:00",
        ),
        *(
            "2025-01-31T12:00:00+1",
            "2025-01-31T12:00:00+01:0",
            "2025-01-31T12:00:00+0:100",
        ),
        *(
            "2025-01-31T12:00:00+24:00",
            "2025-01-31T12:00:00+01:60",
            "2025-01-31T12:00:00 Z",
            "2025-01-31T12:00:00ZZ",
        ),
        *(
            "2025-01-31T12:00:00UTC",
            " 2025-01-31",
            "2025-01-31 ",
            "+2025-01-31",
            "-2025-01-31",
            "12025-01-31",
        ),
        *(
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2025/01/31",
            "31.01.2025",
            "now",
            "\uff12025-01-01",
        ),
    ],
)
def test_what_is_no_timestamp(text: str) -> None:
    assert parse_timestamps(pa.array([text]))[1].tolist() == [Status.BAD]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("2019-02-29", "a day that does not exist: 2019-02 has 28 days"),
        ("2019-31-01", "month 31, which does not exist; write the month before"),
        ("0000-01-01", "the year 0"),
        ("12025-01-31", "not from 0001 to 9999"),
        ("9999-12-31T23:59:59-00:01", "not in the years 1 to 9999 in UTC"),
        ("2016-12-31T23:59:60Z", "leap second"),
        ("2016-12-31T24:00:00Z", "hour 24; write 00:00 of the next day"),
        ("2016-12-31T12:61:00Z", "does not exist"),
        ("964982703", "Unix seconds (2000-07-30T18:45:03Z)"),
        ("964982703.5", "Unix seconds (2000-07-30T18:45:03Z)"),
        ("964982703000", "Unix milliseconds (2000-07-30T18:45:03Z)"),
        ("964982703000000", "Unix microseconds (2000-07-30T18:45:03Z)"),
        ("964982703000000000", "Unix nanoseconds (2000-07-30T18:45:03Z)"),
        ("-1000000", "Unix seconds (1969-12-20T10:13:20Z)"),
        ("7", "is a number"),
        ("20250131", "basic format"),
        ("20250131T120000Z", "basic format"),
        ("2019-10-01 00:00:00 UTC", "the name of a time zone (UTC)"),
        ("2019-10-01T00:00:00+02:00[Europe/Paris]", "the name of a time zone (Europe/Paris)"),
        ("2019-10-01T00:00:00+24:00", "not an offset"),
        ("2019-10-01T00:00:00 +01:00", "a space before the offset"),
        (" 2019-10-01", "spaces at its ends"),
        ("2019-10-01T00:00:00 ", "spaces at its ends"),
        ("2019-10-01T00:00:00,123Z", "a comma in the fraction"),
        ("2019-10-01 01:00 PM", "12-hour clock"),
        ("12/1/2010 8:26", "whether the day or the month comes first"),
        ("31.12.2010", "has the day first and the year last; write year-month-day, as 2026-01-31"),
        ("13/01/2024", "has the day first"),
        ("31-1-2024 12:00", "has the day first"),
        ("01/13/2024", "has the month first and the year last; write year-month-day, as 2026-01-31"),
        ("1/31/2024, 1:00 PM", "has the month first"),
        ("12/12/2024", "whether the day or the month comes first"),
        ("13/01/24", "whether the day or the month comes first"),
        ("13/13/2024", "a day or month that does not exist"),
        ("01/32/2024", "a day or month that does not exist"),
        (
            "\uff12\uff10\uff12\uff14-\uff10\uff11-\uff13\uff11",
            "fullwidth digit two, U+FF12), not one of the plain digits",
        ),
        ("2024-01-31T12\uff1a00", "fullwidth colon, U+FF1A"),
        ("2024\u201301\u201331", "en dash, U+2013"),
        ("\u0662\u0660\u0662\u0664-\u0660\u0661-\u0663\u0661", "arabic-indic digit two, U+0662"),
        ("2010/12/31", "a date without hyphens"),
        ("2010-1-3", "one digit"),
        ("2010-01", "lacks the day"),
        ("12:30", "lacks the date"),
        ("2010-01-03T12", "no time HH:MM"),
        ("2010-01-03Z", 'has "Z" behind the date'),
        ("31-Jan-2024", "spells a month or day"),
        ("NaT", "is text, not a missing value"),
        ("yesterday", "is not ISO 8601"),
    ],
)
def test_a_bad_timestamp_is_told_its_true_fault(text: str, fault: str) -> None:
    assert parse_timestamps(pa.array([text]))[1].tolist() == [Status.BAD]
    assert fault in timestamp_fault(text)


@given(st.text(max_size=40) | st.text("0123456789-:T Z+.,/[]uU", max_size=30))
def test_any_text_has_a_fault_in_one_sentence(text: str) -> None:
    assert re.fullmatch(r"(?s)[a-z].+\.", timestamp_fault(text))


def _of(*patterns: str) -> st.SearchStrategy[str]:
    return st.one_of(*(st.from_regex(pattern, fullmatch=True) for pattern in patterns))


D = "[0-9]"
DATES = _of(f"{D}{{4}}-{D}{{2}}-{D}{{2}}", f"(19|20){D}{{2}}-(0[1-9]|1[0-3])-[0-3]{D}")
ZONE = f"Z|PM|UTC|Etc/GMT[+]{D}|[+-]{D}{{1,4}}|[+-]{D}{{2}}:{D}{{2}}"
RESTS = _of(
    f"[T tx]?[0-2]{D}:[0-6]{D}(:[0-6]{D})?([.,]{D}{{0,4}})?( ?({ZONE}))?",
    f"( |T)?{D}{{0,5}}[ :.]?",
)
OTHERS = _of(
    f"[+-]?{D}{{1,21}}([.]{D}{{0,3}})?",
    f"(19|20|9){D}{{2}}[01]{D}[0-3]{D}[T ]?{D}{{0,6}}([.,]{D})?(Z|[+]{D}{{2}})?",
    f"{D}{{1,2}}[./-]{D}{{1,2}}[./-]{D}{{2,4}}( {D}:{D}{{2}})?",
    f"{D}{{4}}[/.-]{D}{{1,3}}([/.-]{D}{{1,3}})?",
    f"{D}{{1,2}}[ -](Jan|March)[ -]{D}{{4}}",
)


@given(
    st.lists(
        st.builds("".join, st.tuples(DATES, RESTS))
        | OTHERS
        | st.text(max_size=40)
        | st.text("0123456789-:T Z+.,/[]uU\u0663", max_size=30)
        | st.builds(str, st.integers(-(10**20), 10**20)),
        max_size=30,
    ),
    st.integers(0, 3),
)
def test_the_faults_of_a_column_are_those_of_its_texts(texts: list[str], longer: int) -> None:
    texts = [text + "x" * (longer and FAULT_BYTES - longer) for text in texts if text]
    column = pa.array([text.encode("utf-8", "surrogatepass") for text in texts], pa.binary())
    bad = column.filter(pa.array(parse_timestamps(column)[1] == Status.BAD))
    expected = [timestamp_fault(text[:FAULT_BYTES].decode("utf-8", "replace")) for text in bad.to_pylist()]
    assert timestamp_faults(bad).to_pylist() == expected


@pytest.mark.parametrize("seconds", [10**5, -(10**5), 10**11 - 1, -62_135_596_800, -62_135_596_801])
def test_unix_times_are_shown_alike_in_all_units(seconds: int) -> None:
    texts = [f"{seconds}{zeros}" for zeros in ("", "000", "000000", "000000000")]
    assert timestamp_faults(pa.array(texts, pa.binary())).to_pylist() == [
        timestamp_fault(text) for text in texts
    ]


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-1439, 1439))
def test_timestamps_of_any_time_and_offset(naive: datetime, east_minutes: int) -> None:
    sign, minutes = "-" if east_minutes < 0 else "+", abs(east_minutes)
    text = f"{naive.isoformat()}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    expected = naive.replace(tzinfo=UTC) - timedelta(minutes=east_minutes)
    times, status = parse_timestamps(pa.array([text, None, ""]))
    assert status.tolist() == [Status.PARSED, Status.EMPTY, Status.EMPTY]
    assert times[0] == (expected - EPOCH) // timedelta(microseconds=1)


@given(
    st.one_of(
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.decimals(allow_nan=False, allow_infinity=False).map(str),
        st.from_regex(r"[+-]?[0-9]{0,25}\.?[0-9]{0,25}(e[+-]?[0-9]{1,4})?", fullmatch=True),
        st.text("0123456789.eE+-_ naif", max_size=8),
    )
)
def test_numbers(text: str) -> None:
    numbers, status = parse_numbers(pa.array([text]))
    if not text:
        assert status[0] == Status.EMPTY
    elif re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) and math.isfinite(
        float(text)
    ):
        assert status[0] == Status.PARSED
        assert numbers[0] == float(text)
        assert math.copysign(1.0, numbers[0]) > 0 or numbers[0] < 0
    else:
        assert status[0] == Status.BAD


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-Infinity", "0x10", "1_000", "1,5", " 1", "1 ", "1e", ".", "e5", "+", "\u0661"]
)
def test_what_is_no_number(text: str) -> None:
    assert parse_numbers(pa.array([text]))[1].tolist() == [Status.BAD]


texts = st.one_of(st.binary(max_size=20), st.text(max_size=10).map(str.encode))


@given(st.lists(texts, min_size=1, max_size=5))
def test_text_is_repaired_byte_for_byte_and_its_faults_told(values: list[bytes]) -> None:
    repaired, faults = repair_text(pa.array([value or None for value in values], pa.binary()))
    repaired.validate(full=True)
    for value, text, fault in zip(values, repaired.to_pylist(), faults.tolist(), strict=True):
        shown = value.decode("utf-8", "replace")
        try:
            assert (text or "") == value.decode()
            assert not fault & Fault.NOT_UTF8
        except UnicodeDecodeError:
            assert fault & Fault.NOT_UTF8
            assert len(text.encode()) == len(value)
            assert text.replace("?", "") == shown.replace("\ufffd", "").replace("?", "")
        has_control = any(unicodedata.category(char) == "Cc" for char in shown)
        assert bool(fault & Fault.CONTROL) == has_control


@given(texts, st.integers(0, 30))
def test_text_is_shown_as_python_decodes_it_cut_between_characters(value: bytes, limit: int) -> None:
    data = np.frombuffer(value, np.uint8)
    (shown,) = show_text(data, np.array([0]), np.array([len(value)]), limit).to_pylist()
    whole = value.decode("utf-8", "replace")
    assert whole.startswith(shown)
    assert len(shown.encode()) <= limit
    if shown != whole:
        assert len((shown + whole[len(shown)]).encode()) > limit


def test_sketches_are_near_and_merge() -> None:
    for count in (0, 1, 50, 3_000, 10_000, 200_000):
        hashes = xxh64_strings(pa.array([str(i) for i in range(count)], pa.string()))
        parts = (hashes[: count // 3], hashes[count // 3 :], hashes)
        halves = [sketch_of(part, np.ones(part.size, np.bool_)) for part in parts]
        merged = merge_sketches(halves[0], halves[1])
        assert merged == halves[2]
        assert abs(estimate(merged) - count) <= 4 * 0.016 * count
    assert estimate(sketch_of(np.ones(3, np.uint64), np.zeros(3, np.bool_))) == 0


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1.0, 2.0, None])), max_size=30))
def test_first_rows_are_exact_even_if_hashes_lie(rows: list[tuple[str | None, float | None]]) -> None:
    table = pa.table(
        {
            "s": pa.array([row[0] for row in rows], pa.string()),
            "f": pa.array([row[1] for row in rows], pa.float64()),
        }
    )
    expected = [rows.index(row) for row in rows]
    honest = np.array([hash(row) % 2**64 for row in rows], np.uint64)
    for hashes in (honest, honest % 2, np.zeros(len(rows), np.uint64)):
        assert first_rows(table, hashes).tolist() == expected


@given(st.lists(st.sampled_from([f"user{i}" for i in range(8)]), max_size=40))
def test_clustering_keeps_users_together_in_bucket_and_row_order(users: list[str]) -> None:
    order = clustered(xxh64_strings(pa.array(users, pa.string()))).tolist()
    keys = [(xxhash.xxh64_intdigest(users[i].encode()) % 1024, users.index(users[i]), i) for i in order]
    assert keys == sorted(keys)
    assert sorted(order) == list(range(len(users)))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=10), st.integers(0, 3))
def test_json_strings_are_those_of_the_json_module(texts: list[str], skip: int) -> None:
    expected = [json.dumps(text, ensure_ascii=False) for text in texts][skip:]
    assert json_strings(pa.array(texts, pa.string())[skip:]).to_pylist() == expected


def test_each_ascii_character_is_escaped_as_by_the_json_module() -> None:
    every = [chr(code) for code in range(0x80)]
    assert json_strings(pa.array(every)).to_pylist() == [
        json.dumps(text, ensure_ascii=False) for text in every
    ]
