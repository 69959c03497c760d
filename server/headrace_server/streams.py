"""The shape of our bidirectional calls: a reader task, an outbox, errors in band.

A fatal error goes into the stream first, and the client's messages are then
drained until it half-closes: a client that is still writing when a call ends
loses the status of the call, but never a message that came before it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import structlog
from google.rpc import status_pb2

from headrace_compute.errors import UnexpectedMessageError
from headrace_server.status import to_status

DRAIN_SECONDS = 30.0

Request = TypeVar("Request")
Response = TypeVar("Response")

_log = structlog.get_logger(__name__)


async def converse(
    requests: AsyncIterator[Request],
    serve: Callable[[AsyncIterator[Request], Callable[[Response], None]], Awaitable[None]],
    in_band: Callable[[status_pb2.Status], Response],
) -> AsyncIterator[Response]:
    """Runs `serve(requests, send)` beside the client's reading, and yields what it sends.

    Args:
        requests: The client's messages.
        serve: Handles them; whatever it raises ends the call.
        in_band: Makes the response that tells of an error.
    """
    outbox: asyncio.Queue[Response | None] = asyncio.Queue()

    async def read() -> None:
        try:
            await serve(requests, outbox.put_nowait)
            await drain(requests)
        except Exception as error:
            # The interceptor gives the call the same status, under the same id, at its end.
            correlation_id = structlog.contextvars.get_contextvars().get("request_id", "")
            outbox.put_nowait(in_band(to_status(error, correlation_id)))
            await drain(requests)
            raise
        finally:
            outbox.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (response := await outbox.get()) is not None:
            yield response
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def drain(requests: AsyncIterator[object]) -> None:
    """Reads on until the client half-closes, so that it sees what was sent; gives up after a while."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in requests:
                pass
    except TimeoutError:
        _log.warning("the client kept its side of the stream open after the end")


def unexpected(expected: str, got: str | None) -> UnexpectedMessageError:
    """The error for a message out of order."""
    got = got or "an empty message"
    return UnexpectedMessageError(f"expected {expected}, got {got}", {"expected": expected, "got": got})
