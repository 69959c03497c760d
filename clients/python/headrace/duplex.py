"""A bidirectional stream: its writer runs beside its reader, sync and asyncio.

gRPC pulls requests from a generator (the sync client on a thread of its own,
the aio client in a task) while the caller reads answers. What is written and
what is waited for is defined once, in `_script`; the two clients only execute it.
The writer waits for the header's answer and for room in the window; an error that
comes in band stops it, the stream is half-closed, and the reader goes on to the end.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

import grpc

from headrace.errors import from_rpc
from headrace.source import Chunk, Source, Start
from headrace.transfer import FLUSH_AFTER_S, OnProgress, Outcome, Request, Response, Transfer


@dataclass(frozen=True)
class _Send(Generic[Request]):
    """Sends a request."""

    request: Request


@dataclass(frozen=True)
class _Wait:
    """Waits until something holds; answered with whether it does, which it may not after `timeout_s`."""

    until: Callable[[], bool]
    timeout_s: float | None = None


@dataclass(frozen=True)
class _Read:
    """Reads the source's next chunk from `start` on; answered with it, or with None at the end."""

    start: Start


_Script: TypeAlias = Generator[_Send[Request] | _Wait | _Read, Any, None]


def _script(transfer: Transfer[Request, Response, Outcome], source: Source) -> _Script[Request]:
    """The writer's side of a transfer, step by step; it blocks on nothing itself."""
    yield _Send(transfer.opening())
    yield _Wait(transfer.opened)
    start = transfer.start()
    while not transfer.ended:
        has_room: bool = yield _Wait(transfer.has_room, FLUSH_AFTER_S)
        if not has_room and (nudge := transfer.nudge()):
            yield _Send(nudge)
            yield _Wait(transfer.has_room)
        if transfer.ended:
            break
        chunk: Chunk | None = yield _Read(start)
        if chunk is None:
            break
        if transfer.ended or chunk.end_offset <= start.offset:
            continue
        yield _Send(transfer.chunk(chunk))
        source.acked(transfer.safe_offset)
    if not transfer.ended:
        yield _Send(transfer.finish())


def _next_step(script: _Script[Request], answer: Any) -> _Send[Request] | _Wait | _Read | None:
    try:
        return script.send(answer)
    except StopIteration:
        return None


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

    def requests() -> Iterator[Request]:
        script = _script(transfer, source)
        chunks: Iterator[Chunk] | None = None
        answer: Any = None
        try:
            while True:
                with changed:
                    step = _next_step(script, answer)
                match step:
                    case None:
                        return
                    case _Send():
                        answer = None
                        yield step.request
                    case _Wait():
                        with changed:
                            answer = changed.wait_for(step.until, step.timeout_s)
                    case _Read():
                        chunks = chunks or source.chunks(step.start)
                        answer = next(chunks, None)
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
        script = _script(transfer, source)
        chunks: AsyncIterator[Chunk] | None = None
        answer: Any = None
        try:
            while (step := _next_step(script, answer)) is not None:
                match step:
                    case _Send():
                        answer = None
                        yield step.request
                    case _Wait():
                        answer = await wait(step.until, step.timeout_s)
                    case _Read():
                        chunks = chunks or source.achunks(step.start)
                        answer = await anext(chunks, None)
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
