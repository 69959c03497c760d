"""Places for streams, which clients hold for as long as they like: idle ones give way when none is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from headrace_compute.errors import GaveWayError
from headrace_server.rpc.limits import Limit

PATIENCE_SECONDS = 10.0
"""How long a stream must have been idle to give way to one of a tenant that will have as many as its own."""

SETTLE_SECONDS = 10.0
"""How long a stream that gives way may take to make safe what it was sent."""

_log = structlog.get_logger(__name__)


class IdleStream(Protocol):
    """A stream that may wait for its client."""

    @property
    def idle_seconds(self) -> float | None:
        """How long it has been waiting for its client; None while it has something to do."""

    def interrupt(self, error: Exception) -> None:
        """Makes it raise `error` instead of waiting on."""


@dataclass(eq=False)
class _Place:
    """A place that a stream has.

    Attributes:
        has_given_way: Whether it is another's by now, and the stream about to end.
        left: Set when the stream has ended.
    """

    tenant: str
    stream: IdleStream
    has_given_way: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)


class StreamLimit(Limit):
    """A limit on streams, at which one that is idle gives way to another tenant's.

    Of the tenants that have more than the newcomer's, the one with the most streams loses the one that has
    been idle for the longest. Streams that the server is at work on never give way.
    """

    def __init__(self, what: str, total: int, per_tenant: int) -> None:
        super().__init__(what, total, per_tenant)
        self._places: set[_Place] = set()

    @asynccontextmanager
    async def enter_stream(self, tenant: str, stream: IdleStream) -> AsyncIterator[None]:
        """Counts a stream in for as long as the context lasts; may wait for another one to end.

        Raises:
            OverloadedError: That would be one too many, and none gives way to it.
        """
        loser = self._loser(tenant)
        if loser is not None:
            self._give_way(loser)
        self._count_in(tenant, tenant)
        place = _Place(tenant, stream)
        try:
            if loser is not None:
                await self._has_left(loser)
            self._places.add(place)
            yield
        finally:
            self._places.discard(place)
            place.left.set()
            if not place.has_given_way:
                self._count_out(tenant)

    def _loser(self, tenant: str) -> _Place | None:
        """Whose place a newcomer gets, if it needs one and is worth it."""
        own = self._held[tenant]
        if self.held < self._total or own >= self._per_tenant:
            return None
        found: tuple[int, float] = (0, 0.0)
        loser = None
        for place in self._places:
            idle_seconds, held = place.stream.idle_seconds, self._held[place.tenant]
            if place.has_given_way or idle_seconds is None or held <= own:
                continue
            # After a change between equals the loser would be the one with less.
            if held == own + 1 and idle_seconds < PATIENCE_SECONDS:
                continue
            if (held, idle_seconds) >= found:
                found, loser = (held, idle_seconds), place
        return loser

    def _give_way(self, place: _Place) -> None:
        """Ends a stream. Its place is free at once, so that nobody but the newcomer gets it."""
        place.has_given_way = True
        self._count_out(place.tenant)
        _log.info("a stream gives way", tenant=place.tenant)
        place.stream.interrupt(
            GaveWayError(
                f"The server has {self._total:,} {self._what} under way, all that it may have; this one, the "
                "idlest of the tenant with the most, gave way to another tenant's. Call again to go on.",
                {"limit": str(self._total), "what": self._what},
            )
        )

    async def _has_left(self, place: _Place) -> None:
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await place.left.wait()
        except TimeoutError:
            raise self._full() from None
