"""Ingest against an oracle that reads the data contract of SEMANTICS.md row by row."""

import csv
import io
import json
import math
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.ingest.block import ingest_block
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.kernels.framing import CsvFramer, LineFramer
from headrace_compute.model import Block, DataType, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part
from headrace_compute.report import report_of

START = datetime(2026, 1, 1, tzinfo=UTC)
LATEST = START + timedelta(days=1)
INTERACTIONS = ("user_id", "item_id", "interaction_type", "timestamp", "rating")
ITEMS = ("item_id", "title", "category", "price", "brand", "description")
GOOD = "u,i,view,2025-01-01T00:00:00Z,"
GOOD_ITEM = "i,t,,,,"


def micros(time: datetime) -> int:
    return round((time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def spec_of(data_type: DataType, columns: tuple[str, ...] = ()) -> UploadSpec:
    return UploadSpec(
        upload_id="up",
        data_type=data_type,
        part_prefix=f"raw-data/acme/{data_type}/",
        rejects_prefix="processed-data/acme/rejects/",
        sidecar_prefix="raw-data/_headrace/up/",
        started_us=micros(START),
        latest_us=micros(LATEST),
        columns=columns,
    )


class Ingested:
    """A stream ingested as one block, and what was stored."""

    def __init__(self, root: Path, data_type: DataType, payload: Any, **block: Any) -> None:
        config = StoreConfig(root=str(root))
        columns: tuple[str, ...] = ()
        shape: dict[str, Any] = {
            "format": "rows",
            "offset": 0,
            "end_offset": 0,
            "first_row": 0,
            "rows": 0,
            "first_line": 0,
        } | block
        if isinstance(payload, str):
            payload = payload.encode()
        if shape["format"] in ("csv", "json_lines"):
            framer = CsvFramer() if shape["format"] == "csv" else LineFramer()
            framer.feed(payload)
            ((payload, frame),) = framer.finish(1 << 20)
            shape |= {"offset": frame.offset, "rows": frame.rows, "first_line": frame.first_line}
            if isinstance(framer, CsvFramer):
                columns = tuple((framer.header or b"").decode().split(","))
        self.result = ingest_block(
            config, spec_of(data_type, columns), Block(index=0, **shape), payload, "attempt"
        )
        store = open_store(config)
        data = self.result.data
        self.rows: list[dict[str, Any]] = [] if data is None else read_part(store, data.key).to_pylist()
        self.sidecar = (
            [] if self.result.sidecar is None else read_part(store, self.result.sidecar.key).to_pylist()
        )
        self.rejects = [row for part in self.result.rejects for row in read_part(store, part.key).to_pylist()]
        self.report = report_of(self.result.findings)

    @property
    def faults(self) -> list[tuple[int, str, str]]:
        return [(row["row_number"], row["column"], row["code"]) for row in self.rejects]


@pytest.fixture
def ingest_csv(tmp_path: Path) -> Any:
    def ingest(
        data_type: DataType, *records: str | bytes, header: str = "", ending: bytes = b"\n"
    ) -> Ingested:
        names = header or ",".join(INTERACTIONS if data_type == "interactions" else ITEMS)
        lines = [names, *records]
        stream = b"".join((line if isinstance(line, bytes) else line.encode()) + ending for line in lines)
        return Ingested(tmp_path, data_type, stream, format="csv")

    return ingest


@pytest.mark.parametrize(
    ("record", "faults"),
    [
        (",i,view,2025-01-01,", [("user_id", "MISSING")]),
        ('"",i,view,2025-01-01,', [("user_id", "MISSING")]),
        ("u,,view,2025-01-01,", [("item_id", "MISSING")]),
        ("u,i,,2025-01-01,", [("interaction_type", "MISSING")]),
        ("u,i,view,,", [("timestamp", "MISSING")]),
        ("u" * 256 + ",i,view,2025-01-01,", []),
        ("u" * 257 + ",i,view,2025-01-01,", [("user_id", "TOO_LONG")]),
        ("ä" * 128 + ",i,view,2025-01-01,", []),
        ("ä" * 129 + ",i,view,2025-01-01,", [("user_id", "TOO_LONG")]),
        ("u\x1f,i,view,2025-01-01,", [("user_id", "BAD_TEXT")]),
        ("u,i\x7f,view,2025-01-01,", [("item_id", "BAD_TEXT")]),
        ("u\x85,i,view,2025-01-01,", [("user_id", "BAD_TEXT")]),
        ("u\x00,i,view,2025-01-01,", [("user_id", "BAD_TEXT")]),
        ("u\xa0\u200b,i,view,2025-01-01,", []),
        ('"u\n1",i,view,2025-01-01,', [("user_id", "BAD_TEXT")]),
        (b"u\xff,i,view,2025-01-01,", [("user_id", "BAD_TEXT")]),
        (b"u\xff\x01,i,view,2025-01-01,", [("user_id", "BAD_TEXT")]),
        (b"\xff" * 257 + b",i,view,2025-01-01,", [("user_id", "BAD_TEXT"), ("user_id", "TOO_LONG")]),
        (b"u,i,vi\xc3ew,2025-01-01,", [("interaction_type", "BAD_TEXT")]),
        ("u,i,return,2025-01-01,", [("interaction_type", "NOT_IN_SET")]),
        ("u,i,View,2025-01-01,", [("interaction_type", "NOT_IN_SET")]),
        ("u,i, view,2025-01-01,", [("interaction_type", "NOT_IN_SET")]),
        ("u,i,view,yesterday,", [("timestamp", "BAD_TIMESTAMP")]),
        ("u,i,view,1735689600,", [("timestamp", "BAD_TIMESTAMP")]),
        (b"u,i,view,2025-01-01\xff,", [("timestamp", "BAD_TIMESTAMP")]),
        ("u,i,view,2026-01-02T00:00:00Z,", []),
        ("u,i,view,2026-01-02T00:00:00.000001Z,", [("timestamp", "FUTURE_TIMESTAMP")]),
        ("u,i,view,2025-01-01,four", [("rating", "BAD_NUMBER")]),
        ("u,i,view,2025-01-01,nan", [("rating", "BAD_NUMBER")]),
        ("u,i,view,2025-01-01,1e999", [("rating", "BAD_NUMBER")]),
        ("u,i,view,2025-01-01,NULL", [("rating", "BAD_NUMBER")]),
        ("u,i,view,2025-01-01,1", []),
        ("u,i,view,2025-01-01,5.0", []),
        ("u,i,view,2025-01-01,0.99", [("rating", "OUT_OF_RANGE")]),
        ("u,i,view,2025-01-01,5.000001", [("rating", "OUT_OF_RANGE")]),
        ("u,i,view,2025-01-01", [("", "WRONG_FIELD_COUNT")]),
        (",i,nope,x,y,z", [("", "WRONG_FIELD_COUNT")]),
        ('"u"x,i,view,2025-01-01,', [("", "BAD_QUOTE")]),
        ('u,"The \\"best\\" of, all",view,2025-01-01,', [("", "BAD_QUOTE")]),
        (
            ",i\x01,buy,never,-1",
            [
                ("user_id", "MISSING"),
                ("item_id", "BAD_TEXT"),
                ("interaction_type", "NOT_IN_SET"),
                ("timestamp", "BAD_TIMESTAMP"),
                ("rating", "OUT_OF_RANGE"),
            ],
        ),
        ("NULL,NA,view,2025-01-01,", []),
    ],
)
def test_each_rule_of_interactions_has_its_code(
    ingest_csv: Any, record: str | bytes, faults: list[tuple[str, str]]
) -> None:
    ingested = ingest_csv("interactions", GOOD, record)
    assert ingested.faults == [(1, *fault) for fault in faults]
    assert ingested.result.bad_records == ingested.result.rejected == bool(faults)
    assert ingested.result.accepted == 2 - bool(faults)


@pytest.mark.parametrize(
    ("record", "faults"),
    [
        (",t,,,,", [("item_id", "MISSING")]),
        ("j,,,,,", [("title", "MISSING")]),
        ("j," + "t" * 1024 + ",,,,", []),
        ("j," + "t" * 1025 + ",,,,", [("title", "TOO_LONG")]),
        ("j,t," + "c" * 257 + ",,,", [("category", "TOO_LONG")]),
        ("j,t,,," + "b" * 257 + ",", [("brand", "TOO_LONG")]),
        ("j,t,,,," + "d" * 16384, []),
        ("j,t,,,," + "d" * 16385, [("description", "TOO_LONG")]),
        ('j,t\x01,c\x02,,b\x03,"d\n"', []),
        (
            b"j,t\xff,c\xff,,b\xff,d\xff",
            [(name, "BAD_TEXT") for name in ("title", "category", "brand", "description")],
        ),
        ("j,t,,0,,", []),
        ("j,t,,-0,,", []),
        ("j,t,,-0.01,,", [("price", "OUT_OF_RANGE")]),
        ("j,t,,inf,,", [("price", "BAD_NUMBER")]),
    ],
)
def test_each_rule_of_items_has_its_code(
    ingest_csv: Any, record: str | bytes, faults: list[tuple[str, str]]
) -> None:
    assert ingest_csv("items", GOOD_ITEM, record).faults == [(1, *fault) for fault in faults]


def test_a_reject_says_where_and_what(ingest_csv: Any) -> None:
    ingested = ingest_csv("interactions", GOOD, "", '"a\nb",i,view,2025-01-01,9')
    assert ingested.rejects == [
        {
            "upload_id": "up",
            "row_number": 1,
            "line": 4,
            "byte_offset": 50 + len(GOOD) + 2,
            "column": column,
            "code": code,
            "message": message,
            "value": value,
            "raw": '"a\nb",i,view,2025-01-01,9',
            "duplicate_of": None,
            "ingested_at": START,
        }
        for column, code, value, message in [
            ("user_id", "BAD_TEXT", "a\nb", 'user_id "a\nb" has control characters; remove them.'),
            ("rating", "OUT_OF_RANGE", "9", 'rating "9" is not from 1 to 5; rescale it or leave it empty.'),
        ]
    ]


def test_quotes_as_spark_writes_them_are_told_their_cause(ingest_csv: Any) -> None:
    ingested = ingest_csv(
        "items",
        'i1,"a \\"b\\" c",,,,',
        'i2,"ends with \\",or, so,,,,',
        'i3,"12\\"",,,,',
        'i4,"swallowed",,,,',
        'i5,"x"y,,,,',
        "i6,too few",
        'i7,"as it ""should"" be",,,,',
    )
    cause = "; a quote stands behind a backslash, which escapes nothing in CSV; "
    told = {reject["line"]: (reject["code"], cause in reject["message"]) for reject in ingested.rejects}
    assert told == {
        2: ("BAD_QUOTE", True),
        3: ("WRONG_FIELD_COUNT", True),
        4: ("BAD_QUOTE", True),
        6: ("BAD_QUOTE", False),
        7: ("WRONG_FIELD_COUNT", False),
    }
    assert [row["item_id"] for row in ingested.rows] == ["i7"]


def test_values_and_records_are_cut_between_characters_with_bad_bytes_shown(ingest_csv: Any) -> None:
    user = b"\xff" + "ä".encode() * 4000
    ingested = ingest_csv("interactions", user + b",i,view,2025-01-01,")
    for reject in ingested.rejects:
        assert reject["value"] == "\ufffd" + "ä" * 126
        assert reject["raw"] == "\ufffd" + "ä" * 2046
    assert [reject["code"] for reject in ingested.rejects] == ["BAD_TEXT", "TOO_LONG"]


def test_duplicates_in_a_block_stay_out_and_name_the_first(ingest_csv: Any) -> None:
    ingested = ingest_csv(
        "interactions",
        "u,i,view,2025-01-01,4",
        ",i,view,2025-01-01,4",
        '"u",i,view,2025-01-01T01:00:00+01:00,4.0',
        ",i,view,2025-01-01,4",
        "u,i,view,2025-01-01,",
        "u,i,view,2025-01-01T00:00:00.0000009,4e0",
    )
    assert [row["row_number"] for row in ingested.rows] == [0, 4]
    assert [(row["row_number"], row["code"], row["duplicate_of"]) for row in ingested.rejects] == [
        (1, "MISSING", None),
        (2, "DUPLICATE", 0),
        (3, "MISSING", None),
        (5, "DUPLICATE", 0),
    ]
    duplicate = ingested.rejects[1]
    assert (duplicate["raw"], duplicate["value"], duplicate["line"]) == (None, "", 4)
    assert (ingested.result.rejected, ingested.result.duplicates, ingested.result.bad_records) == (4, 2, 2)


def test_stored_rows_are_typed_marked_and_clustered(ingest_csv: Any) -> None:
    records = [f"u{i % 97},i{i},view,2025-01-01T00:00:00.{i:06d}Z,{1 + i % 5}" for i in range(1000)]
    ingested = ingest_csv("interactions", *records, ending=b"\r\n")
    assert ingested.rejects == []
    for row in ingested.rows:
        number = row["row_number"]
        assert row == {
            "user_id": f"u{number % 97}",
            "item_id": f"i{number}",
            "interaction_type": "view",
            "timestamp": datetime(2025, 1, 1, tzinfo=UTC) + timedelta(microseconds=number),
            "rating": 1.0 + number % 5,
            "upload_id": "up",
            "row_number": number,
            "ingested_at": START,
            "bucket": xxhash.xxh64_intdigest(f"u{number % 97}".encode()) % 1024,
        }
    buckets = [row["bucket"] for row in ingested.rows]
    assert buckets == sorted(buckets)
    assert sorted(row["row_number"] for row in ingested.rows) == list(range(1000))
    runs = [
        row["user_id"]
        for i, row in enumerate(ingested.rows)
        if row["user_id"] != ingested.rows[i - 1]["user_id"]
    ]
    assert len(runs) == len(set(runs)) == 97
    assert [row["row_number"] for row in ingested.sidecar] == list(range(1000))
    assert [row["line"] for row in ingested.sidecar] == list(range(2, 1002))


def test_columns_may_come_in_any_order_and_others_are_told_of(ingest_csv: Any) -> None:
    header = "colour,timestamp,item_id,user_id,interaction_type"
    ingested = ingest_csv("interactions", "red,2025-01-01,i,u,view", header=header)
    (row,) = ingested.rows
    assert (row["user_id"], row["item_id"], row["rating"]) == ("u", "i", None)
    (warning,) = ingested.report.warnings
    assert (warning.code, warning.column, warning.count) == ("UNKNOWN_COLUMN", "colour", 0)


def test_repeated_and_nameless_columns_are_told_of_and_change_nothing(ingest_csv: Any) -> None:
    header = ",x,timestamp,x,item_id,,user_id,interaction_type,"
    ingested = ingest_csv("interactions", "0,1,2025-01-01,2,i,3,u,view,", header=header)
    (row,) = ingested.rows
    assert (row["user_id"], row["item_id"], row["rating"]) == ("u", "i", None)
    warnings = [(warning.code, warning.column, warning.samples) for warning in ingested.report.warnings]
    assert warnings == [("UNKNOWN_COLUMN", "x", ()), ("UNNAMED_COLUMN", "", ("1", "6", "9"))]


def test_the_report_describes_columns(ingest_csv: Any) -> None:
    ingested = ingest_csv(
        "interactions",
        "a,i,view,2025-01-02,2",
        ",ä,view,2025-01-01,5",
        "c,i,view,never,x",
        "short",
    )
    columns = {column.column: column for column in ingested.report.columns}
    assert list(columns) == list(INTERACTIONS)
    assert (columns["user_id"].nulls, columns["user_id"].min, columns["user_id"].max) == (2, "a", "c")
    assert (columns["item_id"].nulls, columns["item_id"].distinct_approx, columns["item_id"].max) == (
        1,
        2,
        "ä",
    )
    assert (columns["timestamp"].nulls, columns["timestamp"].min) == (1, "2025-01-01T00:00:00Z")
    assert (columns["timestamp"].max, columns["timestamp"].mean) == ("2025-01-02T00:00:00Z", None)
    assert (columns["rating"].nulls, columns["rating"].mean, columns["rating"].max) == (1, 3.5, "5.0")
    checks = {(check.column, check.code): check for check in ingested.report.checks}
    assert list(checks) == [
        ("user_id", "MISSING"),
        ("timestamp", "BAD_TIMESTAMP"),
        ("rating", "BAD_NUMBER"),
        ("", "WRONG_FIELD_COUNT"),
    ]
    assert checks["user_id", "MISSING"].percent_of_rows == 25.0
    assert checks["user_id", "MISSING"].percent_of_non_null == 0.0
    assert checks["timestamp", "BAD_TIMESTAMP"].percent_of_non_null == pytest.approx(100 / 3)
    assert ingested.report.rows_received == 4
    assert ingested.report.warnings == ()


def test_a_column_without_any_value_is_warned_of(ingest_csv: Any) -> None:
    ingested = ingest_csv("items", "a,t,,,,", "b,t,,,,", "short")
    assert [(warning.code, warning.column) for warning in ingested.report.warnings] == [
        ("ALL_NULL", name) for name in ("brand", "category", "description", "price")
    ]


def test_rules_that_share_a_code_are_counted_together(ingest_csv: Any) -> None:
    records = (b"\xff,i,view,2025-01-01,", "a\x01,i,view,2025-01-01,", "u,i,view,2025-01-01,")
    findings = ingest_csv("interactions", *records).result.findings
    check = findings.checks["user_id", "BAD_TEXT"]
    assert (check.failing_rows, [sample.row_number for sample in check.samples]) == (2, [0, 1])


def test_samples_are_the_first_twenty(ingest_csv: Any) -> None:
    ingested = ingest_csv("interactions", *[GOOD, ",i,view,2025-01-01,"] * 50)
    missing = ingested.report.checks[0]
    assert missing.failing_rows == 50
    assert [sample.row_number for sample in missing.samples] == list(range(1, 40, 2))


def test_a_result_survives_json(ingest_csv: Any) -> None:
    result = ingest_csv("interactions", GOOD, b"\xff,i,x,y,z", "a,b", GOOD).result
    assert BlockResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_rows_are_validated_like_csv(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "user_id": pa.array(["u", "", "u"]),
            "item_id": pa.array(["i", "i", "i"]),
            "interaction_type": pa.array(["view", "buy", "view"]),
            "timestamp": pa.array(["2025-01-01", "x", "2025-01-01T00:00:00Z"]),
            "rating": pa.array([None, math.inf, math.nan], pa.float64()),
        }
    )
    ingested = Ingested(tmp_path, "interactions", rows, first_row=7, rows=3)
    assert ingested.faults == [
        (8, "user_id", "MISSING"),
        (8, "interaction_type", "NOT_IN_SET"),
        (8, "timestamp", "BAD_TIMESTAMP"),
        (8, "rating", "BAD_NUMBER"),
        (9, "", "DUPLICATE"),
    ]
    assert ingested.rejects[1]["line"] is ingested.rejects[1]["byte_offset"] is None
    assert ingested.rejects[1]["value"] == "buy"
    assert ingested.rejects[3]["value"] == "Infinity"
    assert json.loads(ingested.rejects[1]["raw"])["interaction_type"] == "buy"
    assert ingested.rejects[4]["duplicate_of"] == 7


def json_lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_json_of_a_wrong_type_is_bad_type(tmp_path: Path) -> None:
    good = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2025-01-01"}
    rows = [
        good | {"colour": "red"},
        good | {"user_id": 5.0, "timestamp": 1735689600, "rating": "4"},
        good | {"rating": True},
        good | {"rating": 10**400},
        good | {"user_id": None, "rating": None},
        {"user_id": "\ud800", "colour": 1},
        "text",
        good | {"rating": 4},
    ]
    ingested = Ingested(tmp_path, "interactions", json_lines(rows), format="json_lines")
    assert ingested.faults == [
        (1, "user_id", "BAD_TYPE"),
        (1, "timestamp", "BAD_TYPE"),
        (1, "rating", "BAD_TYPE"),
        (2, "rating", "BAD_TYPE"),
        (3, "rating", "BAD_NUMBER"),
        (4, "user_id", "MISSING"),
        (5, "user_id", "BAD_TEXT"),
        (5, "item_id", "MISSING"),
        (5, "interaction_type", "MISSING"),
        (5, "timestamp", "MISSING"),
        (6, "", "BAD_JSON"),
    ]
    assert [row["row_number"] for row in ingested.rows] == [0, 7]
    assert [(warning.code, warning.column, warning.count) for warning in ingested.report.warnings] == [
        ("UNKNOWN_COLUMN", "colour", 2)
    ]
    assert ingested.rejects[0]["value"] == "5.0"
    assert ingested.rejects[-1]["raw"] == '"text"'


def test_json_integers_are_ids_in_decimal_digits_and_nan_is_no_number(tmp_path: Path) -> None:
    good = {"user_id": 2**70, "item_id": -1, "interaction_type": "view", "timestamp": "2025-01-01"}
    rows = [
        good | {"colour": math.nan},
        good | {"rating": math.nan},
        good | {"rating": -math.inf},
        good | {"user_id": math.nan},
        good | {"user_id": True},
    ]
    ingested = Ingested(tmp_path, "interactions", json_lines(rows), format="json_lines")
    assert ingested.faults == [
        (1, "rating", "BAD_NUMBER"),
        (2, "rating", "BAD_NUMBER"),
        (3, "user_id", "BAD_TYPE"),
        (4, "user_id", "BAD_TYPE"),
    ]
    row = ingested.rows[0]
    assert (row["user_id"], row["item_id"], row["rating"]) == (str(2**70), "-1", None)
    assert [reject["line"] for reject in ingested.rejects] == [2, 3, 4, 5]


def test_a_block_without_a_good_row_stores_no_data(ingest_csv: Any) -> None:
    result = ingest_csv("interactions", "a", "b").result
    assert (result.data, result.sidecar, result.accepted) == (None, None, 0)
    assert len(result.rejects) == 1


def oracle(rows: list[list[str]]) -> tuple[list[tuple[int, str, str]], list[int]]:
    """Faults and accepted row numbers of interactions."""
    faults, accepted, seen = [], [], {}
    for number, row in enumerate(rows):
        if len(row) != 5:
            faults.append((number, "", "WRONG_FIELD_COUNT"))
            continue
        broken: list[tuple[int, str, str]] = []
        for name, value in zip(INTERACTIONS[:2], row[:2], strict=True):
            if not value:
                broken.append((number, name, "MISSING"))
            elif any(unicodedata.category(char) == "Cc" for char in value):
                broken.append((number, name, "BAD_TEXT"))
        if not row[2]:
            broken.append((number, "interaction_type", "MISSING"))
        elif row[2] not in ("view", "click", "purchase", "like", "add_to_cart"):
            broken.append((number, "interaction_type", "NOT_IN_SET"))
        time = None
        if not row[3]:
            broken.append((number, "timestamp", "MISSING"))
        else:
            try:
                time = datetime.fromisoformat(row[3])
                time = time if time.tzinfo else time.replace(tzinfo=UTC)
                if time > LATEST:
                    broken.append((number, "timestamp", "FUTURE_TIMESTAMP"))
            except ValueError:
                broken.append((number, "timestamp", "BAD_TIMESTAMP"))
        rating = None
        if row[4]:
            try:
                rating = float(row[4])
                if not 1 <= rating <= 5:
                    broken.append((number, "rating", "OUT_OF_RANGE"))
            except ValueError:
                broken.append((number, "rating", "BAD_NUMBER"))
        values = (*row[:3], time, rating)
        if broken:
            faults += broken
        elif values in seen:
            faults.append((number, "", "DUPLICATE"))
        else:
            seen[values] = number
            accepted.append(number)
    return faults, accepted


cells = st.tuples(
    st.sampled_from(["", "a", "b", "ä\x80", 'say "x"', "c,d", "e\x02"]),
    st.sampled_from(["", "i", "j", "日本\r\n"]),
    st.sampled_from(["view", "view", "like", "buy", ""]),
    st.sampled_from(["2025-01-01", "2025-01-01T00:00:00+00:00", "", "2027-01-01", "2025-02-30"]),
    st.sampled_from(["", "4", "4.0", "6", "x"]),
).map(list)
bad_widths = st.lists(st.just("x"), min_size=1, max_size=7)


@given(st.lists(st.one_of(cells, cells, cells, bad_widths), min_size=1, max_size=30))
def test_any_rows_give_the_oracle_s_verdict(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([list(INTERACTIONS), *rows])
    ingested = Ingested(tmp_path_factory.mktemp("store"), "interactions", text.getvalue(), format="csv")
    faults, accepted = oracle(rows)
    assert ingested.faults == faults
    assert sorted(row["row_number"] for row in ingested.rows) == accepted
    assert ingested.result.received == len(rows) == ingested.result.accepted + ingested.result.rejected
    assert np.sum([check.failing_rows for check in ingested.report.checks]) == len(faults)
