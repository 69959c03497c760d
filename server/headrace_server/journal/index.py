"""An index: which journals are not over, so that no server has to read every one.

An entry is an object `{raw bucket}/_headrace/{name}/{tenant}/{id}`. It is there before its journal's first
record, and until everything is swept that what it tells of leaves behind. All methods block: call them in
a thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyExistsError, open_store


@dataclass(frozen=True)
class Index:
    """The entries of a name."""

    config: StoreConfig
    name: str

    def key(self, tenant: str, entry: str) -> str:
        """Where an entry lies."""
        return f"{self._root}/{tenant}/{entry}"

    def add(self, tenant: str, entry: str) -> bool:
        """Makes an entry; whether it was not there before."""
        try:
            open_store(self.config).create(self.key(tenant, entry), b"")
        except KeyExistsError:
            return False
        return True

    def restore(self, tenant: str, entry: str) -> None:
        """Makes an entry again: for want of a journal it may be under removal at this moment."""
        open_store(self.config).put(self.key(tenant, entry), b"")

    def remove(self, tenant: str, entry: str) -> None:
        """Takes an entry out."""
        open_store(self.config).delete(self.key(tenant, entry))

    def tenants(self) -> list[str]:
        """Who has entries, by name."""
        return open_store(self.config).children(self._root)

    def of_tenant(self, tenant: str) -> list[str]:
        """A tenant's entries, in order."""
        return open_store(self.config).children(f"{self._root}/{tenant}")

    def entries(self) -> Iterator[tuple[str, str]]:
        """Tenant and id of every entry, in order."""
        for tenant in self.tenants():
            for entry in self.of_tenant(tenant):
                yield tenant, entry

    @property
    def _root(self) -> str:
        return f"{self.config.raw}/_headrace/{self.name}"
