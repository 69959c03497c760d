"""Fair queueing for a scarce resource: who asks for much cannot starve who asks for little.

Waiters belong to a group (a tenant) and are a member of it (one of its streams). Groups share alike, and
within a group its members take turns; a member's own requests are first in, first out.

What groups share is the time for which they hold things, not turns: where some hold a worker for seconds,
who needs one for milliseconds waits for the next that is free, not until each of them had another turn. So
next is the group that will have had least when it is done, if it needs as long as it did last. A group that
comes begins with what those who share had on average: what was before is nobody's debt (fair queueing:
A. Demers, S. Keshav and S. Shenker, 1989).
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

LEAST_SECONDS = 0.01
"""What holding a thing counts at least: for shorter times groups take turns, whatever the clock says."""

REMEMBERED = 1_024
"""Groups whose time is kept, before those that have nothing to make up for are forgotten."""


@dataclass
class _Share:
    """What a group had, and for how long it held the last thing."""

    seconds: float = 0.0
    last_seconds: float = LEAST_SECONDS

    @property
    def when_done(self) -> float:
        """What it will have had with another such thing."""
        return self.seconds + self.last_seconds


class FairQueue(Generic[T]):
    """Resources for one holder at a time, handed out fairly. Belongs to one event loop.

    Args:
        things: What is handed out, hashable, each once; whoever acquires one must release it.
        clock: Tells seconds.
    """

    def __init__(self, things: Iterable[T], clock: Callable[[], float] = time.monotonic) -> None:
        self._free = deque(things)
        self._clock = clock
        self._held: dict[T, tuple[str, float]] = {}
        self._shares: dict[str, _Share] = {}
        self._level_seconds = 0.0
        # Front to back: whose turn is next. Nobody waits who may have something that is free.
        self._waiting: OrderedDict[str, OrderedDict[str, deque[asyncio.Future[T]]]] = OrderedDict()

    async def acquire(self, group: str, member: str) -> T:
        """The next free thing; waits for the member's turn."""
        self._enter(group)
        if self._may_have(group):
            return self._taken(group)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        members = self._waiting.setdefault(group, OrderedDict())
        members.setdefault(member, deque()).append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # It was handed to someone who had just given up.
                self.release(future.result())
            raise

    def release(self, thing: T) -> None:
        """Hands a thing to whoever is next; puts it into circulation if nobody had it."""
        self._account(thing)
        self.add(thing)

    def add(self, thing: T) -> None:
        """Puts one more thing into circulation."""
        self._free.append(thing)
        while (group := self._whose_turn()) is not None:
            future = self._next(group)
            if not future.done():
                future.set_result(self._taken(group))

    def withdraw(self, thing: T) -> bool:
        """Takes a thing out of circulation, also from whoever has it; whether it was free."""
        self._account(thing)
        if thing not in self._free:
            return False
        self._free.remove(thing)
        return True

    def fail(self, make: Callable[[], Exception]) -> None:
        """Ends everybody's wait with an error, of which each gets one of their own."""
        while self._waiting:
            future = self._next(next(iter(self._waiting)))
            if not future.done():
                future.set_exception(make())

    def _whose_turn(self) -> str | None:
        """Of the groups that wait and may have something, the one that will have had least."""
        able = filter(self._may_have, self._waiting)
        return min(able, key=lambda group: self._shares[group].when_done, default=None)

    def _enter(self, group: str) -> None:
        """Has a group begin with what others had on average, unless it had more."""
        if len(self._shares) > REMEMBERED:
            level, active = self._level_seconds, self._active()
            shares = self._shares.items()
            self._shares = {each: had for each, had in shares if each in active or had.seconds > level}
        share = self._shares.setdefault(group, _Share())
        share.seconds = max(share.seconds, self._level_seconds)

    def _account(self, thing: T) -> None:
        """Counts the time for which a thing was held, if it was."""
        if thing not in self._held:
            return
        active = len(self._active())
        group, since = self._held.pop(thing)
        share = self._shares[group]
        share.last_seconds = max(self._clock() - since, LEAST_SECONDS)
        share.seconds += share.last_seconds
        self._level_seconds += share.last_seconds / active

    def _active(self) -> set[str]:
        """The groups that have something, or wait."""
        return {group for group, _ in self._held.values()} | self._waiting.keys()

    def _may_have(self, group: str) -> bool:
        """Whether there is something for a group."""
        return bool(self._free)

    def _taken(self, group: str) -> T:
        """Takes what is free for a group that may have it."""
        thing = self._free.popleft()
        self._held[thing] = group, self._clock()
        return thing

    def _next(self, group: str) -> asyncio.Future[T]:
        """Removes the next waiter of a group; group and member move to the back of the queue."""
        members = self._waiting.pop(group)
        member, futures = members.popitem(last=False)
        future = futures.popleft()
        if futures:
            members[member] = futures
        if members:
            self._waiting[group] = members
        return future


class ReservingQueue(FairQueue[T]):
    """A fair queue for what is held for long: a group has one more only while more are free than it has.

    So a group alone has half of them, a second one half of the rest, and whoever comes next need not wait
    until one of theirs is given back.
    """

    def _may_have(self, group: str) -> bool:
        return len(self._free) > sum(holder == group for holder, _ in self._held.values())

    def is_wanted(self, group: str) -> bool:
        """Whether a group that has fewer waits for one of this group's things, and might have it."""
        held = Counter(holder for holder, _ in self._held.values())
        return any(held[each] < held[group] and held[each] <= len(self._free) for each in self._waiting)
