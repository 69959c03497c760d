"""Results of stages that stay in Ray's object store, and are made again when a node is lost with them."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """A stage's result that stays in Ray's object store; pass it to another stage as it is.

    Attributes:
        ref: Ray's reference to it; None once it was let go.
    """

    def __init__(self, ref: Any, origin: "Origin | None" = None) -> None:
        self.ref = ref
        self._origin = origin

    async def renew(self, lost: Any) -> bool:
        """Makes the value anew unless somebody has since `lost` was its reference; whether it can be."""
        if self._origin is None:
            return False
        await self._origin.renew(self, lost)
        return True

    def let_go(self) -> None:
        """Frees its room, if it can be made again."""
        if self._origin is not None:
            self.ref = None


class Origin:
    """Where held results come from: one call of a stage, which makes all that it gives at once.

    Args:
        again: Calls it again, and gives references to the same values in the same order.
    """

    def __init__(self, again: Callable[[], Awaitable[Sequence[Any]]]) -> None:
        self._again = again
        self._results: list[weakref.ref[Held[Any]]] = []
        self._lock = asyncio.Lock()

    def hold(self, refs: Sequence[Any]) -> list[Held[Any]]:
        """What the first call gave."""
        results = [Held[Any](ref, self) for ref in refs]
        # Weakly, so that the room of a result that nobody wants any more is freed.
        self._results = [weakref.ref(result) for result in results]
        return results

    async def renew(self, wanted: Held[Any], lost: Any) -> None:
        """Makes all that are still wanted anew, unless it was done since `lost` was one's reference."""
        async with self._lock:
            if wanted.ref is not lost:
                return
            for result, ref in zip(self._results, await self._again(), strict=True):
                if (held := result()) is not None and (held is wanted or held.ref is not None):
                    held.ref = ref
