"""A transfer on the wire: the writer beside the reader, sync and aio.

gRPC pulls requests from a generator (the sync client on a thread of its own,
the aio client in a task) while the caller reads answers. The writer waits for
the header's answer and for room in the window; an error that comes in band
stops it, the stream is half-closed, and the reader goes on to the end.
"""

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import grpc

from headrace.errors import HeadraceError, from_rpc
from headrace.source import Chunk, FileSource, RowSource
from headrace.transfer import PATIENCE_S, OnProgress, Outcome, Request, Response, Transfer

Source: TypeAlias = FileSource | RowSource
"""What a stream can be made of."""


def exchange(
    method: Callable[[Iterator[Request]], Any],
    transfer: Transfer[Request, Response, Outcome],
    source: Source,
    on_progress: OnProgress | None,
    address: str,
) -> Outcome:
    """Runs a transfer on a sync stub's stream method.

    Raises:
        HeadraceError: The transfer failed.
        Exception: What reading the source or `on_progress` raised.
    """
    changed = threading.Condition()

    def wait(until: Callable[[], bool], timeout_s: float | None = None) -> bool:
        with changed:
            return changed.wait_for(until, timeout_s)

    def requests() -> Iterator[Request]:
        try:
            yield transfer.opening()
            wait(transfer.opened)
            for chunk in source.chunks(*transfer.limits()):
                if not wait(transfer.has_room, PATIENCE_S) and (nudge := transfer.nudge()):
                    yield nudge
                    wait(transfer.has_room)
                if transfer.ended:
                    return
                with changed:
                    message = transfer.chunk(chunk)
                yield message
            if not transfer.ended:
                yield transfer.finish()
        except Exception as error:
            # Raised again by transfer.outcome, on the caller's thread.
            transfer.source_error = error

    failure: HeadraceError | None = None
    call = method(requests())
    try:
        for response in call:
            with changed:
                progress = transfer.receive(response)
                changed.notify_all()
            if progress and on_progress:
                on_progress(progress)
    except grpc.RpcError as error:
        failure = from_rpc(error, address)
    finally:
        with changed:
            transfer.closed = True
            changed.notify_all()
        call.cancel()
    return transfer.outcome(failure)


async def aexchange(
    method: Callable[[AsyncIterator[Request]], Any],
    transfer: Transfer[Request, Response, Outcome],
    source: Source,
    on_progress: OnProgress | None,
    address: str,
) -> Outcome:
    """Runs a transfer on an aio stub's stream method.

    Raises:
        HeadraceError: The transfer failed.
        Exception: What reading the source or `on_progress` raised.
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
            async for chunk in _chunks(source, *transfer.limits()):
                if not await wait(transfer.has_room, PATIENCE_S) and (nudge := transfer.nudge()):
                    yield nudge
                    await wait(transfer.has_room)
                if transfer.ended:
                    return
                yield transfer.chunk(chunk)
            if not transfer.ended:
                yield transfer.finish()
        except Exception as error:
            # Raised again by transfer.outcome, in the caller's task.
            transfer.source_error = error

    failure: HeadraceError | None = None
    call = method(requests())
    try:
        async for response in call:
            progress = transfer.receive(response)
            changed.set()
            if progress and on_progress:
                on_progress(progress)
    except grpc.RpcError as error:
        failure = from_rpc(error, address)
    finally:
        transfer.closed = True
        changed.set()
        call.cancel()
    return transfer.outcome(failure)


async def _chunks(source: Source, start: int, limit_bytes: int) -> AsyncIterator[Chunk]:
    if isinstance(source, RowSource) and isinstance(source.rows, AsyncIterable):
        async for chunk in source.achunks(start, limit_bytes):
            yield chunk
    elif isinstance(source, RowSource):
        for chunk in source.chunks(start, limit_bytes):
            yield chunk
    else:
        # A file is read in a thread, so that a slow disk does not stop the loop.
        chunks = source.chunks(start, limit_bytes)
        while chunk_read := await asyncio.to_thread(next, chunks, None):
            yield chunk_read
