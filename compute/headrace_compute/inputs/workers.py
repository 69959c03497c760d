"""The interface through which coordinators run stages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from headrace_compute.model import StoreConfig

Progress = Callable[[str, int, int], None]
"""Called with (step, shards done, shards in all)."""

Admit = Callable[[int, int], Awaitable[None]]
"""Called with bytes to be written in all, about, and bytes written; raises StoreFullError without room."""


async def admit_all(needed_bytes: int, written_bytes: int) -> None:
    """Where room is nobody's concern."""


class Workers(Protocol):
    """Runs stages somewhere. What `hold` and `put` return is passed to stages in place of the value."""

    async def run(self, stage: Any, *args: Any) -> Any:
        """Runs `stage(config, *args)` and returns its result."""

    async def hold(self, stage: Any, *args: Any) -> Any:
        """As `run`, but the result stays with the workers."""

    async def hold_each(self, count: int, stage: Any, *args: Any) -> Sequence[Any]:
        """As `hold`, for a stage that gives so many values, one after the other: each is held by itself."""

    async def put(self, value: Any) -> Any:
        """Gives a value that many stages will read to the workers."""

    def let_go(self, held: Sequence[Any]) -> None:
        """Frees the room of held results that nothing is expected to ask for again."""


class InProcess:
    """Runs stages here, one after the other: without Ray, and on whatever store.

    Args:
        config: Where objects live.
    """

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    async def run(self, stage: Any, *args: Any) -> Any:
        """Runs a stage."""
        return stage(self._config, *args)

    async def hold(self, stage: Any, *args: Any) -> Any:
        """The same."""
        return await self.run(stage, *args)

    async def hold_each(self, count: int, stage: Any, *args: Any) -> Sequence[Any]:
        """All that a stage gives."""
        return list(stage(self._config, *args))

    async def put(self, value: Any) -> Any:
        """The value."""
        return value

    def let_go(self, held: Sequence[Any]) -> None:
        """Nothing: what nobody has a reference to is freed."""


async def each(step: str, calls: Sequence[Awaitable[Any]], progress: Progress) -> list[Any]:
    """All results in the order of the calls. The first failure cancels the rest."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    progress(step, 0, len(tasks))
    try:
        for done, next_result in enumerate(asyncio.as_completed(tasks), 1):
            await next_result
            progress(step, done, len(tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks]
