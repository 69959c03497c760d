"""The keeper of runs with a request_id: begins them, and takes up those that others left.

A run goes on whoever still follows it. Each server has a keeper; what it knows lies in the journals alone, so
that any other one can go on where it dies.
"""

import asyncio
import copy
import math
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import structlog
from google.protobuf import json_format

from headrace_compute.errors import (
    HeadraceError,
    IdInUseError,
    OverloadedError,
    PoisonBlockError,
    class_of,
)
from headrace_compute.objects.store import KeyMissingError, open_store
from headrace_server.rpc.run_queue import Place
from headrace_server.runs import finish, journals
from headrace_server.runs.attempt import Attempt
from headrace_server.runs.features import FEATURES
from headrace_server.runs.inputs import RunRequest, pin_inputs, pin_versions, pinned
from headrace_server.runs.job import Job, RunKind
from headrace_server.runs.journals import DRAINING, JournaledRun, OvertakenError
from headrace_server.runs.live import LiveRun, LiveRuns
from headrace_server.runs.negatives import NEGATIVES
from headrace_server.services import Services

WATCH_SECONDS = 3.0
"""How often the runs that are not over are looked at."""

STILL_SECONDS = 12.0
"""How long a journal must stand still, by our own clock, for its run to be taken up: four beats of it."""

DEATHS = 5
"""So many attempts may end with their servers, or because these cannot go on; then nobody tries by itself."""

LEFT_SECONDS = 86_400.0
"""Age of an entry without a run above which nobody is about to open one."""

KINDS: Mapping[str, RunKind[Any]] = {kind.name: kind for kind in (FEATURES, NEGATIVES)}

Key = tuple[str, str]
"""Tenant and request_id."""

_log = structlog.get_logger(__name__)


class Keeper:
    """The runs that have a request_id, as far as this server is at work on them. Belongs to one event loop.

    Args:
        live: Where it lists them.
    """

    def __init__(self, services: Services, live: LiveRuns) -> None:
        self._services = services
        self._config = services.config
        self._live = live
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._works: set[asyncio.Task[None]] = set()
        self._seen: dict[Key, tuple[int, float]] = {}
        # Who has a folder to itself need not wait to see whether somebody else is at work.
        self._is_alone = services.config.s3 is None

    async def load(self, key: Key) -> JournaledRun | None:
        """A run as the store has it."""
        return await asyncio.to_thread(journals.load, self._config, *key)

    async def begin(self, kind: RunKind[Any], request: RunRequest) -> None:
        """Sees to it that somebody is, or has been, at work on what a request asks for.

        Raises:
            IdInUseError: Its id has a run of another kind, or with other parameters.
            OverloadedError: There is no place for one more.
            HeadraceError: Its inputs cannot be pinned.
        """
        key = request.tenant_id, request.request_id
        async with self._lock(key):
            run = await self.load(key)
            if run is None:
                try:
                    await self._open(kind, request)
                    return
                except OvertakenError:
                    run = await self.load(key)
            if run is None or not asks_for(run, kind, request):
                raise IdInUseError(
                    f"Field request_id is {request.request_id}, which belongs to a run with other "
                    "parameters; choose a new id.",
                    {"request_id": request.request_id},
                )
            try:
                if run.may_begin_again:
                    await self._take_up(run)
                elif not run.is_over and (self._is_alone or run.left == DRAINING):
                    await self._go_on(run)
            except OvertakenError:
                pass  # Somebody else was faster.

    def is_left(self, run: JournaledRun) -> bool:
        """Whether a run that is not over is known to have nobody at work on it."""
        key = run.tenant, run.request_id
        return self._live.find(*key) is None and (bool(run.left) or self._stands_still(key, run.next_seq - 1))

    async def stop(self, run: JournaledRun) -> None:
        """Sees to it that a run which is to stop does."""
        key = run.tenant, run.request_id
        if (live := self._live.find(*key)) is not None:
            live.is_unwanted.set()
        elif self._is_alone or run.left or run.is_queued:
            # Where it only waits, whoever owns it has nothing to stop.
            async with self._lock(key):
                await self._go_on(run)

    def leave(self) -> None:
        """Leaves all runs to other servers, or to the next one here."""
        for work in self._works:
            work.cancel()

    async def recover(self) -> None:
        """Takes up what an earlier server left: in a local folder, all runs that are not over."""
        await self._round(at_once=self._is_alone)

    async def watch(self) -> None:
        """Takes up runs whose servers have died, until it is cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not self._services.shutdown.begun.is_set():
                await self._round(at_once=False)

    async def _round(self, *, at_once: bool) -> None:
        """Looks at each run that is not over; what fails is logged, and left for the next round."""
        try:
            keys = await asyncio.to_thread(lambda: list(journals.open_runs(self._config).entries()))
        except HeadraceError as error:
            _log.error("runs are not watched", reason=error.reason, message=error.message)
            return
        self._seen = {key: self._seen[key] for key in keys if key in self._seen}
        left: list[JournaledRun] = []
        for key in keys:
            try:
                if (run := await self._visit(key, at_once)) is not None:
                    left.append(run)
            except (HeadraceError, OvertakenError, KeyMissingError) as error:
                _log.warning("run not looked at", tenant=key[0], request_id=key[1], exc_info=error)
        # They wait for their turn in the order in which they were asked for.
        for run in sorted(left, key=lambda each: each.started_us):
            try:
                await self._go_on_with_left(run)
            except (HeadraceError, OvertakenError, KeyMissingError) as error:
                _log.warning("run not taken up", tenant=run.tenant, request_id=run.request_id, exc_info=error)

    async def _visit(self, key: Key, at_once: bool) -> JournaledRun | None:
        """Looks at a run, and returns it if nobody is at work on it."""
        if self._live.find(*key) is not None:
            return None
        newest = await asyncio.to_thread(journals.journal_of(self._config, *key).newest)
        if newest is None:
            await self._forget(key, at_once)
            return None
        now = time.monotonic()
        seq, _ = self._seen.get(key, (-1, now))
        stands_still = self._stands_still(key, newest.seq)
        if seq != newest.seq:
            self._seen[key] = newest.seq, -math.inf if at_once else now
        is_left = at_once or stands_still
        if not is_left and newest.kind not in ("rest", "done", "failed", "cancelled"):
            return None
        async with self._lock(key):
            run = await self.load(key)
            if run is not None and run.is_over:
                # Who ended it died before it took it out.
                await asyncio.to_thread(journals.open_runs(self._config).remove, *key)
                return None
        return run if run is not None and (is_left or run.left == DRAINING) else None

    def _stands_still(self, key: Key, newest: int) -> bool:
        """Whether the newest record of a run has been that for long."""
        seq, since = self._seen.get(key, (-1, 0.0))
        return seq == newest and time.monotonic() - since > STILL_SECONDS

    async def _go_on_with_left(self, found: JournaledRun) -> None:
        """Goes on with a run that was found left, unless something has become of it since."""
        key = found.tenant, found.request_id
        async with self._lock(key):
            run = await self.load(key)
            if run is not None and run.next_seq == found.next_seq and not run.is_over:
                await self._go_on(run)

    async def _forget(self, key: Key, at_once: bool) -> None:
        """Takes out an entry that never came to a run, once nobody can be about to open one."""
        index = journals.open_runs(self._config)
        age = await asyncio.to_thread(open_store(self._config).age_seconds, index.key(*key))
        if at_once or age > LEFT_SECONDS:
            await asyncio.to_thread(index.remove, *key)

    async def _go_on(self, run: JournaledRun) -> None:
        """Goes on with a run that nobody else is at work on, if there is a place for it."""
        if self._live.find(run.tenant, run.request_id) is not None:
            return
        if run.commit is not None:
            self._begin_work(run, ExitStack(), lambda live: self._finish(run, live))
        elif run.is_cancelling:
            await finish.clear_attempts(self._services, run)
            await finish.conclude(self._services, run, "cancelled", {})
        elif run.deaths >= DEATHS:
            await finish.clear_attempts(self._services, run)
            await finish.fail(self._services, run, _given_up(run))
        else:
            try:
                await self._take_up(run)
            except OverloadedError:
                return  # It has to wait until it may wait.

    async def _open(self, kind: RunKind[Any], request: RunRequest) -> None:
        """Begins a run: pins what it reads, writes its first record, and gets to work when its turn comes.

        Raises:
            OvertakenError: Its id has a run.
        """
        services, tenant = self._services, request.tenant_id
        run_id, attempt = uuid.uuid4().hex, uuid.uuid4().hex
        with ExitStack() as held:
            place = held.enter_context(services.runs.enter(tenant))
            filled, inputs = kind.filled(services, request), None
            if place.is_held:
                inputs = await pin_inputs(services, services.pool.run_executor(tenant, attempt), request)
                exact, with_items = pinned(filled, inputs), inputs.items is not None
            else:
                exact, with_items = await pin_versions(services, filled)
            run = JournaledRun(
                tenant,
                request.request_id,
                run_id,
                kind.name,
                asked_of(request),
                asked_of(exact),
                with_items,
                time.time_ns() // 1000,
                (attempt,),
                is_queued=inputs is None,
                begun=0 if inputs is None else 1,
            )
            await asyncio.to_thread(journals.create, self._config, run)
            job = None if inputs is None else kind.job(services, exact, inputs)
            self._begin_attempt(run, job, place, held.pop_all())

    async def _take_up(self, run: JournaledRun) -> None:
        """Becomes the owner of a run that nobody is at work on, and gets to work when its turn comes.

        Raises:
            OverloadedError: It may not even wait.
            OvertakenError: Somebody else was faster.
        """
        with ExitStack() as held:
            place = held.enter_context(self._services.runs.enter(run.tenant))
            run = await asyncio.to_thread(
                partial(journals.take_up, queued=not place.is_held), self._config, run, uuid.uuid4().hex
            )
            _log.info("run taken up", tenant=run.tenant, request_id=run.request_id, run_id=run.run_id)
            self._begin_attempt(run, None, place, held.pop_all())

    def _begin_attempt(self, run: JournaledRun, job: Job | None, place: Place, held: ExitStack) -> None:
        kind = KINDS[run.kind]
        self._begin_work(run, held, lambda live: Attempt(self._services, run, kind, job, place, live).work())

    def _begin_work(
        self, run: JournaledRun, held: ExitStack, work: Callable[[LiveRun], Coroutine[Any, Any, None]]
    ) -> None:
        """Lists a run as under way here, and has work on it done beside whoever called."""
        live = LiveRun(run.tenant, run.kind, run.run_id, run.request_id, run.started_us)
        held.enter_context(self._live.joined(live))

        async def working() -> None:
            with held:
                await work(live)

        task = asyncio.create_task(working())
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    async def _finish(self, run: JournaledRun, live: LiveRun) -> None:
        """Rolls a run forward that another server, or an earlier one, left amid its commits."""
        facts = {"tenant": run.tenant, "request_id": run.request_id, "run_id": run.run_id}
        try:
            await finish.roll_forward(self._services, run, KINDS[run.kind], live.report)
            _log.info("run rolled forward", **facts)
        except OvertakenError:
            _log.info("run ended elsewhere", **facts)
        except HeadraceError as error:
            _log.error("run not rolled forward", reason=error.reason, message=error.message, **facts)
            if not error.retryable:
                await finish.fail(self._services, run, error)

    def _lock(self, key: Key) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


def _given_up(run: JournaledRun) -> HeadraceError:
    """Why nobody tries a run by itself any more."""
    if run.left:
        return class_of(run.left)(
            f"The run could not go on {run.deaths} times; call again when what is behind it is mended."
        )
    return PoisonBlockError(
        f"Servers ended {run.deaths} times amid this run, so it is not tried again; make it smaller, or look "
        "into their logs."
    )


def asks_for(run: JournaledRun, kind: RunKind[Any], request: RunRequest) -> bool:
    """Whether a request is the one that a run was started with, defaults left out or written out."""
    if run.kind != kind.name or run.asked == asked_of(request):
        return run.kind == kind.name
    try:
        first = json_format.ParseDict(dict(run.asked), kind.request())
    except json_format.ParseError:
        return False  # A newer server's.
    return asked_of(kind.written_out(first)) == asked_of(kind.written_out(request))


def asked_of(request: RunRequest) -> dict[str, Any]:
    """What a request asks for, as JSON: all but whose it is, its id, and how it is to be answered."""
    asked = copy.deepcopy(request)
    for name in ("tenant_id", "request_id", "include_rows", "omit_progress"):
        asked.ClearField(name)
    found: dict[str, Any] = json_format.MessageToDict(asked, preserving_proto_field_name=True)
    return found
