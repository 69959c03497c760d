"""The client's side of a stream, without a wire: rows as messages, the window, acks, backoff."""

from datetime import UTC, date, datetime

import google_crc32c
import grpc
import pytest
from google.rpc import status_pb2

from headrace.backoff import BASE_S, CAP_S, Backoff
from headrace.errors import OffsetGapError, UnavailableError
from headrace.row import to_interaction, to_item
from headrace.source import Chunk, RowSource, Start
from headrace.transfer import Window
from headrace.upload import Upload, UploadTransfer
from headrace.v1 import upload_pb2


def upload(
    window_bytes: int = 100, backoff: Backoff | None = None, format: upload_pb2.Format.ValueType = 0
) -> UploadTransfer:
    header = upload_pb2.UploadHeader(tenant_id="acme", upload_id="u-1", format=format)
    return Upload(header, 500, window_bytes, backoff).stream()


def started(offset: int = 0, crc32c: int | None = None) -> upload_pb2.UploadResponse:
    message = upload_pb2.UploadStarted(
        upload_id="u-1", persisted_offset=offset, persisted_crc32c=crc32c, max_chunk_bytes=64
    )
    return upload_pb2.UploadResponse(started=message)


def ack(offset: int) -> upload_pb2.UploadResponse:
    return upload_pb2.UploadResponse(ack=upload_pb2.UploadAck(persisted_offset=offset, rows_accepted=3))


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


def bytes_chunk(start: int, end: int) -> Chunk:
    return Chunk(start, end, bytes(end - start), before_crc32c=google_crc32c.value(bytes(start)))


def test_the_window_is_full_until_an_ack_covers_whole_chunks() -> None:
    window = Window(100)
    for start in (0, 50):
        window.sent(bytes_chunk(start, start + 50))
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
    assert transfer.start() == Start(offset=200, crc32c=None, limit_bytes=64)
    assert progress is not None
    assert (progress.offset, progress.total) == (200, 500)


def test_progress_is_what_the_server_acknowledged() -> None:
    transfer = upload()
    transfer.receive(started())
    for start in (0, 64):
        transfer.chunk(bytes_chunk(start, start + 64))
    assert not transfer.has_room()
    progress = transfer.receive(ack(64))
    assert transfer.has_room()
    assert progress is not None
    assert (progress.offset, progress.rows_accepted, transfer.safe_offset) == (64, 3, 64)
    assert transfer.finish().finish.total_size == 128


def test_every_chunk_has_a_checksum_and_the_whole_stream_if_the_server_keeps_one() -> None:
    for crc32c in (None, 7):
        transfer = upload()
        transfer.receive(started(100, crc32c))
        assert transfer.chunk(bytes_chunk(100, 150)).chunk.crc32c == google_crc32c.value(bytes(50))
        finish = transfer.finish().finish
        assert finish.HasField("crc32c") == (crc32c is not None)
        if crc32c is not None:
            assert finish.crc32c == google_crc32c.value(bytes(150))


def test_a_stream_with_nothing_left_to_send_finishes_with_what_the_server_has() -> None:
    transfer = upload()
    transfer.receive(started(100, 7))
    assert transfer.finish().finish == upload_pb2.UploadFinish(total_size=100, crc32c=7)


def test_rows_are_sent_without_a_checksum() -> None:
    transfer = upload(format=upload_pb2.FORMAT_ROWS)
    transfer.receive(started(0, 7))
    (chunk,) = RowSource("items", [{"item_id": "i1"}]).chunks(transfer.start())
    assert not transfer.chunk(chunk).chunk.HasField("crc32c")
    assert transfer.finish().finish == upload_pb2.UploadFinish(total_size=1)


def test_an_error_in_band_ends_the_writing_and_wins_over_the_status() -> None:
    transfer = upload()
    transfer.receive(started())
    transfer.receive(ack(64))
    gap = status_pb2.Status(code=grpc.StatusCode.OUT_OF_RANGE.value[0], message="a gap")
    transfer.receive(upload_pb2.UploadResponse(error=gap))
    transfer.failure = UnavailableError("gone")
    assert transfer.ended
    assert transfer.has_room()
    assert transfer.upload.ended(transfer) is transfer.error
    assert isinstance(transfer.error, OffsetGapError)


def test_an_upload_that_is_given_up_is_told_with_its_id_and_how_to_go_on() -> None:
    transfer = upload(backoff=Backoff(patience_s=0))
    transfer.receive(started())
    transfer.receive(ack(64))
    transfer.failure = UnavailableError("gone")
    with pytest.raises(
        UnavailableError, match=r"gone \[upload u-1\] \(safe up to 64; upload again"
    ) as raised:
        transfer.upload.pause_s(transfer.upload.ended(transfer))
    assert raised.value.metadata == {"upload_id": "u-1", "persisted_offset": "64"}


def test_a_result_stands_even_if_the_connection_breaks_after_it() -> None:
    transfer = upload()
    transfer.receive(started())
    transfer.receive(upload_pb2.UploadResponse(result=upload_pb2.UploadResult(rows_received=7)))
    transfer.failure = UnavailableError("gone")
    assert transfer.outcome().rows_received == 7


def test_backoff_grows_to_its_cap_with_full_jitter() -> None:
    asked: list[tuple[float, float]] = []
    backoff = Backoff(1e9, clock=lambda: 0.0, jitter=lambda low, high: asked.append((low, high)) or 0.0)
    for _ in range(100):
        backoff.failed()
    assert asked[:4] == [(0.0, BASE_S * 2**n) for n in range(4)]
    assert asked[-1] == (0.0, CAP_S)


def test_patience_runs_from_the_first_failure_without_progress() -> None:
    now_s = 1_000.0
    backoff = Backoff(10, clock=lambda: now_s, jitter=lambda low, high: high)
    assert backoff.failed() == BASE_S
    now_s += 9.9
    # The last try comes when patience ends.
    assert backoff.failed() == pytest.approx(0.1)
    now_s += 0.1
    assert backoff.failed() is None
    backoff.progressed()
    now_s += 100
    assert backoff.failed() == BASE_S


def test_counts_that_grow_are_progress_too() -> None:
    transfer = upload(backoff=Backoff(10, jitter=lambda low, high: high))
    transfer.receive(started(500))
    delays = [transfer.upload.pause_s(UnavailableError("gone")) for _ in range(3)]
    transfer.receive(
        upload_pb2.UploadResponse(ack=upload_pb2.UploadAck(persisted_offset=500, rows_accepted=1))
    )
    assert transfer.upload.pause_s(UnavailableError("gone")) == delays[0] < delays[1] < delays[2]
