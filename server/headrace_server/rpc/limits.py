"""Limits on concurrent work, so that a server refuses calls before it is overloaded."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from headrace_compute.errors import OverloadedError
from headrace_server import metrics


def overloaded(found: str, limit: int, what: str) -> OverloadedError:
    """The error for one too many, which is counted.

    Args:
        found: What there is, and that there is no more, as a sentence begins.
        limit: The most of it.
        what: What is counted, in the plural.
    """
    metrics.OVERLOADED.labels(what).inc()
    return OverloadedError(f"{found}; wait until one has ended.", {"limit": str(limit), "what": what})


def counted(count: int, plural: str) -> str:
    """How many there are of what a plural that ends in s names."""
    return f"{count:,} {plural.removesuffix('s') if count == 1 else plural}"


def at_its_limit(owner: str, has: str) -> str:
    """What is found of an owner that has as much as it may have."""
    return f"{owner} has {has}, the most it may have at once"


def at_its_share(owner: str, has: str, free: int) -> str:
    """What is found of an owner that has as much as there are places free."""
    left = "1 place is left, which is" if free == 1 else f"{free:,} places are left, which are"
    return f"{owner} has {has} and may have no more while only {left} kept for others"


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
    def enter(self, tenant: str, peer: str = "") -> Iterator[None]:
        """Counts one in for as long as the context lasts.

        Args:
            tenant: Whose it is; empty if the call does not say.
            peer: Whose connection it came by, which stands for the tenant then.

        Raises:
            OverloadedError: That would be one too many.
        """
        owner = tenant or peer
        self._count_in(tenant, owner)
        try:
            yield
        finally:
            self._count_out(owner)

    def _count_in(self, tenant: str, owner: str) -> None:
        if self.held >= self._total:
            raise self._full()
        if self._held[owner] >= self._per_tenant:
            found = at_its_limit(_named(tenant), self._under_way(self._per_tenant))
            raise overloaded(found, self._per_tenant, self._what)
        self._held[owner] += 1

    def _count_out(self, owner: str) -> None:
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]

    def _full(self) -> OverloadedError:
        found = at_its_limit("The server", self._under_way(self._total))
        return overloaded(found, self._total, self._what)

    def _under_way(self, count: int) -> str:
        return f"{counted(count, self._what)} under way"


class ReservingLimit(Limit):
    """A limit on what is held for long: a tenant has one more only while more places are free than it has.

    So a few tenants that fill theirs leave some to whoever comes next.
    """

    def _count_in(self, tenant: str, owner: str) -> None:
        own, free = self._held[owner], self._total - self.held
        if 0 < free <= own < self._per_tenant:
            raise overloaded(at_its_share(_named(tenant), self._under_way(own), free), own, self._what)
        super()._count_in(tenant, owner)


def _named(tenant: str) -> str:
    return f"Tenant {tenant[:80]}" if tenant else "This connection"
