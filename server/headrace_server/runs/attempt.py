"""An attempt at a run with a request_id: from its first stage to its run's end, unless others have it."""

import asyncio
import time
from typing import Any

import structlog
from google.protobuf import json_format

from headrace_compute.errors import HeadraceError, UnavailableError
from headrace_compute.workers.pool import Executor
from headrace_server import metrics
from headrace_server.rpc.run_queue import Place
from headrace_server.runs import finish, journals
from headrace_server.runs.inputs import pin_inputs
from headrace_server.runs.job import Job, RunKind, lineage_of, made_to_json
from headrace_server.runs.journals import DRAINING, JournaledRun, OvertakenError
from headrace_server.runs.live import LiveRun
from headrace_server.runs.registry import RunEntry
from headrace_server.runs.run import Run, begun
from headrace_server.runs.tenure import Tenure
from headrace_server.services import Services

_log = structlog.get_logger(__name__)


class Attempt:
    """The newest attempt at a run, which owns it.

    Args:
        run: The run; the last of its attempts is this one.
        job: What it is to make; None if others were at work on it before: their parts go first, and what they
            read is pinned again.
        place: Its place, which it may have to wait for.
        live: Told how far it has come.
    """

    def __init__(
        self,
        services: Services,
        run: JournaledRun,
        kind: RunKind[Any],
        job: Job | None,
        place: Place,
        live: LiveRun,
    ) -> None:
        self._services = services
        self._kind = kind
        self._job = job
        self._place = place
        self._live = live
        self._run = run
        self._tenure = Tenure(services.config, run, live)
        self._facts = {"tenant": run.tenant, "request_id": run.request_id, "run_id": run.run_id}

    async def work(self) -> None:
        """Brings the run to its end, or leaves it to others; raises nothing but a cancellation."""
        try:
            await self._work()
            _log.info("run ended", **self._facts)
        except asyncio.CancelledError:
            await asyncio.shield(self._services.spawn(self._leave(DRAINING)))
            raise
        except Exception as error:
            try:
                await self._stop(error)
            except HeadraceError as cause:
                # Its journal stands still from now on, which is how others hear of it.
                _log.warning("the run's journal cannot be reached", reason=cause.reason, **self._facts)

    async def _work(self) -> None:
        holding = asyncio.create_task(self._tenure.hold())
        performing = asyncio.create_task(self._in_turn())
        try:
            await asyncio.wait({holding, performing}, return_when=asyncio.FIRST_COMPLETED)
            if not performing.done():
                await holding
            await performing
        finally:
            holding.cancel()
            performing.cancel()
            await asyncio.gather(holding, performing, return_exceptions=True)

    async def _in_turn(self) -> None:
        """Does the work when its turn has come."""
        if self._run.is_queued:
            await self._place.turn(self._live.queue)
            self._run = await self._tenure.append("epoch", {"attempt": self._run.attempts[-1]})
            self._live.begin()
        started = time.monotonic()
        await self._perform()
        metrics.RUN_SECONDS.labels(self._kind.name).observe(time.monotonic() - started)

    async def _perform(self) -> None:
        run, attempt = self._run, self._run.attempts[-1]
        executor = self._services.pool.run_executor(run.tenant, attempt)
        job = self._job or await self._pin(executor)
        entry = RunEntry(run.tenant, attempt, job.outputs, run.run_id, run.request_id)
        async with begun(self._services, executor, entry) as entered:
            made = await job.make(executor, entered.sink, self._live.report, entered.admit)
            body = {
                **made_to_json(made),
                "attempt": attempt,
                "lineage": lineage_of(job, made),
            }
            entered.hand_over()
            settling = asyncio.ensure_future(self._settle(body, entered))
            try:
                await asyncio.shield(settling)
            except asyncio.CancelledError:
                await asyncio.wait({settling})
                raise

    async def _settle(self, body: dict[str, Any], entered: Run) -> None:
        """Fixes what the run wrote, and makes the commits."""
        try:
            run = await self._tenure.append("commit", body)
            await finish.roll_forward(self._services, run, self._kind, self._live.report, verified=True)
        except OvertakenError:
            entered.take_back()
            raise
        except HeadraceError as error:
            if not isinstance(error, UnavailableError):
                ended = await finish.fail(self._services, self._run, error)
                if ended is not None and ended.failure is not None:
                    entered.take_back()
            raise

    async def _pin(self, executor: Executor) -> Job:
        run, services = self._run, self._services
        await finish.clear_attempts(services, run)
        request = json_format.ParseDict(dict(run.request), self._kind.request(tenant_id=run.tenant))
        inputs = await pin_inputs(services, executor, request, with_items=run.with_items)
        return self._kind.job(services, request, inputs)

    async def _stop(self, error: Exception) -> None:
        """Does with the run what its error calls for."""
        if isinstance(error, OvertakenError):
            newest = await asyncio.to_thread(
                journals.load, self._services.config, self._run.tenant, self._run.request_id
            )
            if newest is not None and newest.is_cancelling:
                await finish.conclude(self._services, self._run, "cancelled", {})
            _log.info("run stopped", **self._facts)
            return
        if isinstance(error, UnavailableError):
            _log.warning("run left", reason=error.reason, message=error.message, **self._facts)
            await self._leave(error.reason)
            return
        if not isinstance(error, HeadraceError):
            _log.error("run failed", exc_info=error, **self._facts)
            error = HeadraceError(
                f"Headrace failed at this run; its log has more under {self._run.run_id}.",
                {"correlation_id": self._run.run_id},
            )
        else:
            _log.warning("run failed", reason=error.reason, message=error.message, **self._facts)
        await finish.fail(self._services, self._run, error)

    async def _leave(self, reason: str) -> None:
        """Leaves the run to others, unless its outcome is fixed, or it is to stop."""
        config = self._services.config
        while True:
            newest = await asyncio.to_thread(journals.load, config, self._run.tenant, self._run.request_id)
            if newest is None or newest.attempts != self._run.attempts:
                return
            if newest.is_over or newest.is_cancelling or newest.commit is not None:
                return
            try:
                await asyncio.to_thread(journals.append, config, newest, "rest", {"reason": reason})
                return
            except OvertakenError:
                continue
