"""The client's state of one stream of an upload or a validation.

No I/O happens here: the sync and the aio client both send what it says and tell
it what they receive.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from headrace.errors import HeadraceError, from_status
from headrace.source import Chunk, Start
from headrace.v1 import validation_pb2

WINDOW_BYTES = 64 << 20
"""Bytes that may be on their way without an ack. More is not sent before one comes."""

FLUSH_AFTER_S = 1.0
"""Seconds a full window is waited on before the server is asked to flush."""

Request = TypeVar("Request")
Response = TypeVar("Response")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Progress:
    """How far an upload or a validation has come, by the server's word.

    Attributes:
        offset: What is safe (validated): bytes, or rows for a row stream. Never
            less than it was before.
        total: What there is, in the same unit; 0 when unknown.
        rows_accepted, rows_rejected, rows_duplicate: Counts so far, provisional;
            `rows_rejected` includes the duplicates. A validation counts no
            duplicates before its report.
        interruption: What broke the upload, which is about to go on by itself;
            None while it runs.
    """

    offset: int
    total: int
    rows_accepted: int
    rows_rejected: int
    rows_duplicate: int = 0
    interruption: HeadraceError | None = None


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
        answer: The result, once it has come.
        error: The error the server sent in band.
        failure: What the call itself ended with, if it failed.
        source_error: What reading the source raised.
        closed: Set when the call is over.
        safe_offset: Everything before it need never be sent again.
    """

    def __init__(self) -> None:
        self.answer: Outcome | None = None
        self.error: HeadraceError | None = None
        self.failure: HeadraceError | None = None
        self.source_error: Exception | None = None
        self.closed = False
        self.safe_offset = 0

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

    def start(self) -> Start:
        """Where to begin in the stream, once it is opened."""
        return Start()

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

    def outcome(self) -> Outcome:
        """The answer, once the call has ended.

        Raises:
            HeadraceError: The server sent an error, or the call failed.
            Exception: What reading the source raised.
        """
        if self.answer is not None:
            return self.answer
        if self.source_error is not None:
            raise self.source_error
        raise self.broken()

    def broken(self) -> HeadraceError:
        """Why the call has ended without an answer; an error in band says more than the call's status."""
        return self.error or self.failure or HeadraceError("The server ended the stream without an answer.")


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
        """The chunk, which is not needed again: a validation cannot be resumed."""
        self.safe_offset = chunk.end_offset
        if chunk.is_rows:
            return validation_pb2.ValidateRequest(chunk=validation_pb2.ValidateChunk(rows=chunk.rows))
        return validation_pb2.ValidateRequest(chunk=validation_pb2.ValidateChunk(data=chunk.content))

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
