"""Stored rows as messages of Structs, a page at a time."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import table_pb2
from headrace_compute.errors import RowTooLargeError
from headrace_compute.inputs.reading import read_structs, unpacked
from headrace_compute.inputs.structs import encode_structs
from headrace_compute.model import DataFile, Piece, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.pages import PAGE_BYTES, ROW_BYTES
from headrace_compute.parts import write_part

TYPES = {
    "text": (pa.string(), st.text(max_size=200)),
    "key with ü": (pa.large_string(), st.sampled_from(["a", "b", "x" * 127, "y" * 128, "é" * 9_000])),
    "wide": (pa.int64(), st.integers(-(1 << 63), (1 << 63) - 1)),
    "narrow": (pa.int32(), st.integers(-(1 << 31), (1 << 31) - 1)),
    "number": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "flag": (pa.bool_(), st.booleans()),
    "texts": (pa.list_(pa.string()), st.lists(st.none() | st.text(max_size=5), max_size=3)),
    "pair": (pa.struct({"a": pa.string()}), st.fixed_dictionaries({"a": st.none() | st.text(max_size=5)})),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in TYPES.items()}), max_size=9
)


def _decoded(pages: Sequence[bytes]) -> list[dict[str, Any]]:
    messages = [table_pb2.JsonRows.FromString(page) for page in pages]
    return [json_format.MessageToDict(row) for message in messages for row in message.rows]


@given(rows=ROWS)
def test_rows_are_the_messages_that_their_json_is(rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, pa.schema([(name, kind) for name, (kind, _) in TYPES.items()]))
    told = [row | {"wide": None if row["wide"] is None else str(row["wide"])} for row in rows]
    expected = json_format.Parse(json.dumps({"rows": told}), table_pb2.JsonRows())
    assert table_pb2.JsonRows.FromString(b"".join(encode_structs(table))) == expected


def test_timestamps_are_rfc_3339() -> None:
    times = [datetime(2024, 2, 29, 23, 59, 59, 1, UTC), datetime(1, 1, 1, tzinfo=UTC), None]
    table = pa.table({"timestamp": pa.array(times, pa.timestamp("us", "UTC"))})
    assert [row["timestamp"] for row in _decoded([b"".join(encode_structs(table))])] == [
        "2024-02-29T23:59:59.000001Z",
        "0001-01-01T00:00:00Z",
        None,
    ]


def _read(tmp_path: Path, table: pa.Table, limit: int, page_rows: int) -> list[bytes]:
    config = StoreConfig(str(tmp_path))
    part = write_part(open_store(config), "raw-data/acme/items/p.parquet", table)
    file = DataFile(part.key, part.rows, part.size_bytes)
    return list(map(unpacked, read_structs(config, Piece(file, 0, 0, limit), table.column_names, page_rows)))


def test_pages_hold_rows_in_order_whatever_their_values(tmp_path: Path) -> None:
    titles = ["a\nb", "", '"', None, "\u2028", "é\r\n", "x" * 5_000]
    table = pa.table({"title": titles, "n": pa.array(range(7), pa.int64())})
    pages = _read(tmp_path, table, limit=6, page_rows=4)
    assert [len(_decoded([page])) for page in pages] == [4, 2]
    assert _decoded(pages) == [{"title": title, "n": str(n)} for n, title in enumerate(titles[:6])]


def test_pages_are_what_every_client_takes(tmp_path: Path) -> None:
    table = pa.table({"title": ["a", "b" * (3 << 20), "c" * PAGE_BYTES, "d"]})
    pages = _read(tmp_path, table, limit=4, page_rows=4)
    assert max(map(len, pages)) <= ROW_BYTES
    assert [row["title"][0] for row in _decoded(pages)] == ["a", "b", "c", "d"]
    with pytest.raises(RowTooLargeError, match="fewer columns"):
        _read(tmp_path / "large", pa.table({"title": ["a", "b" * ROW_BYTES]}), limit=2, page_rows=2)
