"""The worker pool: placement, retries and backpressure over Ray actors.

The server awaits `Pool.run(stage, ...)` and gets a value or a typed error; that there is Ray it does not see.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from headrace_compute.backoff import Backoff
from headrace_compute.errors import (
    ComputeUnavailableError,
    HeadraceError,
    PoisonBlockError,
    StoreFullError,
    StoreUnavailableError,
    SuspendedError,
)
from headrace_compute.fair_queue import FairQueue
from headrace_compute.model import StoreConfig
from headrace_compute.workers.actors import BULK_NICENESS, Worker
from headrace_compute.workers.cluster import ClusterError, ray, ray_errors
from headrace_compute.workers.decoders import Decoders
from headrace_compute.workers.held import Held, Origin
from headrace_compute.workers.labels import ActorNames, task_name
from headrace_compute.workers.placement import Site, shortage
from headrace_compute.workers.quarantine import Quarantine
from headrace_compute.workers.roster import Member, Roster, Strength

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 3
"""How often a stage may kill its worker before its input counts as poison."""

LOSSES = 5
"""How often a stage may lose its worker with the worker's node, or a held argument, before it is given up."""

SUBMISSION_THREADS = 4
"""For handing work to Ray: calls that block on the store must not keep it waiting."""

STORE_PATIENCE_SECONDS = 60.0
"""How long the stages of a run wait for a store that does not answer."""

STORE_PAUSE_SECONDS = (0.5, 5.0)
"""Longest pauses meanwhile: the first, and any."""

SHORT_LOOKS = 3
"""After so many looks workers that are not there are told."""

OPEN_LOOK_SECONDS = 0.5
"""How often a start looks why there is no worker yet."""

FOLLOW_SECONDS = 5.0
"""How often the size of the cluster is looked at."""

_NO_ROOM = (
    "There is no room for what lies between two stages; free some on the disk of the workers and retry."
)

_UNREACHABLE = "The workers cannot be reached; try again in a moment."

_log = logging.getLogger(__name__)


class _WorkerDiedError(Exception):
    """A worker died in the middle of a stage, or cannot be reached."""


class _OutOfMemoryError(Exception):
    """A worker ran out of memory in a stage; it lives on."""


class _ArgumentLostError(Exception):
    """A held argument of a stage was lost, with the node that had it."""


@dataclass(frozen=True)
class _Keep:
    """That what a stage gives stays with Ray: one value (None), or each of so many."""

    count: int | None

    def method(self, actor: Any, name: str) -> Any:
        """What to call of the worker."""
        if self.count is None:
            return actor.hold.options(name=name)
        return actor.hold_each.options(name=name, num_returns=1 + self.count)


class _Stage:
    """One stage on its worker, as far as it can be cancelled."""

    def __init__(self) -> None:
        self._task: Any = None
        self._is_unwanted = False

    def begun(self, task: Any) -> None:
        """Ray has it; which may be after nobody wants it any more."""
        self._task = task
        if self._is_unwanted:
            ray.cancel(task)

    def cancel(self) -> None:
        """Tells the worker, which goes on until the stage asks; see `cancellation`."""
        self._is_unwanted = True
        if self._task is not None:
            ray.cancel(self._task)


class Executor:
    """Runs stages on the pool for one stream of one tenant; the pool is fair between executors.

    Args:
        group, member: Whose executor it is, for fair queueing; see FairQueue.
        decoders: Those of the pool, which all executors share.
        attempts: How many workers an input may end before it counts as poison.
    """

    cancels = False
    """Whether a stage that nobody waits for any more is cancelled."""

    def __init__(
        self, pool: "Pool", group: str, member: str, decoders: Decoders, attempts: int = ATTEMPTS
    ) -> None:
        self._pool = pool
        self.group = group
        self.member = member
        self.decoders = decoders
        self.attempts = attempts

    async def run(
        self, stage: Callable[Concatenate[StoreConfig, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `stage(config, *args)` on the next idle worker and returns its result.

        Waits for a worker: unbounded callers are slowed down, not refused.
        `Held` arguments are resolved in the worker.

        Raises:
            HeadraceError: What the stage raised.
            SuspendedError: Input of the group has ended too many processes.
            PoisonBlockError: The worker died at it, or ran out of memory, `attempts` times.
            ComputeUnavailableError: Ray cannot be reached.
        """
        return cast(T, await self._pool.attempt(self, stage, args))

    async def hold(
        self, stage: Callable[Concatenate[StoreConfig, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Held[T]:
        """As `run`, but the result stays with Ray; for what the next stage wants, not the server."""
        (held,) = await self._pool.keep(self, stage, args, None)
        return held

    async def hold_each(
        self,
        count: int,
        stage: Callable[Concatenate[StoreConfig, P], Iterator[Any]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> list[Held[Any]]:
        """As `hold`, for a stage that gives so many values, one after the other: each is held by itself."""
        return await self._pool.keep(self, stage, args, count)

    async def put(self, value: T) -> Held[T]:
        """Places a value that many stages will read into Ray's object store once."""
        return Held(await self._pool.submit(ray.put, value))

    def let_go(self, held: Sequence[Held[Any]]) -> None:
        """Frees the room of held results; what asks for one again has it made again."""
        for result in held:
            result.let_go()

    def began(self, call: asyncio.Future[Any]) -> None:
        """Hears of a stage that a worker has begun."""


class RunExecutor(Executor):
    """Runs the stages of one run.

    No more of them wait than there are workers, who gives up cancels, and a stage that finds the store away
    is tried again for STORE_PATIENCE_SECONDS: a run may have worked for an hour by then.
    """

    cancels = True

    def __init__(self, pool: "Pool", group: str, member: str, decoders: Decoders) -> None:
        super().__init__(pool, group, member, decoders)
        self._room = asyncio.Semaphore(pool.size)
        self._running: set[asyncio.Future[Any]] = set()

    async def run(
        self, stage: Callable[Concatenate[StoreConfig, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As of any executor, with the run's other stages in mind."""
        async with self._room:
            return await _patiently(partial(super().run, stage, *args, **kwargs))

    async def hold(
        self, stage: Callable[Concatenate[StoreConfig, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Held[T]:
        """As of any executor, with the run's other stages in mind."""
        async with self._room:
            return await _patiently(partial(super().hold, stage, *args, **kwargs))

    async def hold_each(
        self,
        count: int,
        stage: Callable[Concatenate[StoreConfig, P], Iterator[Any]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> list[Held[Any]]:
        """As of any executor, with the run's other stages in mind."""
        async with self._room:
            return await _patiently(partial(super().hold_each, count, stage, *args, **kwargs))

    def began(self, call: asyncio.Future[Any]) -> None:
        """Notes a stage that a worker has."""
        self._running.add(call)
        call.add_done_callback(self._running.discard)

    async def ended(self) -> None:
        """Waits until no worker has a stage of this run any more."""
        while self._running:
            await asyncio.wait(self._running)


class Pool(Executor):
    """Workers that come and go with the cluster; each runs one stage at a time.

    As an executor it stands for no stream.

    Args:
        config: Where the workers find the store.
        workers: How many; 0 = as many as the cluster has room for, now and later.
        cpus: What one of them takes of the cluster's CPUs, also in parts; 0 = they run beside those that do,
            and there is room for one on each node.
        max_workers: The most that there are when they follow the cluster; 0 = no more than it has room for.
        is_shared: Whether others use the cluster: then the first worker takes no CPU, so that there is one
            where all CPUs are taken.
        waited: Hears how many seconds a stage has waited for its worker.
        owner: Name of the server, as no other one on the cluster has it; actors are named by it.
        kind: What the workers are for; the same.
        niceness: How far they stand back at least, by nice(2).

    Attributes:
        quarantine: Who has ended workers or decoders of it, by the group of the executor.
    """

    def __init__(
        self,
        config: StoreConfig,
        workers: int = 0,
        cpus: float = 1,
        *,
        max_workers: int = 0,
        is_shared: bool = False,
        waited: Callable[[float], None] = lambda _: None,
        owner: str = "headrace",
        kind: str = "worker",
        niceness: int = BULK_NICENESS,
    ) -> None:
        self._config = config
        self._names = ActorNames(owner, kind)
        self._fixed = workers
        self._cpus = cpus
        self._max_workers = max_workers
        self._is_shared = is_shared
        self._site = Site.of(store_is_shared=config.s3 is not None)
        self._unused = ""
        self._niceness = niceness
        self._waited = waited
        self.size = workers or self._fitting()
        self.quarantine = Quarantine()
        decoders = Decoders(config, self.size, self.quarantine, owner, self._site.demands())
        super().__init__(self, "", "", decoders)
        self._idle: FairQueue[Member] = FairQueue(())
        self._roster = Roster(self._start, self._idle)
        self._submitting = ThreadPoolExecutor(SUBMISSION_THREADS, "ray")

    def executor(self, group: str, member: str, attempts: int = ATTEMPTS) -> Executor:
        """An executor for one stream: callers that share one wait for each other."""
        return Executor(self, group, member, self.decoders, attempts)

    def run_executor(self, group: str, member: str) -> RunExecutor:
        """An executor for one run: stages that the run no longer waits for are cancelled."""
        return RunExecutor(self, group, member, self.decoders)

    def strength(self) -> Strength:
        """How many workers there are."""
        return self._roster.strength()

    async def open(self, seconds: float = math.inf) -> None:
        """Starts the workers, and waits until one is ready; others join as they are.

        Args:
            seconds: How long that may take.

        Raises:
            ClusterError: It has taken longer, or all have other versions than this process.
        """
        self._roster.resize(self.size)
        end = time.monotonic() + seconds
        while not await self._roster.anybody(OPEN_LOOK_SECONDS):
            if self._roster.are_refused():
                raise ClusterError(self._roster.fault())
            if time.monotonic() > end:
                raise ClusterError(f"Waited {seconds:g} s for workers. {await self.shortage()}")

    async def shortage(self) -> str:
        """Why workers are not there, and what to do about it; empty if all are."""
        now = self.strength()
        if now.live >= now.wanted:
            return ""
        return await asyncio.to_thread(
            shortage, now.wanted - now.live, now.wanted, self._cpus, self._roster.fault()
        )

    async def follow(self) -> None:
        """Keeps the workers in step with the cluster for ever; cancel it to stop."""
        watching = asyncio.create_task(self._roster.watch())
        short_looks = 0
        try:
            while True:
                await asyncio.sleep(FOLLOW_SECONDS)
                short_looks = short_looks + 1 if self.strength().live < self.size else 0
                if short_looks == SHORT_LOOKS:
                    _log.warning("workers are missing", extra={"cause": await self.shortage()})
                if self._is_shared:
                    await asyncio.to_thread(self._tell_unused)
                if not self._fixed:
                    self.size = await asyncio.to_thread(self._fitting)
                    self.decoders.raise_limit(self.size)
                    self._roster.resize(self.size)
        finally:
            watching.cancel()

    async def submit(self, hand_over: Callable[..., Any], *args: Any) -> Any:
        """Hands something to Ray, in a thread: serialising a block takes milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._submitting, hand_over, *args)

    async def keep(
        self, executor: Executor, stage: Callable[..., Any], args: tuple[Any, ...], count: int | None
    ) -> list[Held[Any]]:
        """Implements `Executor.hold` (count None: the stage gives one value) and `Executor.hold_each`."""
        attempt = partial(self.attempt, executor, stage, args, _Keep(count))
        return Origin(attempt).hold(await attempt())

    async def attempt(
        self, executor: Executor, stage: Callable[..., Any], args: tuple[Any, ...], keep: _Keep | None = None
    ) -> Any:
        """Implements `Executor.run`; with `keep`, references to what the stage gives."""
        deaths = losses = 0
        while deaths < executor.attempts and losses < LOSSES:
            resolved = await _references(args)
            member = await self._admitted(executor)
            try:
                return await self._entrust(executor, member, stage, resolved, keep)
            except _ArgumentLostError:
                losses += 1
                _log.warning("held results lost", extra={"stage": stage.__name__, "losses": losses})
                await _renew(args, resolved)
            except (_WorkerDiedError, _OutOfMemoryError) as death:
                if isinstance(death, _WorkerDiedError) and await self._roster.is_node_lost(member):
                    losses += 1
                    continue
                deaths += 1
                self.quarantine.died(executor.group)
                cause = "out of memory" if isinstance(death, _OutOfMemoryError) else "unknown"
                told = {"stage": stage.__name__, "tenant": executor.group, "attempt": deaths, "cause": cause}
                _log.warning("worker died", extra=told)
        if deaths < executor.attempts:
            raise ComputeUnavailableError(_UNREACHABLE)
        if deaths >= ATTEMPTS:
            self.quarantine.suspend(executor.group)
        raise PoisonBlockError(
            f"This input ended its worker {deaths} times and is refused; look for extreme values in it."
        )

    def _fitting(self) -> int:
        """How many workers the cluster has room for: by its CPUs, or one a node; blocks."""
        fitting = self._site.fitting(self._cpus)
        return max(1, min(fitting, self._max_workers or fitting))

    def _tell_unused(self) -> None:
        """Logs which nodes can do no work, when it is news; blocks."""
        unused = self._site.unused()
        if unused and unused != self._unused:
            _log.warning(unused)
        self._unused = unused

    async def _start(self, number: int) -> Any:
        cpus = 0 if self._is_shared and number == 0 else self._cpus
        # Over as many nodes as there are: the loss of one leaves the others their work.
        worker = cast(Any, Worker).options(
            name=self._names.next(number),
            num_cpus=cpus,
            resources=self._site.demands(),
            scheduling_strategy="SPREAD",
        )
        # For one that has a name Ray waits until its head has noted it.
        return await asyncio.to_thread(worker.remote, self._config, self._niceness)

    async def _entrust(
        self,
        executor: Executor,
        member: Member,
        stage: Callable[..., Any],
        args: list[Any],
        keep: _Keep | None,
    ) -> Any:
        """Has a member run a stage. Who gives up does not wait; the member is busy until the end."""
        running = _Stage()
        actor, name = member.actor, task_name(stage, executor.group, args)
        method = keep.method(actor, name) if keep else actor.run.options(name=name)
        hand_over = partial(method.remote, stage, *args)
        call = asyncio.ensure_future(self._call(member, hand_over, keep is not None, running))
        call.add_done_callback(partial(self._ended, member))
        executor.began(call)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if executor.cancels:
                running.cancel()
            raise

    async def _admitted(self, executor: Executor) -> Member:
        """The next idle worker, unless input of the tenant was found to be poison while it waited."""
        started = time.monotonic()
        member = await self._idle.acquire(executor.group, executor.member)
        self._waited(time.monotonic() - started)
        self._roster.took(member)
        try:
            self.quarantine.check(executor.group)
        except SuspendedError:
            self._roster.returned(member)
            raise
        return member

    async def _call(self, member: Member, hand_over: Callable[[], Any], keep: bool, running: _Stage) -> Any:
        try:
            if keep:
                *values, done = await self.submit(hand_over)
                running.begun(done)
                await _unless_gone(member, done)
                return values
            result = await self.submit(hand_over)
            running.begun(result)
            return await _unless_gone(member, result)
        except ray_errors.RayTaskError as error:
            if isinstance(error.cause, HeadraceError):
                raise error.cause from None
            if isinstance(error.cause, MemoryError):
                raise _OutOfMemoryError from None
            if isinstance(error.cause, ray_errors.ObjectLostError):
                raise _ArgumentLostError from None
            raise
        except ray_errors.ObjectLostError:
            raise _ArgumentLostError from None
        except (ray_errors.RayActorError, ray_errors.WorkerCrashedError, ray_errors.OutOfMemoryError):
            raise _WorkerDiedError from None
        except (ray_errors.OutOfDiskError, ray_errors.ObjectStoreFullError):
            raise StoreFullError(_NO_ROOM) from None
        except (ray_errors.RayError, ConnectionError) as error:
            raise ComputeUnavailableError(_UNREACHABLE) from error

    def _ended(self, member: Member, call: asyncio.Future[Any]) -> None:
        # Whoever waited has the error; if nobody does any more, it is not news.
        if not call.cancelled() and isinstance(call.exception(), _WorkerDiedError):
            self._roster.lost(member)
        else:
            self._roster.returned(member)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What a stage gives, once the store answers it."""
    backoff = Backoff(*STORE_PAUSE_SECONDS, seconds=STORE_PATIENCE_SECONDS)
    while True:
        try:
            return await call()
        except StoreUnavailableError as error:
            pause = backoff.failed()
            if pause is None:
                raise
            _log.warning("a stage waits for the store", extra={"cause": error.message})
            await asyncio.sleep(pause)


async def _unless_gone(member: Member, result: Any) -> Any:
    """Awaits what a member makes, unless the member is lost before Ray notices."""
    waiting = asyncio.wrap_future(result.future())
    await asyncio.wait((waiting, member.gone), return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        raise _WorkerDiedError
    return waiting.result()


async def _references(args: Sequence[Any]) -> list[Any]:
    """Arguments as Ray takes them; what was let go of them is made again."""
    await asyncio.gather(*(arg.renew(None) for arg in args if isinstance(arg, Held) and arg.ref is None))
    return [arg.ref if isinstance(arg, Held) else arg for arg in args]


async def _renew(args: Sequence[Any], lost: Sequence[Any]) -> None:
    """Has held arguments made anew.

    Raises:
        ComputeUnavailableError: None of them can be.
    """
    held = [(arg, ref) for arg, ref in zip(args, lost, strict=True) if isinstance(arg, Held)]
    if not any(await asyncio.gather(*(arg.renew(ref) for arg, ref in held))):
        raise ComputeUnavailableError(
            "A node was lost with what had been prepared for this call; call again to go on."
        )
