"""Slots: which of several servers publishes a tenant's events.

Tenants fall into 16 slots. A server owns a slot as long as it goes on creating the
slot's next heartbeat `leases/{slot:02d}/{seq:012d}`; create-if-absent is the only
primitive, so there is one owner to each heartbeat. A challenger judges by its own
monotonic clock: a slot whose newest heartbeat stood still for 12 s is free. Two
owners at once, as after a long pause of one, cost duplicates and nothing else.

Living servers (`peers.py`) own equally many: whoever has more than its share releases some.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog
import xxhash

from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyExistsError, KeyMissingError, open_store
from headrace_server.events.peers import Peers

SLOTS = 16
BEAT_SECONDS = 3.0
EXPIRY_SECONDS = 12.0
"""How long a heartbeat must stand still before another server may take the slot."""

YIELD_SECONDS = 9.0
"""How long after its last heartbeat an owner still counts itself as one: less than a challenger waits."""

KEPT_BEATS = 100
"""Heartbeats kept, five minutes of them, so that an owner that was suspended finds itself replaced."""

LISTEN_SECONDS = 0.4
"""How often a server looks for what others have left for it, where there are others."""

RELEASED = b"released"

_log = structlog.get_logger(__name__)


def slot_of(tenant: str) -> int:
    """The slot a tenant falls into."""
    return xxhash.xxh64_intdigest(tenant.encode()) % SLOTS


Told = Callable[[str, str], None]
"""Called with tenant and table of a commit."""


class Slots(Protocol):
    """What a relay may publish for.

    Attributes:
        gained: Set when there are more of ours than there were; whoever waits for it clears it.
    """

    gained: asyncio.Event

    @property
    def owned(self) -> int:
        """How many slots are ours."""

    @property
    def unowned(self) -> int:
        """How many are nobody's, as far as is known."""

    def owns(self, tenant: str) -> bool:
        """Whether this server publishes the tenant's events; never waits."""

    def is_unowned(self, tenant: str) -> bool:
        """Whether nobody publishes them, as far as is known; never waits."""

    def pass_on(self, tenant: str, table: str) -> None:
        """Tells the owner of the tenant's slot, another server, of a commit; never waits."""

    async def run(self, told: Told) -> None:
        """Keeps and takes slots, and hears what others tell, for ever; cancel it to stop."""

    async def release(self) -> None:
        """Gives up every slot, so that another server need not wait."""


class AllSlots:
    """Every slot: the store is this server's alone."""

    owned = SLOTS
    unowned = 0

    def __init__(self) -> None:
        self.gained = asyncio.Event()

    def owns(self, tenant: str) -> bool:
        """Always."""
        return True

    def is_unowned(self, tenant: str) -> bool:
        """Never."""
        return False

    def pass_on(self, tenant: str, table: str) -> None:
        """There is nobody to tell."""

    async def run(self, told: Told) -> None:
        """Nothing to keep, and nobody to hear."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Nothing to give up."""


@dataclass
class _Slot:
    """What is known of a slot: its newest heartbeat, since when, and whether it is ours or nobody's."""

    seq: int = -1
    seen: float = 0.0
    mine: bool = False
    free: bool = False


class LeasedSlots:
    """Slots shared with other servers on the same store.

    Args:
        sink: Names the sink, as for cursors.
        owner: Names this server in its heartbeats, like nobody else.
    """

    def __init__(self, config: StoreConfig, sink: str, owner: str) -> None:
        self._store = open_store(config)
        folder = f"{config.raw}/_headrace/relay/{sink}"
        self._prefix = f"{folder}/leases"
        self._owner = owner.encode()
        self._peers = Peers(self._store, folder, _name_of(self._owner))
        self._others: list[str] = []
        self._slots = [_Slot() for _ in range(SLOTS)]
        self.gained = asyncio.Event()
        self._woken = asyncio.Event()
        self._untold: dict[tuple[str, str], None] = {}
        self._news = asyncio.Event()
        # Cancelling run() does not stop a round in its thread; a release waits for it, or it beats again.
        self._lock = threading.Lock()

    @property
    def owned(self) -> int:
        """How many slots are ours."""
        return sum(slot.mine for slot in self._slots)

    @property
    def unowned(self) -> int:
        """How many are nobody's."""
        return sum(slot.free and not slot.mine for slot in self._slots)

    def owns(self, tenant: str) -> bool:
        """Whether our newest heartbeat of the tenant's slot is young enough."""
        slot = self._slots[slot_of(tenant)]
        return slot.mine and time.monotonic() - slot.seen < YIELD_SECONDS

    def is_unowned(self, tenant: str) -> bool:
        """Whether the tenant's slot was free when it was last looked at."""
        slot = self._slots[slot_of(tenant)]
        return slot.free and not slot.mine

    def pass_on(self, tenant: str, table: str) -> None:
        """Has run() tell the owner."""
        self._untold[tenant, table] = None
        self._news.set()

    async def run(self, told: Told) -> None:
        """Beats for our slots, watches the others, and passes commits on, both ways."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat_on())
            tasks.create_task(self._tell())
            tasks.create_task(self._listen(told))

    async def release(self) -> None:
        """Writes a last heartbeat that says so, and has the others look at once."""
        await asyncio.to_thread(self._release)

    def renew(self) -> None:
        """Looks at every slot once: beats for ours, releases what is too many, takes free ones; blocks."""
        with self._lock:
            try:
                self._look()
            except HeadraceError as error:
                _log.warning("leases cannot be read or kept", reason=error.reason)

    async def _beat_on(self) -> None:
        while True:
            started, owned = time.monotonic(), self.owned
            self._woken.clear()
            await asyncio.to_thread(self.renew)
            if self.owned > owned:
                self.gained.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, BEAT_SECONDS - (time.monotonic() - started))):
                    await self._woken.wait()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            names, self._untold = list(self._untold), {}
            try:
                await asyncio.to_thread(self._tell_owners, names)
            except HeadraceError as error:
                _log.warning("other servers cannot be told", reason=error.reason)

    async def _listen(self, told: Told) -> None:
        while True:
            await asyncio.sleep(LISTEN_SECONDS)
            if not self._others:
                continue
            try:
                names, woken = await asyncio.to_thread(self._peers.heard)
            except HeadraceError as error:
                _log.warning("what other servers tell cannot be read", reason=error.reason)
                continue
            for tenant, table in names:
                told(tenant, table)
            if woken:
                self._woken.set()

    def _tell_owners(self, names: list[tuple[str, str]]) -> None:
        owners = {number: self._owner_of(number) for number in {slot_of(tenant) for tenant, _ in names}}
        for tenant, table in names:
            owner = owners[slot_of(tenant)]
            if owner not in (b"", RELEASED, self._owner):
                self._peers.tell(_name_of(owner), tenant, table)

    def _owner_of(self, number: int) -> bytes:
        """Whose the newest heartbeat of a slot is."""
        beats = self._store.children(f"{self._prefix}/{number:02d}/")
        return self._read(number, int(beats[-1])) if beats else b""

    def _look(self) -> None:
        self._others = self._peers.look()
        share = -(-SLOTS // (1 + len(self._others)))
        for number in random.sample(range(SLOTS), SLOTS):
            slot = self._slots[number]
            if slot.mine:
                slot.mine = self._beat(number, slot, self._owner)
            else:
                slot.free = self._is_free(number, slot)
        self._give(self.owned - share)
        free = [number for number, slot in enumerate(self._slots) if slot.free and not slot.mine]
        for number in random.sample(free, min(len(free), max(0, share - self.owned))):
            self._slots[number].mine = self._beat(number, self._slots[number], self._owner)
            self._slots[number].free = False

    def _give(self, count: int) -> None:
        """Releases some slots, and has the others look at once."""
        mine = [(number, slot) for number, slot in enumerate(self._slots) if slot.mine]
        given = random.sample(mine, max(0, count))
        for number, slot in given:
            slot.mine = False
            self._beat(number, slot, RELEASED)
        if given:
            self._peers.wake(*self._others)

    def _beat(self, number: int, slot: _Slot, body: bytes) -> bool:
        """Creates the next heartbeat; False if another server came first."""
        # The clock is read before the beat: the slot may look older to us than to others, never younger.
        now = time.monotonic()
        try:
            self._store.create(self._key(number, slot.seq + 1), body)
        except KeyExistsError:
            if self._read(number, slot.seq + 1) != body:
                slot.seen = now
                return False
            # The create succeeded and its answer was lost: the heartbeat is ours.
        slot.seq += 1
        slot.seen = now
        if slot.seq >= KEPT_BEATS:
            self._store.delete(self._key(number, slot.seq - KEPT_BEATS))
        return True

    def _is_free(self, number: int, slot: _Slot) -> bool:
        """Looks at a slot of others: free if it was never taken, was released, or stood still too long."""
        beats = self._store.children(f"{self._prefix}/{number:02d}/")
        newest = int(beats[-1]) if beats else -1
        now = time.monotonic()
        if newest != slot.seq:
            slot.seq, slot.seen = newest, now
            return self._read(number, newest) == RELEASED
        return newest < 0 or slot.free or now - slot.seen > EXPIRY_SECONDS

    def _release(self) -> None:
        with self._lock:
            try:
                self._give(self.owned)
                self._peers.leave()
            except HeadraceError as error:
                _log.warning("leases cannot be released", reason=error.reason)

    def _read(self, number: int, seq: int) -> bytes:
        try:
            return self._store.get(self._key(number, seq))
        except KeyMissingError:
            return b""

    def _key(self, number: int, seq: int) -> str:
        return f"{self._prefix}/{number:02d}/{seq:012d}"


def _name_of(owner: bytes) -> str:
    """An owner's name as part of a key."""
    return xxhash.xxh64_hexdigest(owner)
