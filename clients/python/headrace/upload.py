"""An upload: over all its streams, and one stream of it. No I/O happens here.

What is tried again, and what ends the upload:

- A lost connection, UNAVAILABLE, a full store and too much load pass; they are
  waited for with backoff for as long as `patience_s` without progress.
- INTERNAL, DATA_LOSS and OUT_OF_RANGE may be an accident or for good: they are
  tried again six times without progress. A poison block is for good.
- FENCED: another stream took the upload over. Answering in kind would let two
  clients fight for ever, so it is the end, with one exception. A stream that
  broke before the server answered its header may have reached it late, and be
  the one that took over; it can do so once. Only then is the upload taken back, once.
- Everything else is the caller's to mend.
- If finish was sent and its result was lost, the server is asked for it first.
"""

from dataclasses import replace

import grpc

from headrace.backoff import Backoff
from headrace.errors import (
    DataLossError,
    DrainingError,
    ExhaustedError,
    FencedError,
    HeadraceError,
    InternalError,
    OffsetGapError,
    UnavailableError,
    UploadClosedError,
    from_status,
)
from headrace.source import CHUNK_BYTES, Chunk, Start
from headrace.transfer import WINDOW_BYTES, Progress, Transfer, Window
from headrace.v1 import upload_pb2

DOUBTFUL_TRIES = 6
"""Retries after errors that may be permanent, without progress in between."""


class Upload:
    """An upload, however many streams it takes.

    Args:
        header: The header, with an upload_id, so that the upload can be found again.
        total: Bytes, or rows, there are, for progress; 0 when unknown.
        window_bytes: Bytes that may be on their way without an ack.
        backoff: How long to wait between streams, and when to give up.

    Attributes:
        progress: How far it has come.
        is_known: Whether the server has answered its header.
        is_finish_sent: Whether a finish was sent whose outcome is not known.
    """

    def __init__(
        self,
        header: upload_pb2.UploadHeader,
        total: int = 0,
        window_bytes: int = WINDOW_BYTES,
        backoff: Backoff | None = None,
    ) -> None:
        self.header = header
        self.window_bytes = window_bytes
        self.progress = Progress(0, total, 0, 0)
        self.is_known = False
        self.is_finish_sent = False
        self._backoff = backoff or Backoff()
        self._doubts = 0
        self._may_fence_itself = False
        self._fence: FencedError | None = None

    def stream(self) -> "UploadTransfer":
        """The next stream of it."""
        return UploadTransfer(self)

    def acked(self, ack: upload_pb2.UploadAck) -> Progress:
        """Takes an ack."""
        before = self.progress
        offset = max(before.offset, ack.persisted_offset)
        counts = ack.rows_accepted, ack.rows_rejected, ack.rows_duplicate
        self.progress = Progress(offset, before.total, *counts)
        # Counts grow without the offset while the server decodes a stream after its finish.
        if offset > before.offset or sum(counts[:2]) > before.rows_accepted + before.rows_rejected:
            self._backoff.progressed()
            self._doubts = 0
        return self.progress

    def ended(self, transfer: "UploadTransfer") -> HeadraceError:
        """Notes that a stream has ended without a result; why."""
        error = transfer.broken()
        if transfer.started is None and not error.reason:
            self._may_fence_itself = True
        return error

    def pause_s(self, error: HeadraceError) -> float:
        """How many seconds to wait before the next try.

        Raises:
            HeadraceError: `error`, naming the upload: it is not worth another try.
        """
        if error.reason in ("IDLE_TIMEOUT", "GAVE_WAY"):
            self._backoff.progressed()  # The source is slow, nothing is wrong.
        if self._passes(error):
            delay_s = self._backoff.failed()
            if delay_s is not None:
                self.progress = replace(self.progress, interruption=error)
                return delay_s
            if self._backoff.patience_s:
                error.add_remark(f"given up after {self._backoff.patience_s:g} s without progress")
        raise self._named(error)

    def question(self) -> upload_pb2.GetUploadRequest:
        """Asks what has become of it."""
        return upload_pb2.GetUploadRequest(tenant_id=self.header.tenant_id, upload_id=self.header.upload_id)

    def settle(self, answer: upload_pb2.GetUploadResponse) -> upload_pb2.UploadResult | None:
        """The result, if the upload whose finish was sent has one; None if another stream must ask for it.

        Raises:
            HeadraceError: It was aborted, or another stream has taken it over and not finished it.
        """
        if answer.state == upload_pb2.UPLOAD_STATE_DONE:
            return answer.result
        if answer.state == upload_pb2.UPLOAD_STATE_ABORTED:
            raise UploadClosedError(
                f"Upload {answer.upload_id} was aborted; start a new one.",
                reason="UPLOAD_CLOSED",
                code=grpc.StatusCode.FAILED_PRECONDITION,
                metadata={"upload_id": answer.upload_id},
            )
        # Once it is finishing nobody owns it, and any stream gets the result.
        if self._fence is not None and answer.state == upload_pb2.UPLOAD_STATE_OPEN:
            raise self._named(self._fence)
        self.is_finish_sent = False
        return None

    def _passes(self, error: HeadraceError) -> bool:
        match error:
            case FencedError(reason="FENCED"):
                return self._passes_fence(error)
            case UnavailableError() | FencedError():
                return True
            case ExhaustedError():
                return bool(error.reason)  # gRPC's own are about sizes of messages.
            case InternalError(retryable=False) | DataLossError(retryable=False):
                return False
            case InternalError() | DataLossError() | OffsetGapError():
                return self._may_pass()
        # What gRPC and proxies say of a connection that broke in the middle.
        return error.code is grpc.StatusCode.UNKNOWN and not error.reason and self._may_pass()

    def _may_pass(self) -> bool:
        self._doubts += 1
        return self._doubts <= DOUBTFUL_TRIES

    def _passes_fence(self, error: FencedError) -> bool:
        is_ours, self._may_fence_itself = self._may_fence_itself, False
        if not is_ours and self.is_finish_sent and self._fence is None:
            self._fence = error  # Whoever it was may have finished the upload: that is asked first.
            return True
        return is_ours

    def _named(self, error: HeadraceError) -> HeadraceError:
        if self.is_known or error.retryable:
            error.name_upload(self.header.upload_id, self.progress.offset)
        return error


class UploadTransfer(Transfer[upload_pb2.UploadRequest, upload_pb2.UploadResponse, upload_pb2.UploadResult]):
    """One stream of an upload.

    Args:
        upload: The upload.

    Attributes:
        started: What the server answered the header with; None before.
    """

    def __init__(self, upload: Upload) -> None:
        super().__init__()
        self.upload = upload
        self.window = Window(upload.window_bytes)
        self.started: upload_pb2.UploadStarted | None = None
        self._last: Chunk | None = None
        self._is_acked = False
        self._is_draining = False

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to send on this stream."""
        return super().ended or (self._is_draining and not self.upload.is_finish_sent)

    @property
    def is_ours(self) -> bool:
        """Whether the answer is to what this stream has sent; else the upload had been finished before.

        A server acknowledges a finish before it tells the result, even one that adds no bytes, such as
        that of a CSV header alone; of an upload that is finished it tells the result at once.
        """
        return self.upload.is_finish_sent and self._is_acked

    def opened(self) -> bool:
        """Whether the server has answered the header, or will not."""
        return self.started is not None or self.ended

    def has_room(self) -> bool:
        """Whether the window has room, or will not be needed."""
        return self.ended or not self.window.full

    def start(self) -> Start:
        """What the server already has, and the largest chunk it takes."""
        if self.started is None:
            return Start()
        return Start(
            offset=self.started.persisted_offset,
            crc32c=self.started.persisted_crc32c if self._has_checksum() else None,
            limit_bytes=self.started.max_chunk_bytes or CHUNK_BYTES,
        )

    def opening(self) -> upload_pb2.UploadRequest:
        """The header."""
        return upload_pb2.UploadRequest(header=self.upload.header)

    def chunk(self, chunk: Chunk) -> upload_pb2.UploadRequest:
        """The chunk with its offset, and with its checksum unless it is rows."""
        self.window.sent(chunk)
        self._last = chunk
        if chunk.is_rows:
            message = upload_pb2.UploadChunk(offset=chunk.offset, rows=chunk.rows)
        else:
            message = upload_pb2.UploadChunk(offset=chunk.offset, data=chunk.content, crc32c=chunk.crc32c)
        return upload_pb2.UploadRequest(chunk=message)

    def nudge(self) -> upload_pb2.UploadRequest:
        """A flush."""
        return upload_pb2.UploadRequest(flush=upload_pb2.UploadFlush())

    def finish(self) -> upload_pb2.UploadRequest:
        """The finish, with the size of the whole stream and, if the server keeps one, its checksum."""
        self.upload.is_finish_sent = True
        start = self.start()
        total_size, crc32c = start.offset, start.crc32c
        if self._last is not None:
            total_size = self._last.end_offset
            crc32c = self._last.stream_crc32c(total_size) if self._has_checksum() else None
        message = upload_pb2.UploadFinish(total_size=total_size, crc32c=crc32c)
        return upload_pb2.UploadRequest(finish=message)

    def receive(self, response: upload_pb2.UploadResponse) -> Progress | None:
        """Takes an answer; row_errors change nothing here, the report has them."""
        match response.WhichOneof("response"):
            case "started":
                return self._begin(response.started)
            case "ack":
                self._is_acked = True
                return self._safe(response.ack)
            case "draining":
                # The writer stops and half-closes; the server acknowledges what it can, and the
                # next stream goes on with whoever takes its place.
                self._is_draining = True
            case "error":
                # Also one that leaves the stream usable: another stream mends it as well.
                self.error = self.error or from_status(response.error)
            case "result":
                self.answer = response.result
        return None

    def broken(self) -> HeadraceError:
        """Why the stream has ended without a result."""
        if self._is_draining and self.error is None and self.failure is None:
            return DrainingError("The server is shutting down.", code=grpc.StatusCode.UNAVAILABLE)
        return super().broken()

    def _begin(self, started: upload_pb2.UploadStarted) -> Progress:
        self.started = started
        self.upload.is_known = True
        before = self.upload.progress
        ack = upload_pb2.UploadAck(
            persisted_offset=started.persisted_offset,
            rows_accepted=before.rows_accepted,
            rows_rejected=before.rows_rejected,
            rows_duplicate=before.rows_duplicate,
        )
        return self._safe(ack)

    def _safe(self, ack: upload_pb2.UploadAck) -> Progress:
        self.safe_offset = ack.persisted_offset
        self.window.acked(ack.persisted_offset)
        return self.upload.acked(ack)

    def _has_checksum(self) -> bool:
        """Whether the server tells the checksum of what it has, and so takes one at finish."""
        is_bytes = self.upload.header.format != upload_pb2.FORMAT_ROWS
        return is_bytes and self.started is not None and self.started.HasField("persisted_crc32c")
