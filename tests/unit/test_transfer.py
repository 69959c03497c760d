"""The client's side of a stream, without a wire: chunks, the window, resuming, rows as messages."""

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path

import grpc
import pytest
from google.rpc import status_pb2

from headrace.errors import OffsetGapError, UnavailableError
from headrace.request import file_upload, format_of, rows_upload
from headrace.row import to_interaction, to_item
from headrace.source import FileSource, RowSource, json_lines
from headrace.transfer import UploadTransfer, Window
from headrace.v1 import row_pb2, upload_pb2

ROWS = [{"item_id": f"i{n}", "title": "t" * 100} for n in range(10_000)]


def upload(window_bytes: int = 100) -> UploadTransfer:
    header = upload_pb2.UploadHeader(tenant_id="acme", upload_id="u-1", expected_bytes=500)
    return UploadTransfer(header, window_bytes)


def started(offset: int = 0) -> upload_pb2.UploadResponse:
    message = upload_pb2.UploadStarted(upload_id="u-1", persisted_offset=offset, max_chunk_bytes=64)
    return upload_pb2.UploadResponse(started=message)


def ack(offset: int) -> upload_pb2.UploadResponse:
    return upload_pb2.UploadResponse(ack=upload_pb2.UploadAck(persisted_offset=offset, rows_accepted=3))


@pytest.mark.parametrize("start", [0, 1, 99, 100, 250])
def test_a_file_is_cut_into_chunks_that_cover_it_from_where_the_server_stands(
    tmp_path: Path, start: int
) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(bytes(range(250)))
    for source in (FileSource(file), FileSource(io.BytesIO(file.read_bytes()))):
        chunks = list(source.chunks(start, limit_bytes=100))
        assert (
            b"".join(c.content for c in chunks if isinstance(c.content, bytes)) == bytes(range(250))[start:]
        )
        edges = [start, *(chunk.end_offset for chunk in chunks)]
        assert [chunk.offset for chunk in chunks] == edges[:-1]
        assert all(chunk.weight_bytes <= 100 for chunk in chunks)


@pytest.mark.parametrize("opened", [True, False])
def test_a_file_shorter_than_what_the_server_has_is_not_the_same_file(tmp_path: Path, opened: bool) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(b"short")
    source = FileSource(io.BytesIO(b"short") if opened else file)
    with pytest.raises(ValueError, match="ends at byte 5, but 6 bytes were stored"):
        list(source.chunks(6))


@pytest.mark.parametrize("start", [0, 1, 5_000, 9_999, 10_000])
def test_rows_are_packed_into_batches_from_where_the_server_stands(start: int) -> None:
    chunks = list(RowSource("items", iter(ROWS)).chunks(start))
    ids = [
        item.item_id for c in chunks if isinstance(c.content, row_pb2.RowBatch) for item in c.content.items
    ]
    assert ids == [f"i{n}" for n in range(start, 10_000)]
    assert all(
        c.offset == before
        for c, before in zip(chunks, [start, *(c.end_offset for c in chunks)], strict=False)
    )
    assert all(isinstance(c.content, row_pb2.RowBatch) and c.content.ByteSize() < 300_000 for c in chunks)


def test_an_async_iterable_gives_the_same_batches() -> None:
    async def stream() -> AsyncIterator[dict[str, str]]:
        for row in ROWS:
            yield row

    async def collect() -> list[object]:
        return [chunk async for chunk in RowSource("items", stream()).achunks(7)]

    assert asyncio.run(collect()) == list(RowSource("items", ROWS).chunks(7))


def test_fewer_rows_than_the_server_has_are_not_the_same_rows() -> None:
    with pytest.raises(ValueError, match="only 10000 rows, but 10001 were stored"):
        list(RowSource("items", ROWS).chunks(10_001))


def test_datetimes_and_dates_become_iso_8601() -> None:
    aware = to_interaction({"timestamp": datetime(2026, 1, 31, 12, tzinfo=UTC)})
    assert aware.timestamp == "2026-01-31T12:00:00+00:00"
    assert to_interaction({"timestamp": date(2026, 1, 31)}).timestamp == "2026-01-31"


def test_none_and_absence_mean_no_value_but_zero_is_a_value() -> None:
    assert not to_interaction({"rating": None}).HasField("rating")
    assert not to_interaction({}).HasField("rating")
    assert to_item({"price": 0}).HasField("price")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"item_id": 17}, "row 4: item_id is 17; give a str"),
        ({"price": "12.50"}, "row 4: price is '12.50'; give a float or int"),
        ({"colour": "red"}, "row 4: colour is no column of Item.*item_id, title"),
        ({"title": "\udcff"}, "row 4"),
        ("i1,Chair", "row 4: expected a mapping or Item, got str"),
    ],
)
def test_a_row_no_message_can_carry_is_named_before_it_is_sent(
    row: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        to_item(row, 4)


def test_json_lines_are_rows_and_blank_lines_are_not(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"item_id": "i1"}\n\n{"item_id": "i2", "price": 2}\n')
    assert list(json_lines(file)) == [{"item_id": "i1"}, {"item_id": "i2", "price": 2}]
    with pytest.raises(ValueError, match="line 2: expected a JSON object"):
        list(json_lines(io.BytesIO(b"{}\n[1]\n")))


def test_the_format_follows_the_name() -> None:
    assert format_of("a/b.CSV") == format_of("b") == format_of(io.BytesIO()) == "csv"
    assert format_of(Path("x.jsonl")) == "rows"
    assert format_of("x.parquet") == "parquet"


def test_every_upload_has_an_id_before_it_starts(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a\n")
    first, _ = file_upload("acme", "items", file, None)
    second, _ = rows_upload("acme", "items", ROWS)
    assert first.header.upload_id != second.header.upload_id != ""
    assert (first.header.expected_bytes, second.header.expected_rows) == (2, 10_000)
    named, _ = rows_upload(
        "acme", "items", ROWS, upload_id="mine", policy="all_or_nothing", max_reject_ratio=0.0
    )
    assert named.header.upload_id == "mine"
    assert named.header.policy == upload_pb2.POLICY_ALL_OR_NOTHING
    assert named.header.HasField("max_reject_ratio")


def test_the_window_is_full_until_an_ack_covers_whole_chunks() -> None:
    window = Window(100)
    chunks = list(FileSource(io.BytesIO(bytes(150))).chunks(0, 50))
    for chunk in chunks[:2]:
        window.sent(chunk)
    assert window.full
    window.acked(49)
    assert window.full
    window.acked(50)
    assert not window.full
    assert window.unacked_bytes == 50


def test_sending_waits_for_the_header_to_be_answered_and_resumes_there() -> None:
    transfer = upload()
    assert not transfer.opened()
    progress = transfer.receive(started(200))
    assert transfer.opened()
    assert transfer.limits() == (200, 64)
    assert progress is not None
    assert (progress.offset, progress.total) == (200, 500)


def test_progress_is_what_the_server_acknowledged() -> None:
    transfer = upload()
    transfer.receive(started())
    for chunk in FileSource(io.BytesIO(bytes(128))).chunks(0, 64):
        transfer.chunk(chunk)
    assert not transfer.has_room()
    progress = transfer.receive(ack(64))
    assert transfer.has_room()
    assert progress is not None
    assert (progress.offset, progress.rows_accepted) == (64, 3)
    assert transfer.finish().finish.total_size == 128


def test_an_error_in_band_ends_the_writing_and_wins_over_the_status() -> None:
    transfer = upload()
    transfer.receive(started())
    transfer.receive(ack(64))
    gap = status_pb2.Status(code=grpc.StatusCode.OUT_OF_RANGE.value[0], message="a gap")
    transfer.receive(upload_pb2.UploadResponse(error=gap))
    assert transfer.ended
    assert transfer.has_room()
    with pytest.raises(OffsetGapError, match="a gap") as raised:
        transfer.outcome(UnavailableError("gone"))
    assert raised.value.metadata == {"upload_id": "u-1", "persisted_offset": "64"}


def test_a_lost_server_is_told_with_the_upload_and_how_to_go_on() -> None:
    transfer = upload()
    transfer.receive(started())
    transfer.receive(ack(64))
    with pytest.raises(
        UnavailableError, match=r"gone \[upload u-1\] \(safe up to 64; upload again"
    ) as raised:
        transfer.outcome(UnavailableError("gone"))
    assert raised.value.metadata["upload_id"] == "u-1"


def test_a_result_stands_even_if_the_connection_breaks_after_it() -> None:
    transfer = upload()
    transfer.receive(started())
    transfer.receive(upload_pb2.UploadResponse(result=upload_pb2.UploadResult(rows_received=7)))
    assert transfer.outcome(UnavailableError("gone")).rows_received == 7
