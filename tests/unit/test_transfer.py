"""The client's side of a stream, without a wire: rows as messages, the window, acks, backoff."""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import google_crc32c
import grpc
import numpy as np
import pytest
from google.rpc import status_pb2

from headrace.backoff import BASE_S, CAP_S, Backoff
from headrace.errors import OffsetGapError, UnavailableError
from headrace.row import to_interaction, to_item
from headrace.source import Chunk, RowSource, Start
from headrace.transfer import Window
from headrace.upload import Upload, UploadTransfer
from headrace.v1 import row_pb2, upload_pb2


def upload(
    window_bytes: int = 100,
    backoff: Backoff | None = None,
    format: upload_pb2.Format.ValueType = upload_pb2.FORMAT_UNSPECIFIED,
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


def test_a_datetime_is_sent_in_utc_because_old_offsets_have_seconds() -> None:
    moment = datetime(1880, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert to_interaction({"timestamp": moment}).timestamp == "1879-12-31T23:06:32+00:00"
    assert to_interaction({"timestamp": datetime(1880, 1, 1)}).timestamp == "1880-01-01T00:00:00"
    # Of what UTC has no year for the server says why it rejects it.
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert to_interaction({"timestamp": early}).timestamp == "0001-01-01T00:00:00+01:00"


@pytest.mark.parametrize("nothing", [None, float("nan"), np.float32("nan")])
def test_none_nan_and_absence_mean_no_value_but_zero_is_a_value(nothing: object) -> None:
    assert to_interaction({"rating": nothing, "user_id": nothing}) == row_pb2.Interaction()
    assert to_item({"price": 0}).HasField("price")


@pytest.mark.parametrize("number", [17, np.int64(17), np.uint8(17)])
def test_an_integer_id_is_its_digits(number: object) -> None:
    assert to_item({"item_id": number}).item_id == "17"
    assert to_item({"item_id": 2**64}).item_id == "18446744073709551616"
    assert to_item({"price": number}).price == 17


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"item_id": 17.0}, r"Row 4: item_id is 17\.0; give a str or int\."),
        ({"item_id": True}, r"Row 4: item_id is True; give a str or int\."),
        ({"price": True}, r"Row 4: price is True; give a float or int\."),
        ({"price": np.True_}, "Row 4: price is .*True"),
        (
            {"title": 17.5, "price": "12.50"},
            r"Row 4: title is 17\.5; give a str or int, price is '12\.50'; give a float or int\.",
        ),
        ({"title": "\udcff"}, "Row 4: title"),
        ({"item_id": 10**5_000}, "Row 4: item_id is a number of very many digits"),
        ("i1,Chair", "Row 4: expected a mapping or Item, got str"),
    ],
)
def test_a_row_no_message_can_carry_is_named_before_it_is_sent(
    row: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        to_item(row, 4)


def test_unknown_keys_are_ignored_with_a_warning_or_refused_on_request() -> None:
    row = {"item_id": "i1", "colour": "red", "bucket": 3}
    with pytest.warns(UserWarning, match=r"^Unknown columns are ignored: 'bucket', 'colour'\.$"):
        assert to_item(row, 4) == row_pb2.Item(item_id="i1")
    with pytest.raises(
        ValueError, match=r"Row 4: unknown column 'bucket', 'colour'; leave it out.*item_id, title"
    ):
        to_item(row, 4, reject_unknown=True)


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


@pytest.mark.parametrize("acks", [0, 1])
def test_an_answer_is_to_this_stream_only_if_its_finish_was_acknowledged(acks: int) -> None:
    transfer = upload()
    transfer.receive(started())
    transfer.chunk(bytes_chunk(0, 50))  # A CSV header alone: nothing of it is ever persisted.
    transfer.finish()
    for _ in range(acks):
        transfer.receive(ack(0))
    transfer.receive(upload_pb2.UploadResponse(result=upload_pb2.UploadResult()))
    assert transfer.is_ours == bool(acks)


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

    def shortest(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.0

    backoff = Backoff(1e9, clock=lambda: 0.0, jitter=shortest)
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
