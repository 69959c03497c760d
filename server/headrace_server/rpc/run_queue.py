"""The queue of runs: at most so many are under way, of all and of a tenant; beyond, they wait for their turn.

Turns go by tenant: a place that comes free is for the tenant that has the fewest runs under way, and among
equals for the one whose last turn was longest ago. A tenant's own runs keep the order in which they came. As
of reads, a tenant has one more place only while more are free than it has; in the queue it is the same.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headrace_compute.errors import OverloadedError
from headrace_server import metrics
from headrace_server.rpc.limits import at_its_limit, at_its_share, counted, overloaded

RUNNING = "runs"
QUEUED = "queued runs"
"""What is counted, as errors name it: runs under way where none may wait, else those that do."""


class Place:
    """A run's place: had, or waited for.

    Attributes:
        is_held: Whether the run may be under way.
    """

    def __init__(self, line: deque["Place"]) -> None:
        self.is_held = False
        self._line = line
        self._since = time.monotonic()
        self._moved = asyncio.Event()
        self._refusal: Callable[[], Exception] | None = None

    async def turn(self, tell: Callable[[int], None]) -> None:
        """Waits for the run's turn.

        Args:
            tell: Told which of its tenant's waiting runs it is, 1 being the next one, whenever that changes.

        Raises:
            Exception: What the queue was closed with.
        """
        told = 0
        while not self.is_held:
            if self._refusal is not None:
                raise self._refusal()
            number = self._line.index(self) + 1
            if number != told:
                tell(number)
                told = number
            self._moved.clear()
            await self._moved.wait()

    def take(self) -> None:
        """Says that its turn has come."""
        self.is_held = True
        metrics.RUN_WAIT_SECONDS.observe(time.monotonic() - self._since)
        self._moved.set()

    def look(self) -> None:
        """Says that others before it may be gone."""
        self._moved.set()

    def refuse(self, make: Callable[[], Exception]) -> None:
        """Ends its wait with an error."""
        self._refusal = make
        self._moved.set()


class RunQueue:
    """Belongs to one event loop.

    Args:
        total, per_tenant: The most runs under way at once, in all and of one tenant.
        queued, queued_per_tenant: The most that wait.
    """

    def __init__(self, total: int, per_tenant: int, queued: int, queued_per_tenant: int) -> None:
        self._total = total
        self._per_tenant = per_tenant
        self._queued = queued
        self._queued_per_tenant = queued_per_tenant
        self._held: Counter[str] = Counter()
        # The tenants that wait; front to back: whose last turn was longest ago.
        self._lines: dict[str, deque[Place]] = {}
        self._measure()

    @property
    def held(self) -> int:
        """How many runs are under way."""
        return self._held.total()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    @contextmanager
    def enter(self, tenant: str) -> Iterator[Place]:
        """A place for as long as the context lasts, or the wait for one.

        Raises:
            OverloadedError: One more may not even wait.
        """
        line = self._lines.get(tenant, deque())
        place = Place(line)
        # Whoever waits may have none of what is free, so nobody is overtaken but by who has less.
        if not line and self._may_have(tenant):
            self._held[tenant] += 1
            place.take()
        else:
            self._check_room(tenant, len(line))
            line.append(place)
            self._lines[tenant] = line
        self._measure()
        try:
            yield place
        finally:
            self._leave(tenant, place)

    def close(self, make: Callable[[], Exception]) -> None:
        """Ends the wait of all who wait, each with an error of its own."""
        for line in self._lines.values():
            for place in line:
                place.refuse(make)

    def _leave(self, tenant: str, place: Place) -> None:
        if place.is_held:
            self._held[tenant] -= 1
            if not self._held[tenant]:
                del self._held[tenant]
        else:
            line = self._lines[tenant]
            line.remove(place)
            if not line:
                del self._lines[tenant]
            for other in line:
                other.look()
        self._hand_out()
        self._measure()

    def _hand_out(self) -> None:
        while able := [tenant for tenant in self._lines if self._may_have(tenant)]:
            tenant = min(able, key=lambda each: self._held[each])
            line = self._lines.pop(tenant)
            self._held[tenant] += 1
            line.popleft().take()
            if line:
                self._lines[tenant] = line
            for other in line:
                other.look()

    def _may_have(self, tenant: str) -> bool:
        own, free = self._held[tenant], self._total - self.held
        return own < self._per_tenant and own < free

    def _check_room(self, tenant: str, own: int) -> None:
        """Refuses one more that would wait, if there are too many."""
        if min(self._queued, self._queued_per_tenant) == 0:
            under_way, free = self._held[tenant], self._total - self.held
            raise _full(tenant, under_way, self._per_tenant, free, self._total, RUNNING)
        free = self._queued - self.waiting
        if own >= min(self._queued_per_tenant, free):
            raise _full(tenant, own, self._queued_per_tenant, free, self._queued, QUEUED)

    def _measure(self) -> None:
        metrics.RUNS.labels("running").set(self.held)
        metrics.RUNS.labels("queued").set(self.waiting)


def _full(tenant: str, own: int, per_tenant: int, free: int, total: int, what: str) -> OverloadedError:
    """The error for one too many of a tenant that has its own, where so many places are free."""

    def has(count: int) -> str:
        return f"{counted(count, 'runs')} {'under way' if what == RUNNING else 'queued'}"

    named = f"Tenant {tenant[:80]}"
    if free <= 0:
        return overloaded(at_its_limit("The server", has(total - free)), total, what)
    if own >= per_tenant:
        return overloaded(at_its_limit(named, has(own)), per_tenant, what)
    return overloaded(at_its_share(named, has(own), free), own, what)
