"""What shards give, added up by workers."""

from collections.abc import Callable
from typing import Any

from headrace_compute.inputs.workers import Workers

PARTIALS = 8
"""So many shards' item aggregates are added up at a time."""


class Totals:
    """Adds up what shards give as they come, so that little of it is there at a time.

    Args:
        stage: Adds up several, whose arguments follow `args`.
    """

    def __init__(self, workers: Workers, stage: Callable[..., Any], *args: Any) -> None:
        self._workers = workers
        self._stage = stage
        self._args = args
        self._partials: list[Any] = []

    async def add(self, partial: Any) -> None:
        """Takes what one more shard gives."""
        self._partials.append(partial)
        if len(self._partials) >= PARTIALS:
            some, self._partials = self._partials, []
            total = await self._added(some)
            # Others may have come meanwhile, and gone.
            self._partials.append(total)

    async def sum(self) -> Any:
        """The total of all shards; ends its use."""
        return await self._added(self._partials)

    async def _added(self, partials: list[Any]) -> Any:
        total = await self._workers.hold(self._stage, *self._args, *partials)
        self._workers.let_go(partials)
        return total
