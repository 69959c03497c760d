"""Rows read back for clients: what one message holds."""

from pathlib import Path

import pyarrow as pa
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import RowTooLargeError
from headrace_compute.findings import CheckFindings, Findings, Reject, unknown_columns
from headrace_compute.inputs.reading import pieces_of, read_ipc
from headrace_compute.model import ROW_GROUP_ROWS, DataFile, Piece, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.pages import PAGE_BYTES, ROW_BYTES
from headrace_compute.parts import write_part
from headrace_compute.report import report_of
from headrace_compute.schemas.contract import describe
from headrace_server.rpc.messages import reject_pages, report_message
from headrace_server.rpc.pages import pages


@pytest.mark.parametrize("limit", [1, 100, ROW_GROUP_ROWS])
@pytest.mark.parametrize("size", [0, 250, 2_000])
def test_a_row_group_comes_in_messages_that_every_client_takes(tmp_path: Path, size: int, limit: int) -> None:
    config = StoreConfig(str(tmp_path))
    rows = pa.table({"text": [f"{n:06}".ljust(size, "x") for n in range(ROW_GROUP_ROWS)]})
    part = write_part(open_store(config), "raw-data/t/part.parquet", rows)
    file = DataFile(part.key, part.rows, part.size_bytes, {"published": True})
    streams = read_ipc(config, Piece(file, 0, 0, limit), ["published", "text"])
    assert max(map(len, streams)) <= PAGE_BYTES
    table = pa.concat_tables(pa.ipc.open_stream(stream).read_all() for stream in streams)
    assert table.column("text").combine_chunks() == rows.column("text").combine_chunks()[:limit]
    assert set(table.column("published").to_pylist()) == {True}


@given(
    rows=st.lists(st.sampled_from([1, 5, ROW_GROUP_ROWS - 1, ROW_GROUP_ROWS, 2 * ROW_GROUP_ROWS + 3])),
    offset=st.integers(0, 6 * ROW_GROUP_ROWS),
    limit=st.integers(0, 4 * ROW_GROUP_ROWS),
)
def test_rows_from_anywhere_on_are_those_that_follow_and_no_row_group_is_read_in_vain(
    rows: list[int], offset: int, limit: int
) -> None:
    files = [DataFile(str(number), count, 1) for number, count in enumerate(rows)]
    everything = [(number, row) for number, count in enumerate(rows) for row in range(count)]
    pieces = list(pieces_of(files, offset, limit))
    found = []
    for piece in pieces:
        assert 0 < piece.rows <= ROW_GROUP_ROWS - piece.first
        begin = piece.group * ROW_GROUP_ROWS + piece.first
        found += [(int(piece.file.key), row) for row in range(begin, begin + piece.rows)]
    assert found == everything[offset : offset + limit]
    assert len({(piece.file.key, piece.group) for piece in pieces}) == len(pieces)


def test_rows_within_a_row_group_are_read_alone(tmp_path: Path) -> None:
    config = StoreConfig(str(tmp_path))
    rows = pa.table({"number": range(ROW_GROUP_ROWS + 100)})
    part = write_part(open_store(config), "raw-data/t/part.parquet", rows)
    file = DataFile(part.key, part.rows, part.size_bytes)
    (stream,) = read_ipc(config, Piece(file, 1, 40, 7), ["number"])
    found = pa.ipc.open_stream(stream).read_all()["number"].to_pylist()
    assert found == list(range(ROW_GROUP_ROWS + 40, ROW_GROUP_ROWS + 47))


@pytest.mark.parametrize("size", [0, 4_096])
def test_rejects_come_in_messages_that_every_client_takes(size: int) -> None:
    texts = dict.fromkeys(("column", "code", "message", "value"), "x")
    numbers = dict.fromkeys(("line", "byte_offset", "duplicate_of"), 1)
    rows = [{**texts, **numbers, "row_number": n, "raw": "é" * size} for n in range(2_500)]
    pages = reject_pages(rows)
    assert max(page.ByteSize() for page in pages) <= PAGE_BYTES
    assert [reject.row_number for page in pages for reject in page.rejects] == list(range(2_500))


def test_a_row_alone_may_have_what_every_client_takes_and_no_more() -> None:
    rows = [b"x", b"y" * (3 << 20), b"z"]
    assert [page.value for page in pages(rows, lambda some: BytesValue(value=b"".join(some)), 3)] == rows
    with pytest.raises(RowTooLargeError, match="fewer columns"):
        pages([*rows, b"x" * ROW_BYTES], lambda some: BytesValue(value=b"".join(some)), 2)


def test_a_report_is_a_message_that_every_client_takes() -> None:
    sample = Reject(1, 1, 1, "c" * 32, "c" * 32, "m" * 1_024, "v" * 256, "r" * 4_096)
    pairs = [(column.name, rule.code) for column in describe("items").columns for rule in column.rules]
    pairs += [("", rule.code) for rule in describe("items").rules]
    findings = Findings(
        received=10**9,
        checks={pair: CheckFindings(10**9, (sample,) * 20) for pair in pairs},
        warnings=unknown_columns({"\x01" * 10_000 + str(n): 1 for n in range(1_000)})
        | unknown_columns({f"{n}" + "\x01" * 10_000: 1 for n in range(1_000)}),
    )
    assert report_message(report_of(findings)).ByteSize() < 4 << 20
