"""Room in the store that runs are about to take."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from headrace_compute.errors import StoreFullError
from headrace_compute.inputs.workers import Admit
from headrace_compute.objects.interface import ObjectStore

SHARE = 0.9
"""What runs may take of the room that is free: the rest is for uploads, and for what no forecast sees."""


class Room:
    """Admits runs whose output fits, beside what others were admitted for. Belongs to one event loop.

    Args:
        store: Where it is; one that does not tell its room takes all runs.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._promised: dict[object, int] = {}

    @contextmanager
    def entered(self) -> Iterator[Admit]:
        """What a run calls with the bytes that it will write in all, and those it has written.

        It raises StoreFullError if the store has no room for them; what it admits, and is not written yet,
        is kept free of other runs until the context ends. A later forecast takes the place of an earlier one.
        """
        run = object()

        async def admit(needed_bytes: int, written_bytes: int) -> None:
            left = max(0, needed_bytes - written_bytes)
            free = await asyncio.to_thread(self._store.free_bytes)
            if free is None:
                return
            others = sum(promised for other, promised in self._promised.items() if other is not run)
            room = max(0, int(free * SHARE) - others)
            if left > room:
                raise StoreFullError(
                    f"This run has about {left:,} bytes to write, and the store has room for {room:,}; "
                    "make the run smaller, as by a lower negative_ratio, or free some space.",
                    {"needed_bytes": str(left), "free_bytes": str(room)},
                )
            self._promised[run] = left

        try:
            yield admit
        finally:
            self._promised.pop(run, None)
