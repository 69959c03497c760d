"""What the client knows of a running upload or validation.

No I/O happens here: the sync and the aio client both send what it says and tell
it what they receive.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from headrace.errors import HeadraceError, from_status
from headrace.source import CHUNK_BYTES, Chunk
from headrace.v1 import upload_pb2, validation_pb2

WINDOW_BYTES = 64 << 20
"""Bytes that may be on their way without an ack. More is not sent before one comes."""

PATIENCE_S = 1.0
"""Seconds a full window is waited on before the server is asked to flush."""

Request = TypeVar("Request")
Response = TypeVar("Response")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Progress:
    """How far an upload or a validation has come, by the server's word.

    Attributes:
        offset: What is safe (validated): bytes, or rows for a row stream.
        total: What there is, in the same unit; 0 when unknown.
        rows_accepted, rows_rejected, rows_duplicate: Counts so far, provisional;
            `rows_rejected` includes the duplicates. A validation counts no
            duplicates before its report.
    """

    offset: int
    total: int
    rows_accepted: int
    rows_rejected: int
    rows_duplicate: int = 0


OnProgress: TypeAlias = Callable[[Progress], None]
"""Called with every progress, on the thread (or loop) of the caller."""


class Window:
    """The bytes that were sent and not acknowledged."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.unacked_bytes = 0
        self._sent: deque[tuple[int, int]] = deque()

    @property
    def full(self) -> bool:
        """Whether nothing more should be sent before an ack."""
        return self.unacked_bytes >= self.limit_bytes

    def sent(self, chunk: Chunk) -> None:
        """Notes a chunk that goes out."""
        self._sent.append((chunk.end_offset, chunk.weight_bytes))
        self.unacked_bytes += chunk.weight_bytes

    def acked(self, offset: int) -> None:
        """Notes that everything before `offset` is safe."""
        while self._sent and self._sent[0][0] <= offset:
            self.unacked_bytes -= self._sent.popleft()[1]


class Transfer(ABC, Generic[Request, Response, Outcome]):
    """One stream of chunks to the server: what to send, and what the answers mean.

    Attributes:
        error: The error the server sent in band.
        source_error: What reading the source raised.
        closed: Set when the call is over.
    """

    def __init__(self) -> None:
        self.answer: Outcome | None = None
        self.error: HeadraceError | None = None
        self.source_error: Exception | None = None
        self.closed = False

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to send."""
        return self.closed or self.answer is not None or self.error is not None

    def opened(self) -> bool:
        """Whether chunks may follow the header, or nothing ever will."""
        return True

    def has_room(self) -> bool:
        """Whether another chunk may go out, or none ever will."""
        return True

    def limits(self) -> tuple[int, int]:
        """Where to begin in the stream, and the largest chunk in bytes."""
        return 0, CHUNK_BYTES

    @abstractmethod
    def opening(self) -> Request:
        """The first request."""

    @abstractmethod
    def chunk(self, chunk: Chunk) -> Request:
        """The request that carries a chunk."""

    @abstractmethod
    def nudge(self) -> Request | None:
        """The request that asks for an ack, for a full window; None if there is no such thing."""

    @abstractmethod
    def finish(self) -> Request:
        """The last request."""

    @abstractmethod
    def receive(self, response: Response) -> Progress | None:
        """Takes an answer; gives the progress it tells of, if any."""

    def outcome(self, failure: HeadraceError | None) -> Outcome:
        """The answer, once the call has ended.

        Args:
            failure: What the call itself ended with, if it failed.

        Raises:
            HeadraceError: The server sent an error, or the call failed.
            Exception: What reading the source raised.
        """
        if self.answer is not None:
            return self.answer
        if self.source_error is not None:
            raise self.source_error
        raise self.error or failure or HeadraceError("the server ended the stream without an answer")


class UploadTransfer(Transfer[upload_pb2.UploadRequest, upload_pb2.UploadResponse, upload_pb2.UploadResult]):
    """One upload.

    Args:
        header: The header, with an upload_id, so that the upload can be found again.
        window_bytes: Bytes that may be on their way without an ack.
    """

    def __init__(self, header: upload_pb2.UploadHeader, window_bytes: int = WINDOW_BYTES) -> None:
        super().__init__()
        self.header = header
        self.window = Window(window_bytes)
        self.started: upload_pb2.UploadStarted | None = None
        self.persisted_offset = 0
        self.sent_offset = 0

    def opened(self) -> bool:
        """Whether the server has answered the header, or will not."""
        return self.started is not None or self.ended

    def has_room(self) -> bool:
        """Whether the window has room, or will not be needed."""
        return self.ended or not self.window.full

    def limits(self) -> tuple[int, int]:
        """What the server already has, and the largest chunk it takes."""
        limit_bytes = self.started.max_chunk_bytes if self.started else 0
        return self.persisted_offset, limit_bytes or CHUNK_BYTES

    def opening(self) -> upload_pb2.UploadRequest:
        """The header."""
        return upload_pb2.UploadRequest(header=self.header)

    def chunk(self, chunk: Chunk) -> upload_pb2.UploadRequest:
        """The chunk with its offset."""
        self.window.sent(chunk)
        self.sent_offset = chunk.end_offset
        if isinstance(chunk.content, bytes):
            message = upload_pb2.UploadChunk(offset=chunk.offset, data=chunk.content)
        else:
            message = upload_pb2.UploadChunk(offset=chunk.offset, rows=chunk.content)
        return upload_pb2.UploadRequest(chunk=message)

    def nudge(self) -> upload_pb2.UploadRequest:
        """A flush."""
        return upload_pb2.UploadRequest(flush=upload_pb2.UploadFlush())

    def finish(self) -> upload_pb2.UploadRequest:
        """The finish, with the size the server must have seen."""
        return upload_pb2.UploadRequest(finish=upload_pb2.UploadFinish(total_size=self.sent_offset))

    def receive(self, response: upload_pb2.UploadResponse) -> Progress | None:
        """Takes an answer.

        row_errors and draining change nothing here: the report has the former,
        and a draining server still acknowledges what it can.
        """
        match response.WhichOneof("response"):
            case "started":
                self.started = response.started
                self.sent_offset = response.started.persisted_offset
                return self._safe(upload_pb2.UploadAck(persisted_offset=self.sent_offset))
            case "ack":
                return self._safe(response.ack)
            case "error":
                # Also one that leaves the stream usable: this client sends no gaps,
                # so an OUT_OF_RANGE means that it and the server disagree for good.
                self.error = self.error or from_status(response.error)
            case "result":
                self.answer = response.result
        return None

    def _safe(self, ack: upload_pb2.UploadAck) -> Progress:
        self.persisted_offset = ack.persisted_offset
        self.window.acked(ack.persisted_offset)
        total = self.header.expected_rows or self.header.expected_bytes
        return Progress(ack.persisted_offset, total, ack.rows_accepted, ack.rows_rejected, ack.rows_duplicate)

    def outcome(self, failure: HeadraceError | None) -> upload_pb2.UploadResult:
        """The result; an error names the upload and how much of it is safe."""
        try:
            return super().outcome(failure)
        except HeadraceError as error:
            if self.started is not None:
                error.name_upload(self.header.upload_id, self.persisted_offset)
            raise


class ValidateTransfer(
    Transfer[validation_pb2.ValidateRequest, validation_pb2.ValidateResponse, validation_pb2.Report]
):
    """One validation.

    Args:
        header: The header.
        total: Bytes or rows there are, for progress; 0 when unknown.
    """

    def __init__(self, header: validation_pb2.ValidateHeader, total: int = 0) -> None:
        super().__init__()
        self.header = header
        self.total = total

    def opening(self) -> validation_pb2.ValidateRequest:
        """The header."""
        return validation_pb2.ValidateRequest(header=self.header)

    def chunk(self, chunk: Chunk) -> validation_pb2.ValidateRequest:
        """The chunk."""
        if isinstance(chunk.content, bytes):
            return validation_pb2.ValidateRequest(chunk=validation_pb2.ValidateChunk(data=chunk.content))
        return validation_pb2.ValidateRequest(chunk=validation_pb2.ValidateChunk(rows=chunk.content))

    def nudge(self) -> None:
        """Nothing: a validation has no window, gRPC's flow control slows it."""

    def finish(self) -> validation_pb2.ValidateRequest:
        """The finish."""
        return validation_pb2.ValidateRequest(finish=validation_pb2.ValidateFinish())

    def receive(self, response: validation_pb2.ValidateResponse) -> Progress | None:
        """Takes an answer."""
        match response.WhichOneof("response"):
            case "progress":
                seen = response.progress
                accepted = seen.rows_received - seen.rows_rejected
                return Progress(seen.validated_offset, self.total, accepted, seen.rows_rejected)
            case "error":
                self.error = self.error or from_status(response.error)
            case "report":
                self.answer = response.report
        return None
