"""Taking turns at something scarce, so that nobody who wants much keeps out who wants little.

Who waits belongs to a group (a tenant) and is a member of it (one of its streams). Groups
take turns, and in a group its members do; a member's own requests are served as they came.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Things that one holder at a time may use, handed out in turns. Belongs to one event loop.

    Args:
        things: What is handed out; who takes one must give it back.
    """

    def __init__(self, things: Iterable[T]) -> None:
        self._free = deque(things)
        # Front to back: whose turn is next. Nobody waits while something is free.
        self._waiting: OrderedDict[str, OrderedDict[str, deque[asyncio.Future[T]]]] = OrderedDict()

    async def take(self, group: str, member: str) -> T:
        """The next free thing; waits for the member's turn."""
        if self._free:
            return self._free.popleft()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        members = self._waiting.setdefault(group, OrderedDict())
        members.setdefault(member, deque()).append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # It was handed to someone who had just given up.
                self.give_back(future.result())
            raise

    def give_back(self, thing: T) -> None:
        """Hands a thing to whoever is next."""
        while self._waiting:
            future = self._next()
            if not future.done():
                future.set_result(thing)
                return
        self._free.append(thing)

    def _next(self) -> asyncio.Future[T]:
        """Takes whose turn it is out of the line; their group and member go to the back of it."""
        group, members = self._waiting.popitem(last=False)
        member, futures = members.popitem(last=False)
        future = futures.popleft()
        if futures:
            members[member] = futures
        if members:
            self._waiting[group] = members
        return future
