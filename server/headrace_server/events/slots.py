"""Slots: which of several servers publishes a tenant's events.

Tenants fall into 16 slots. A server owns a slot as long as it goes on creating the
slot's next heartbeat `leases/{slot:02d}/{seq:012d}`; create-if-absent is the only
primitive, so there is one owner to each heartbeat. A challenger judges by its own
monotonic clock: a slot whose newest heartbeat stood still for 15 s is free. Two
owners at once, as after a long pause of one, cost duplicates and nothing else.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Protocol

import structlog
import xxhash

from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_compute.storage.store import KeyExistsError, KeyMissingError, open_store

SLOTS = 16
BEAT_SECONDS = 4.0
EXPIRY_SECONDS = 15.0
"""How long a heartbeat must stand still before another server may take the slot."""

YIELD_SECONDS = 12.0
"""How long after its last heartbeat an owner still counts itself as one: less than a challenger waits."""

KEPT_BEATS = 75
"""Heartbeats that stay: five minutes of them, so that an owner who slept finds itself replaced."""

TAKEN_AT_ONCE = 4
"""Free slots taken in one round, so that servers which start together share them."""

RELEASED = b"released"

_log = structlog.get_logger(__name__)


def slot_of(tenant: str) -> int:
    """The slot a tenant falls into."""
    return xxhash.xxh64_intdigest(tenant.encode()) % SLOTS


class Slots(Protocol):
    """What a relay may publish for."""

    def owns(self, tenant: str) -> bool:
        """Whether this server publishes the tenant's events; never waits."""

    async def run(self) -> None:
        """Keeps and takes slots for ever; cancel it to stop."""

    async def release(self) -> None:
        """Gives up every slot, so that another server need not wait."""


class AllSlots:
    """Every slot: the store is this server's alone."""

    def owns(self, tenant: str) -> bool:
        """Always."""
        return True

    async def run(self) -> None:
        """Nothing to keep."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Nothing to give up."""


@dataclass
class _Slot:
    """What is known of a slot: its newest heartbeat, since when, and whether it is ours."""

    seq: int = -1
    seen: float = 0.0
    mine: bool = False


class LeasedSlots:
    """Slots shared with other servers on the same store.

    Args:
        sink: Names the sink, as for cursors.
        owner: Names this server in its heartbeats, for people who look.
    """

    def __init__(self, config: StoreConfig, sink: str, owner: str) -> None:
        self._store = open_store(config)
        self._prefix = f"{config.raw}/_headrace/relay/{sink}/leases"
        self._owner = owner.encode()
        self._slots = [_Slot() for _ in range(SLOTS)]

    def owns(self, tenant: str) -> bool:
        """Whether our newest heartbeat of the tenant's slot is young enough."""
        slot = self._slots[slot_of(tenant)]
        return slot.mine and time.monotonic() - slot.seen < YIELD_SECONDS

    async def run(self) -> None:
        """Beats for our slots and watches the others."""
        while True:
            started = time.monotonic()
            await asyncio.to_thread(self._round)
            await asyncio.sleep(max(0.0, BEAT_SECONDS - (time.monotonic() - started)))

    async def release(self) -> None:
        """Writes a last heartbeat that says so."""
        await asyncio.to_thread(self._release)

    def _round(self) -> None:
        """One look at every slot; slots that cannot be read are left for the next."""
        room = TAKEN_AT_ONCE
        for number in random.sample(range(SLOTS), SLOTS):
            slot = self._slots[number]
            try:
                if slot.mine:
                    slot.mine = self._beat(number, slot, self._owner)
                elif room and self._is_free(number, slot):
                    slot.mine = self._beat(number, slot, self._owner)
                    room -= slot.mine
            except HeadraceError as error:
                _log.warning("leases cannot be read or kept", slot=number, reason=error.reason)
                return  # The others would only wait for the same store.

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
        return newest < 0 or now - slot.seen > EXPIRY_SECONDS

    def _release(self) -> None:
        for number, slot in enumerate(self._slots):
            if slot.mine:
                slot.mine = False
                try:
                    self._beat(number, slot, RELEASED)
                except HeadraceError as error:
                    _log.warning("leases cannot be released", slot=number, reason=error.reason)
                    return

    def _read(self, number: int, seq: int) -> bytes:
        try:
            return self._store.get(self._key(number, seq))
        except KeyMissingError:
            return b""

    def _key(self, number: int, seq: int) -> str:
        return f"{self._prefix}/{number:02d}/{seq:012d}"
