"""Runs, as calls see them: made, followed, asked for, listed, cancelled.

A run without a request_id ends with its call. One with a request_id is the keeper's: its calls follow it.
"""

import asyncio
import copy
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import structlog
from google.protobuf import json_format

from headrace.v1 import run_pb2, verification_pb2
from headrace_compute.errors import (
    ComputeUnavailableError,
    HeadraceError,
    RunNotFoundError,
)
from headrace_compute.inputs.workers import Progress
from headrace_compute.model import Snapshot, StoreConfig
from headrace_compute.workers.pool import RunExecutor
from headrace_server import metrics
from headrace_server.journal import listing
from headrace_server.rpc import requests
from headrace_server.rpc.run_queue import Place
from headrace_server.rpc.status import to_status
from headrace_server.runs import journals, registry
from headrace_server.runs.inputs import RunRequest, pin_inputs, pin_versions
from headrace_server.runs.job import Job, Response, RunKind, RunResult, lineage_of, outputs_of
from headrace_server.runs.journals import JournaledRun
from headrace_server.runs.keeper import KINDS, Keeper
from headrace_server.runs.live import QUEUED, LiveRun, LiveRuns
from headrace_server.runs.outputs import row_messages, settled
from headrace_server.runs.progress import Reported
from headrace_server.runs.run import begun
from headrace_server.runs.verification import verify
from headrace_server.services import Services

FOLLOW_SECONDS = 1.0
"""How often a run of another server is looked at for those who follow it here."""

CANCEL_SECONDS = 50.0
"""How long CancelRun waits for the end: what it takes to see that a run's server is dead, and then some."""

CANCEL_LOOK_SECONDS = 0.25
"""How often it looks."""

LISTED_RUNS = 100
"""Runs of a list at most; each one's journal is read."""

VERIFICATION = "verification"
"""What a verification under way is called among runs."""

FORGET_SECONDS = 3600.0
"""How often old runs are deleted."""

_log = structlog.get_logger(__name__)


class Runs:
    """The calls about runs, and what goes on beside them. Belongs to one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._live = LiveRuns()
        self.keeper = Keeper(services, self._live)

    async def serve(self, kind: RunKind[Response], request: RunRequest) -> AsyncIterator[Response]:
        """Serves one call that makes a run, or follows it."""
        kind.check(self._services, request)
        steps = self._followed(kind, request) if request.request_id else self._alone(kind, request)
        result: RunResult | None = None
        # Closed at once when the client goes away: a run without a request_id ends with it.
        async with aclosing(steps):
            async for step in steps:
                if not isinstance(step, run_pb2.RunProgress):
                    result = step
                elif not request.omit_progress:
                    yield kind.response(progress=step)
        if result is None:
            raise AssertionError("a run ends with a result, or raises")
        if request.include_rows:
            for output in outputs_of(result):
                async for rows in row_messages(self._services, request.tenant_id, output):
                    yield kind.response(rows=rows)
        yield kind.response(result=result)  # type: ignore[arg-type]  # a kind's result fits its response

    async def cancel(self, request: run_pb2.CancelRunRequest) -> None:
        """Stops a run, and waits for its end.

        Raises:
            RunNotFoundError: There is none.
            RunFinishedError: Its outcome is fixed.
            ComputeUnavailableError: It is still stopping.
        """
        run = await self._find(request.tenant_id, request.request_id)
        run = await asyncio.to_thread(journals.ask_to_stop, self._services.config, run)
        deadline = time.monotonic() + CANCEL_SECONDS
        while not run.is_over:
            if time.monotonic() > deadline:
                raise ComputeUnavailableError(f"Run {run.request_id} is still stopping; call again.")
            await self.keeper.stop(run)
            await asyncio.sleep(CANCEL_LOOK_SECONDS)
            run = await self._find(run.tenant, run.request_id)

    async def get(self, request: run_pb2.GetRunRequest) -> run_pb2.GetRunResponse:
        """Tells where a run stands.

        Raises:
            RunNotFoundError: There is none.
        """
        run = await self._find(request.tenant_id, request.request_id)
        return run_pb2.GetRunResponse(run=self._message(run))

    async def list(self, request: run_pb2.ListRunsRequest) -> run_pb2.ListRunsResponse:
        """A page of a tenant's runs, the newest first.

        Raises:
            InvalidFieldError: page_token is not of a page. The run that it names may be forgotten by now.
        """
        tenant = requests.check_tenant(request.tenant_id)
        if request.page_token and not listing.is_name(request.page_token):
            raise requests.bad_page_token(request.page_token)
        size = min(request.page_size or LISTED_RUNS, LISTED_RUNS)
        alone = {
            listing.name_of(run.started_us, run.run_id): run
            for run in self._live.of_tenant(tenant)
            if not run.request_id
        }
        runs = journals.listed_runs(self._services.config)
        listed = await asyncio.to_thread(runs.page, tenant, request.page_token, size + 1)
        names = [name for name in sorted({*listed, *alone}) if name > request.page_token][: size + 1]
        found = await asyncio.to_thread(
            lambda: {name: self._by_name(tenant, name) for name in names[:size] if name not in alone}
        )
        response = run_pb2.ListRunsResponse(next_page_token=names[size - 1] if len(names) > size else "")
        for name in names[:size]:
            if name in alone:
                response.runs.append(_alone_message(alone[name]))
            elif (run := found[name]) is not None:
                response.runs.append(self._message(run))
        return response

    async def verify(
        self, request: verification_pb2.VerifyTableRequest
    ) -> verification_pb2.VerifyTableResponse:
        """Serves VerifyTable: work as a run's is, which ends with its call."""
        tenant = requests.check_tenant(request.tenant_id)
        live = LiveRun(tenant, VERIFICATION, uuid.uuid4().hex, "", time.time_ns() // 1000)
        with self._services.runs.enter(tenant) as place, self._live.joined(live):
            return await verify(self._services, request, place, live)

    async def forget(self) -> None:
        """Deletes runs that ended long ago, until it is cancelled."""
        config = self._services.config
        seconds = self._services.settings.run_retention_hours * 3600.0
        while True:
            try:
                await asyncio.to_thread(_forget_old, config, seconds)
            except HeadraceError as error:
                _log.warning("old runs are not deleted", reason=error.reason, message=error.message)
            await asyncio.sleep(min(FORGET_SECONDS, seconds))

    async def _alone(
        self, kind: RunKind[Any], request: RunRequest
    ) -> AsyncGenerator[run_pb2.RunProgress | RunResult]:
        """Makes a run that ends with its call: its progress, and then its result."""
        live = LiveRun(request.tenant_id, kind.name, uuid.uuid4().hex, "", time.time_ns() // 1000)
        with self._services.runs.enter(live.tenant) as place, self._live.joined(live):
            run = Reported(live, lambda: self._in_turn(kind, request, place, live))
            async for progress in run.progress():
                yield progress
        yield run.result

    async def _in_turn(
        self, kind: RunKind[Any], request: RunRequest, place: Place, live: LiveRun
    ) -> RunResult:
        """Makes a run when its turn has come; what it reads is fixed when it is asked for."""
        with_items = True
        if not place.is_held:
            request, with_items = await pin_versions(self._services, request)
            await place.turn(live.queue)
            live.begin()
        started = time.monotonic()
        executor = self._services.pool.run_executor(live.tenant, live.run_id)
        inputs = await pin_inputs(self._services, executor, request, with_items=with_items)
        result = await self._perform(executor, kind.job(self._services, request, inputs), live.report)
        metrics.RUN_SECONDS.labels(kind.name).observe(time.monotonic() - started)
        return result

    async def _perform(self, executor: RunExecutor, job: Job, report: Progress) -> RunResult:
        entry = registry.entry_of(job.inputs.tenant, executor.member, job.outputs)
        outputs: list[Snapshot] = []
        async with begun(self._services, executor, entry) as run:
            made = await job.make(executor, run.sink, report, run.admit)
            lineage = lineage_of(job, made)
            report("commit", 0, len(made.tables))
            for table in made.tables:
                outputs.append(await run.commit(table, lineage))
                report("commit", len(outputs), len(made.tables))
            return await settled(self._services, job.inputs.tenant, executor.member, made, outputs)

    async def _followed(
        self, kind: RunKind[Any], request: RunRequest
    ) -> AsyncGenerator[run_pb2.RunProgress | RunResult]:
        """Follows a run with a request_id, begun if there is none: its progress, and then its result."""
        request_id = requests.check_uuid("request_id", request.request_id)
        named = copy.deepcopy(request)
        named.request_id = request_id
        key, told = (request.tenant_id, request_id), run_pb2.RunProgress()
        with self._services.followers.enter(request.tenant_id):
            await self.keeper.begin(kind, named)
            while True:
                self._services.shutdown.check()
                if (live := self._live.find(*key)) is not None:
                    progress = live.progress
                else:
                    run = await self._find(*key)
                    if run.is_over:
                        break
                    progress = _progress(run)
                if progress != told:
                    yield progress
                    told = progress
                await (live.changed(FOLLOW_SECONDS) if live is not None else asyncio.sleep(FOLLOW_SECONDS))
        if run.done is None:
            raise journals.ending(run)
        yield json_format.ParseDict(dict(run.done), kind.result())

    async def _find(self, tenant_id: str, request_id: str) -> JournaledRun:
        tenant = requests.check_tenant(tenant_id)
        name = requests.check_uuid("request_id", request_id)
        run = await self.keeper.load((tenant, name))
        if run is None:
            raise RunNotFoundError(f"Tenant {tenant} has no run {name}.", {"request_id": name})
        return run

    def _by_name(self, tenant: str, name: str) -> JournaledRun | None:
        """A run by its name in the list; None if it never began, or is being deleted."""
        request_id = listing.id_of(name)
        run = journals.load(self._services.config, tenant, request_id)
        return run if run is not None and listing.name_of(run.started_us, request_id) == name else None

    def _message(self, run: JournaledRun) -> run_pb2.Run:
        live = self._live.find(run.tenant, run.request_id)
        message = run_pb2.Run(
            run_id=run.run_id,
            request_id=run.request_id,
            kind=run.kind,
            state=_state(run, is_left=self.keeper.is_left(run)),
            progress=live.progress if live is not None else _progress(run),
            attempts=run.begun,
        )
        message.start_time.FromMicroseconds(run.started_us)
        if run.is_over:
            message.end_time.FromMicroseconds(run.ended_us)
        if run.done is not None:
            result = json_format.ParseDict(dict(run.done), KINDS[run.kind].result())
            getattr(message, run.kind).CopyFrom(result)  # The fields are named for the kinds.
        elif run.failure is not None:
            message.error.CopyFrom(to_status(journals.ending(run), ""))
        return message


def _alone_message(run: LiveRun) -> run_pb2.Run:
    message = run_pb2.Run(
        run_id=run.run_id,
        kind=run.kind,
        state=run_pb2.RUN_STATE_QUEUED if run.is_queued else run_pb2.RUN_STATE_RUNNING,
        progress=run.progress,
        attempts=0 if run.is_queued else 1,
    )
    message.start_time.FromMicroseconds(run.started_us)
    return message


def _progress(run: JournaledRun) -> run_pb2.RunProgress:
    if run.is_queued:
        return run_pb2.RunProgress(stage=QUEUED, queue_place=run.queue_place)
    stage, done, total = run.progress
    return run_pb2.RunProgress(stage=stage, shards_done=done, shards_total=total)


def _state(run: JournaledRun, *, is_left: bool) -> run_pb2.RunState.ValueType:
    if run.done is not None:
        return run_pb2.RUN_STATE_DONE
    if run.failure is not None:
        return run_pb2.RUN_STATE_FAILED
    if run.is_over:
        return run_pb2.RUN_STATE_CANCELLED
    if run.commit is not None:
        return run_pb2.RUN_STATE_COMMITTING
    if run.is_cancelling:
        return run_pb2.RUN_STATE_CANCELLING
    if is_left:
        return run_pb2.RUN_STATE_WAITING
    return run_pb2.RUN_STATE_QUEUED if run.is_queued else run_pb2.RUN_STATE_RUNNING


def _forget_old(config: StoreConfig, older_than_seconds: float) -> None:
    """Deletes runs that ended so long ago."""
    index = journals.listed_runs(config)
    # By this server's clock, which only saves reading the young ones; the store's decides.
    oldest_kept = listing.name_of(time.time_ns() // 1000 - int(older_than_seconds * 1e6), "")
    for tenant in index.tenants():
        for name in index.of_tenant(tenant):
            if name > oldest_kept and journals.forget(config, tenant, name, older_than_seconds):
                _log.info("run forgotten", tenant=tenant, request_id=listing.id_of(name))
