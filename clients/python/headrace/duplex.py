"""A stream on the wire: the writer beside the reader, sync and aio.

gRPC pulls requests from a generator (the sync client on a thread of its own,
the aio client in a task) while the caller reads answers. The writer waits for
the header's answer and for room in the window; an error that comes in band
stops it, the stream is half-closed, and the reader goes on to the end.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc

from headrace.errors import from_rpc
from headrace.source import Source
from headrace.transfer import FLUSH_AFTER_S, OnProgress, Outcome, Request, Response, Transfer


def exchange(
    method: Callable[[Iterator[Request]], Any],
    transfer: Transfer[Request, Response, Outcome],
    source: Source,
    on_progress: OnProgress | None,
    address: str,
) -> None:
    """Runs a transfer on a sync stub's stream method to its end; the transfer knows how that was.

    Raises:
        Exception: What `on_progress` raised.
    """
    changed = threading.Condition()

    def wait(until: Callable[[], bool], timeout_s: float | None = None) -> bool:
        with changed:
            return changed.wait_for(until, timeout_s)

    def requests() -> Iterator[Request]:
        try:
            yield transfer.opening()
            wait(transfer.opened)
            start = transfer.start()
            chunks = source.chunks(start)
            while not transfer.ended:
                if not wait(transfer.has_room, FLUSH_AFTER_S) and (nudge := transfer.nudge()):
                    yield nudge
                    wait(transfer.has_room)
                if transfer.ended or (chunk := next(chunks, None)) is None:
                    break
                if transfer.ended or chunk.end_offset <= start.offset:
                    continue
                with changed:
                    message = transfer.chunk(chunk)
                yield message
                source.acked(transfer.safe_offset)
            if not transfer.ended:
                yield transfer.finish()
        except Exception as error:
            # Raised again on the caller's thread.
            transfer.source_error = error

    call = method(requests())
    try:
        for response in call:
            with changed:
                progress = transfer.receive(response)
                changed.notify_all()
            source.acked(transfer.safe_offset)
            if progress and on_progress:
                on_progress(progress)
    except grpc.RpcError as error:
        transfer.failure = from_rpc(error, address)
        transfer.failure.__cause__ = error
    finally:
        with changed:
            transfer.closed = True
            changed.notify_all()
        call.cancel()


async def aexchange(
    method: Callable[[AsyncIterator[Request]], Any],
    transfer: Transfer[Request, Response, Outcome],
    source: Source,
    on_progress: OnProgress | None,
    address: str,
) -> None:
    """Runs a transfer on an aio stub's stream method to its end; the transfer knows how that was.

    Raises:
        Exception: What `on_progress` raised.
    """
    changed = asyncio.Event()

    async def settled(until: Callable[[], bool]) -> None:
        while not until():
            changed.clear()
            await changed.wait()

    async def wait(until: Callable[[], bool], timeout_s: float | None = None) -> bool:
        try:
            await asyncio.wait_for(settled(until), timeout_s)
        except TimeoutError:
            return False
        return True

    async def requests() -> AsyncIterator[Request]:
        try:
            yield transfer.opening()
            await wait(transfer.opened)
            start = transfer.start()
            chunks = source.achunks(start)
            while not transfer.ended:
                if not await wait(transfer.has_room, FLUSH_AFTER_S) and (nudge := transfer.nudge()):
                    yield nudge
                    await wait(transfer.has_room)
                if transfer.ended or (chunk := await anext(chunks, None)) is None:
                    break
                if transfer.ended or chunk.end_offset <= start.offset:
                    continue
                yield transfer.chunk(chunk)
                source.acked(transfer.safe_offset)
            if not transfer.ended:
                yield transfer.finish()
        except Exception as error:
            # Raised again in the caller's task.
            transfer.source_error = error

    call = method(requests())
    try:
        async for response in call:
            progress = transfer.receive(response)
            changed.set()
            source.acked(transfer.safe_offset)
            if progress and on_progress:
                on_progress(progress)
    except grpc.RpcError as error:
        transfer.failure = from_rpc(error, address)
        transfer.failure.__cause__ = error
    finally:
        transfer.closed = True
        changed.set()
        call.cancel()
