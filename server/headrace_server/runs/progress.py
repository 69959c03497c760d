"""Progress of a run, as messages between a task and the stream that reports on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from headrace.v1 import run_pb2
from headrace_server.runs.live import LiveRun

T = TypeVar("T")


class Reported(Generic[T]):
    """Runs a task and hands out its progress; its result is there at the end.

    Leaving the iteration early, as when the client goes away, cancels the task.

    Args:
        live: Where the task tells how far it has come.
    """

    def __init__(self, live: LiveRun, work: Callable[[], Awaitable[T]]) -> None:
        self._live = live
        self._work = work
        self._result: list[T] = []

    @property
    def result(self) -> T:
        """The task's result, once the iteration has ended."""
        return self._result[0]

    async def progress(self) -> AsyncIterator[run_pb2.RunProgress]:
        """Each step's progress as it comes; raises what the task raised."""
        steps: asyncio.Queue[run_pb2.RunProgress | None] = asyncio.Queue()
        self._live.heard = steps.put_nowait

        async def run() -> None:
            try:
                self._result.append(await self._work())
            finally:
                steps.put_nowait(None)

        task = asyncio.create_task(run())
        try:
            while (step := await steps.get()) is not None:
                yield step
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
