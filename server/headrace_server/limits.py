"""Limits on what may be under way at once, so that a server refuses before it suffers."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from headrace_compute.errors import OverloadedError
from headrace_server import metrics


class Limit:
    """How much of something may be under way: in all, and for one tenant. Belongs to one event loop.

    Args:
        what: What is counted, as a message names it, in the plural.
        total: The most at once.
        per_tenant: The most of one tenant.
    """

    def __init__(self, what: str, total: int, per_tenant: int) -> None:
        self._what = what
        self._total = total
        self._per_tenant = per_tenant
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """How much is under way."""
        return self._held.total()

    @contextmanager
    def enter(self, tenant: str) -> Iterator[None]:
        """Counts one in for as long as the context lasts.

        Raises:
            OverloadedError: That would be one too many.
        """
        if self.held >= self._total:
            raise self._overloaded(f"the server has {self._total:,} {self._what} under way", self._total)
        if self._held[tenant] >= self._per_tenant:
            raise self._overloaded(
                f"tenant {tenant[:80]} has {self._per_tenant:,} {self._what} under way", self._per_tenant
            )
        self._held[tenant] += 1
        try:
            yield
        finally:
            self._held[tenant] -= 1
            if not self._held[tenant]:
                del self._held[tenant]

    def _overloaded(self, found: str, limit: int) -> OverloadedError:
        metrics.OVERLOADED.labels(self._what).inc()
        return OverloadedError(
            f"{found}, the most it may have at once; wait until one has ended",
            {"limit": str(limit), "what": self._what},
        )
