"""Servers that relay from one store: which of them live, and what they tell each other.

There is no line between them but the store. Each writes a heartbeat of its own, so that even one that owns no
slot is counted, and looks into a folder for what others have left for it.
"""

import time
from dataclasses import dataclass
from typing import TypeAlias

from headrace_compute.errors import HeadraceError
from headrace_compute.objects.interface import ObjectStore

LIVING_SECONDS = 12.0
"""How long a heartbeat may stand still, by the clock of whoever looks, before its server counts as dead."""

FORGOTTEN_SECONDS = 300.0
"""After which its heartbeat is deleted."""

Name: TypeAlias = tuple[str, str]
"""Tenant and table."""


@dataclass
class _Peer:
    """The newest heartbeat of a server, and since when it is that."""

    beat: bytes
    seen: float


class Peers:
    """The servers of a store, as one of them sees them. Methods block: call them in a thread.

    Args:
        prefix: Folder of the sink in the store.
        name: Ours: part of a key, like nobody else's.
    """

    def __init__(self, store: ObjectStore, prefix: str, name: str) -> None:
        self._store = store
        self._servers = f"{prefix}/servers"
        self._hints = f"{prefix}/hints"
        self._name = name
        self._beats = 0
        self._peers: dict[str, _Peer] = {}

    def look(self) -> list[str]:
        """Says that we live; returns the names of the others that do."""
        self._beats += 1
        self._store.put(f"{self._servers}/{self._name}", str(self._beats).encode())
        now = time.monotonic()
        there = [name for name in self._store.children(self._servers) if name != self._name]
        self._peers = {name: self._seen(name, now) for name in there}
        for name, peer in self._peers.items():
            if now - peer.seen > FORGOTTEN_SECONDS:
                self._store.delete(f"{self._servers}/{name}")
                self._store.delete_all(f"{self._hints}/{name}")
        return [name for name, peer in self._peers.items() if now - peer.seen < LIVING_SECONDS]

    def leave(self) -> None:
        """Says that we are gone, and has the others look at the slots now."""
        self._store.delete(f"{self._servers}/{self._name}")
        self.wake(*self._peers)

    def wake(self, *names: str) -> None:
        """Has others look at the slots now."""
        for name in names:
            self._store.put(f"{self._hints}/{name}/slots", b"")

    def tell(self, name: str, tenant: str, table: str) -> None:
        """Tells another server of a commit."""
        self._store.put(f"{self._hints}/{name}/tables/{tenant}/{table}", b"")

    def heard(self) -> tuple[list[Name], bool]:
        """Commits that others have told us of, and whether we are to look at the slots; told once."""
        folder = f"{self._hints}/{self._name}/"
        names, woken = [], False
        for key in list(self._store.list(folder)):
            kind, _, rest = key.removeprefix(folder).partition("/")
            tenant, _, table = rest.partition("/")
            if kind == "tables":
                names.append((tenant, table))
            woken = woken or kind == "slots"
            self._store.delete(key)
        return names, woken

    def _seen(self, name: str, now: float) -> _Peer:
        try:
            beat = self._store.get(f"{self._servers}/{name}")
        except HeadraceError:
            beat = b""
        known = self._peers.get(name)
        return known if known is not None and known.beat == beat else _Peer(beat, now)
