"""Bidirectional calls: the stream of requests, the queue of responses, errors in band.

A fatal error goes into the stream first, and the client's messages are then
drained until it half-closes or falls silent: a client that is still writing when a call ends
loses the status of the call, but never a message that came before it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Protocol, Self, TypeVar

import structlog
from google.rpc import status_pb2

from headrace_compute.errors import IdleTimeoutError, InvalidDataError, UnexpectedMessageError
from headrace_server.rpc.status import to_status

DRAIN_SECONDS = 30.0
"""How long the messages of a client that keeps writing are drained after the end."""

DRAIN_BYTES = 16 << 20
"""How many bytes of it are drained: more than a reading client has in flight when the error reaches it."""

QUIET_SECONDS = 1.0
"""A client silent for this long is not writing, so it cannot miss the end of the stream."""

MAX_QUEUED_RESPONSES = 64
"""Responses queued for a client that does not read, before the server stops reading from it."""


class Sized(Protocol):
    """A message that knows its size, as those of protobuf do."""

    def ByteSize(self) -> int:
        """Its size on the wire in bytes."""


Request = TypeVar("Request", bound=Sized)
Response = TypeVar("Response")

_log = structlog.get_logger(__name__)


class RequestStream(Generic[Request]):
    """The client's messages. Waiting for one ends early when the client is silent, or when interrupted.

    Args:
        requests: The messages as gRPC hands them out.
        idle_seconds: How long the client may send nothing.
    """

    def __init__(self, requests: AsyncIterator[Request], idle_seconds: float) -> None:
        self._requests = requests
        self._idle_seconds = idle_seconds
        self._reading: asyncio.Task[Request | None] | None = None
        self._ended = False
        self._waiting_since: float | None = None
        self._interrupted: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    @property
    def idle_seconds(self) -> float | None:
        """How long the reader has been waiting for a message; None while it does something else."""
        if self._waiting_since is None:
            return None
        return asyncio.get_running_loop().time() - self._waiting_since

    def interrupt(self, error: Exception) -> None:
        """Makes the reader raise `error` instead of waiting for the next message; the first one counts."""
        if not self._interrupted.done():
            self._interrupted.set_result(error)

    def close(self) -> None:
        """Gives up the message that is being waited for."""
        if self._reading is not None:
            self._reading.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Request:
        """The next message.

        Raises:
            IdleTimeoutError: None came for too long.
            Exception: What the reader was interrupted with; once, then messages come again.
        """
        # A read that was begun is kept, not cancelled: gRPC cannot take one back.
        reading = self._reading = self._reading or asyncio.create_task(self._read())
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            await asyncio.wait(
                (reading, self._interrupted), timeout=self._idle_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._waiting_since = None
        if self._interrupted.done():
            error = self._interrupted.result()
            self._interrupted = asyncio.get_running_loop().create_future()
            raise error
        if not reading.done():
            raise IdleTimeoutError(
                f"Nothing came from the client for {self._idle_seconds:g} seconds; call again to go on.",
                {"idle_seconds": f"{self._idle_seconds:g}"},
            )
        self._reading = None
        if (message := reading.result()) is None:
            self._ended = True
            raise StopAsyncIteration
        return message

    async def drain(self) -> None:
        """Reads on until the client half-closes or falls silent, so that it sees what was sent.

        Ends after DRAIN_SECONDS or DRAIN_BYTES with a client that does neither.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        left_bytes = DRAIN_BYTES
        while not self._ended:
            if left_bytes < 0 or loop.time() > deadline:
                _log.warning("the client goes on writing after the end")
                return
            reading = self._reading = self._reading or asyncio.create_task(self._read())
            await asyncio.wait((reading,), timeout=QUIET_SECONDS)
            if not reading.done():
                return
            self._reading = None
            try:
                message = reading.result()
            except InvalidDataError:
                continue
            if message is None:
                self._ended = True
            else:
                left_bytes -= message.ByteSize()

    async def _read(self) -> Request | None:
        return await anext(self._requests, None)


class ResponseQueue(Generic[Response]):
    """What goes to the client, kept while it does not read. Belongs to one reader."""

    def __init__(self) -> None:
        self._queue: deque[Response | str] = deque()
        self._newest: dict[str, Response] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def send(self, response: Response, newest_of: str = "") -> None:
        """Puts a response on its way; never waits.

        Args:
            newest_of: Names a kind of which only the newest matters; it takes an older one's place.
        """
        if not newest_of:
            self._queue.append(response)
        else:
            if newest_of not in self._newest:
                self._queue.append(newest_of)
            self._newest[newest_of] = response
        self._changed.set()

    async def room(self) -> None:
        """Waits while the client leaves too much unread."""
        while len(self._queue) >= MAX_QUEUED_RESPONSES and not self._closed:
            await self._change()

    def close(self) -> None:
        """Ends the stream after what is on its way."""
        self._closed = True
        self._changed.set()

    async def get(self) -> Response | None:
        """The next response; None at the end."""
        while not self._queue:
            if self._closed:
                return None
            await self._change()
        entry = self._queue.popleft()
        self._changed.set()
        return self._newest.pop(entry) if isinstance(entry, str) else entry

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


async def serve_stream(
    requests: AsyncIterator[Request],
    serve: Callable[[RequestStream[Request], ResponseQueue[Response]], Awaitable[None]],
    in_band: Callable[[status_pb2.Status], Response],
    idle_seconds: float,
) -> AsyncIterator[Response]:
    """Runs `serve(incoming, responses)` beside the client's reading, and yields what it sends.

    Args:
        requests: The client's messages.
        serve: Handles them; whatever it raises ends the call.
        in_band: Makes the response that tells of an error.
        idle_seconds: How long the client may send nothing.
    """
    incoming: RequestStream[Request] = RequestStream(requests, idle_seconds)
    responses: ResponseQueue[Response] = ResponseQueue()

    async def read() -> None:
        try:
            await serve(incoming, responses)
            await incoming.drain()
        except Exception as error:
            # The interceptor gives the call the same status, under the same id, at its end.
            correlation_id = structlog.contextvars.get_contextvars().get("request_id", "")
            responses.send(in_band(to_status(error, correlation_id)))
            await incoming.drain()
            raise
        finally:
            responses.close()

    reader = asyncio.create_task(read())
    try:
        while (response := await responses.get()) is not None:
            yield response
        await reader
    finally:
        reader.cancel()
        incoming.close()
        await asyncio.gather(reader, return_exceptions=True)


def unexpected(expected: str, got: str | None) -> UnexpectedMessageError:
    """The error for a message out of order."""
    got = got or "an empty message"
    return UnexpectedMessageError(f"Expected {expected}, got {got}.", {"expected": expected, "got": got})
