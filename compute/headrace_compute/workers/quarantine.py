"""Whose input has ended workers or decoders, and who therefore waits before more of it is tried.

A process that dies is started anew, which takes seconds of a core from everybody. Who has made several die is
suspended, longer each time; after that, as while several tenants do it, one more death is enough. Where a
call names no tenant, the address that it came from stands for one, such as `ipv4:192.0.2.7`.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from headrace_compute.errors import SuspendedError

DEATHS = 6
"""How many processes a tenant may end within WINDOW_SECONDS, wherever in its input. Ends for other reasons
hit tenants alike, and one by one."""

WINDOW_SECONDS = 60.0

FIRST_SECONDS = 15.0
"""How long the first suspension is; each one is twice as long as the one before."""

LONGEST_SECONDS = 3600.0
"""The longest suspension; also how long after its last one a tenant is remembered."""

ALARM_TENANTS = 3
"""So many tenants suspended within WINDOW_SECONDS, and nobody has another try after a death."""

REMEMBERED = 10_000
"""Tenants remembered: names cost nothing."""


@dataclass(frozen=True)
class _Sentence:
    """A suspension: when it began, how long it is, both in seconds."""

    since: float
    seconds: float

    @property
    def until(self) -> float:
        return self.since + self.seconds


class Quarantine:
    """Suspends tenants by what their input has done. What belongs to no tenant is never suspended.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: deque[tuple[float, str]] = deque()
        # In the order in which they began.
        self._sentences: dict[str, _Sentence] = {}

    def check(self, tenant: str) -> None:
        """Refuses a tenant that is suspended.

        Raises:
            SuspendedError: It is.
        """
        sentence = self._sentences.get(tenant)
        if sentence is None or (left := sentence.until - self._clock()) <= 0:
            return
        seconds = int(left) + 1
        # No tenant's name has a colon.
        kind, origin = ("address", "from") if ":" in tenant else ("tenant", "of tenant")
        raise SuspendedError(
            f"Input {origin} {tenant} has ended workers again and again, so none of it is tried for another "
            f"{seconds} seconds; look for extreme values in what was sent last, then go on.",
            {kind: tenant, "retry_seconds": str(seconds)},
        )

    def died(self, tenant: str) -> None:
        """Hears of a process that ended at a tenant's input; suspends the tenant if that is one too many."""
        if not tenant:
            return
        now = self._clock()
        self._deaths.append((now, tenant))
        while self._deaths[0][0] < now - WINDOW_SECONDS:
            self._deaths.popleft()
        deaths = sum(each == tenant for _, each in self._deaths)
        if deaths >= DEATHS or self._is_on_probation(tenant, now) or self._is_alarmed(now):
            self.suspend(tenant)

    def suspend(self, tenant: str) -> None:
        """Suspends a tenant, unless it is: for twice as long as the last time, if that is remembered."""
        now = self._clock()
        sentence = self._sentences.get(tenant)
        if not tenant or (sentence is not None and now < sentence.until):
            return
        seconds = FIRST_SECONDS
        if sentence is not None and self._is_on_probation(tenant, now):
            seconds = min(LONGEST_SECONDS, 2 * sentence.seconds)
        self._sentences.pop(tenant, None)
        self._sentences[tenant] = _Sentence(now, seconds)
        if len(self._sentences) > REMEMBERED:
            del self._sentences[next(iter(self._sentences))]

    def _is_on_probation(self, tenant: str, now: float) -> bool:
        sentence = self._sentences.get(tenant)
        return sentence is not None and now < sentence.until + LONGEST_SECONDS

    def _is_alarmed(self, now: float) -> bool:
        newest = list(self._sentences.values())[-ALARM_TENANTS:]
        return len(newest) == ALARM_TENANTS and newest[0].since > now - WINDOW_SECONDS
