"""Who works for a pool: which workers start, are in rotation, are lost, and come back.

A worker joins the rotation when it has answered that it is ready, and leaves it when a call to it fails, or
the node it runs on cannot be reached. Ray starts it anew where it finds room, and it joins again: until then
nobody waits for it.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace_compute.backoff import Backoff
from headrace_compute.errors import ComputeUnavailableError
from headrace_compute.fair_queue import FairQueue
from headrace_compute.workers.cluster import NodeAddress, nodes, ray, ray_errors
from headrace_compute.workers.placement import mismatch

DESERTED_SECONDS = 30.0
"""How long there may be no worker at all before those who wait for one are told."""

LOOK_SECONDS = 2.0
"""How often nodes are looked at; one that fails twice in a row is lost."""

REFUSED_SECONDS = 10.0
"""How long a worker of other versions stays away: its node may be mended, or another one take its place."""

REACH_SECONDS = 1.0
"""How long a node's raylet may take to accept a connection."""

RETURN_PAUSE_SECONDS = (0.2, 2.0)
"""Longest pauses between questions to a worker that is to come back: the first, and any."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """A worker of the pool.

    Attributes:
        actor: None until it has been started.
        node: Where it runs; empty until it has said so.
        gone: Done when it is lost: whoever waits for a result of it need not wait for Ray to notice.
        fault: What keeps it from being ready, as far as that is known; a sentence.
        is_refused: Whether that is its version.
    """

    number: int
    actor: Any = None
    state: Literal["starting", "idle", "busy", "lost"] = "starting"
    node: str = ""
    fault: str = ""
    is_refused: bool = False
    gone: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True)
class Strength:
    """How many workers there are.

    Attributes:
        wanted: As many as there should be.
        idle, busy: Those in rotation.
        starting, lost: Those that are not there yet, or any more.
        returns: How often one has been lost and come back.
    """

    wanted: int
    idle: int
    busy: int
    starting: int
    lost: int
    returns: int

    @property
    def live(self) -> int:
        """Those that work, or could."""
        return self.idle + self.busy


class Roster:
    """Keeps the rotation. Belongs to one event loop.

    Args:
        start: Starts the worker of a number.
        idle: The rotation: what waits here takes the next idle worker.
    """

    def __init__(self, start: Callable[[int], Awaitable[Any]], idle: FairQueue[Member]) -> None:
        self._start = start
        self._starting = asyncio.Lock()
        self._idle = idle
        self._members: list[Member] = []
        self._retired: set[Member] = set()
        self._nodes: dict[str, NodeAddress] = {}
        self._returns = 0
        self._anybody = asyncio.Event()
        self._deserted: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def strength(self) -> Strength:
        """How many there are now."""
        counts = dict.fromkeys(("idle", "busy", "starting", "lost"), 0)
        for member in self._members:
            counts[member.state] += 1
        return Strength(wanted=len(self._members), returns=self._returns, **counts)

    async def anybody(self, seconds: float) -> bool:
        """Waits until there is a worker in rotation, so long at most; tells whether there is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._anybody.wait()
        return self._anybody.is_set()

    def are_refused(self) -> bool:
        """Whether the versions of all workers are other ones."""
        return all(member.is_refused for member in self._members)

    def fault(self) -> str:
        """What keeps a worker from being ready, as far as that is known; empty if nothing does."""
        return next((member.fault for member in self._members if member.fault), "")

    def resize(self, wanted: int) -> None:
        """Starts workers, or lets some go: first those that are not there, busy ones when they are done."""
        while len(self._members) < wanted:
            taken = {member.number for member in self._members}
            number = next(n for n in range(wanted) if n not in taken)
            member = Member(number)
            self._members.append(member)
            self._spawn(self._join(member))
        dispensable = ("starting", "lost", "idle", "busy")
        for member in sorted(self._members, key=lambda each: dispensable.index(each.state))[
            : max(0, len(self._members) - wanted)
        ]:
            self._members.remove(member)
            if member.state == "busy":
                self._retired.add(member)
            else:
                self._idle.withdraw(member)
                _end(member)
        self._look_for_anybody()

    def took(self, member: Member) -> None:
        """Hears that somebody has a member."""
        member.state = "busy"

    def returned(self, member: Member) -> None:
        """Hears that a member has nothing to do any more."""
        if member in self._retired:
            self._retired.discard(member)
            self._idle.withdraw(member)
            _end(member)
        elif member.state == "busy":
            member.state = "idle"
            self._idle.release(member)

    def lost(self, member: Member) -> None:
        """Takes a member out of rotation until it answers again."""
        if member.state == "lost":
            return
        _log.warning("worker lost", extra={"worker": member.number, "node": member.node})
        self._idle.withdraw(member)
        member.state = "lost"
        if not member.gone.done():
            member.gone.set_result(None)
        self._look_for_anybody()
        if member in self._retired:
            self._retired.discard(member)
            _end(member)
        else:
            self._spawn(self._join(member))

    async def is_node_lost(self, member: Member) -> bool:
        """Whether the node of a member cannot be reached; if so, all that run there are lost.

        What ends a worker does not end its node: an input is not to blame for that.
        """
        if not member.node or await self._reaches(member.node):
            return False
        self._lose_node(member.node)
        return True

    async def watch(self) -> None:
        """Looks at the nodes for ever; cancel it to stop."""
        failed: set[str] = set()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = {member.node for member in self._members if member.state in ("idle", "busy")}
            silent = {node for node in now if not await self._reaches(node)}
            for node in silent & failed:
                self._lose_node(node)
            failed = silent

    def _lose_node(self, node: str) -> None:
        for member in self._members:
            if member.node == node and member.state in ("idle", "busy"):
                self.lost(member)

    async def _reaches(self, node: str) -> bool:
        if node not in self._nodes:
            self._nodes = await asyncio.to_thread(nodes)
        address = self._nodes.get(node)
        return address is None or await asyncio.to_thread(_accepts, address)

    async def _join(self, member: Member) -> None:
        """Waits until a member is ready, however long that takes, and puts it into rotation."""
        was_lost = member.state == "lost"
        backoff = Backoff(*RETURN_PAUSE_SECONDS)
        while True:
            try:
                await self._have_started(member)
                if self._takes(member, await member.actor.warm.remote()):
                    break
                await asyncio.sleep(REFUSED_SECONDS)
            except ray_errors.ActorDiedError as error:
                # Ray does not start it again: its first start has failed.
                self._note(member, f"A worker does not start: {str(error).strip().splitlines()[-1]}")
                member.actor = None
            except (ray_errors.RayError, ConnectionError):
                pass
            if member not in self._members:
                return
            pause = backoff.failed()
            assert pause is not None  # It never gives up.
            await asyncio.sleep(pause)
        if member not in self._members:
            return
        if was_lost:
            self._returns += 1
            _log.info("worker is back", extra={"worker": member.number, "node": member.node})
        member.gone = asyncio.get_running_loop().create_future()
        member.state = "idle"
        self._idle.release(member)
        self._look_for_anybody()

    async def _have_started(self, member: Member) -> None:
        """Has a member started if it is not; one after the other, so that their numbers follow each other."""
        async with self._starting:
            if member.actor is None and member in self._members:
                member.actor = await self._start(member.number)
        if member not in self._members:
            _end(member)

    def _takes(self, member: Member, found: Any) -> bool:
        """Whether a worker that is ready has our versions. Who has not is ended."""
        fault = mismatch(found)
        member.is_refused = bool(fault)
        if fault:
            self._note(member, fault)
            _end(member)
            member.actor = None
            return False
        member.node, member.fault = found["node"], ""
        return True

    def _note(self, member: Member, fault: str) -> None:
        """Logs what keeps a member from being ready, when it is news."""
        if fault != member.fault:
            _log.error("worker is not ready", extra={"worker": member.number, "cause": fault})
        member.fault = fault

    def _look_for_anybody(self) -> None:
        """Begins to count the time in which there is nobody, or ends it."""
        if any(member.state in ("idle", "busy") for member in self._members):
            self._anybody.set()
            if self._deserted is not None:
                self._deserted.cancel()
                self._deserted = None
            return
        self._anybody.clear()
        if self._deserted is None:
            self._deserted = asyncio.get_running_loop().call_later(DESERTED_SECONDS, self._tell_deserted)

    def _tell_deserted(self) -> None:
        """Ends the waiting of all who wait for a worker, and goes on doing so while there is none."""
        self._idle.fail(_nobody)
        self._deserted = asyncio.get_running_loop().call_later(1.0, self._tell_deserted)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _end(member: Member) -> None:
    if member.actor is not None:
        ray.kill(member.actor)


def _nobody() -> ComputeUnavailableError:
    return ComputeUnavailableError(
        f"There has been no worker for {DESERTED_SECONDS:.0f} seconds: the cluster has lost the nodes that "
        "they ran on, or has no CPU free. Try again when it has."
    )


def _accepts(address: NodeAddress) -> bool:
    with suppress(OSError), socket.create_connection(address, REACH_SECONDS):
        return True
    return False
