"""Health checks: run in the background, answered at once.

Checks may hang on a dead disk or network, so no caller waits for one: a task
asks every `INTERVAL_SECONDS` and callers read the last answer, which counts as
failed once it is too old.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

from headrace.v1 import health_pb2
from headrace_compute.errors import HeadraceError, StoreFullError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.interface import ObjectStore
from headrace_compute.objects.store import open_store
from headrace_compute.workers.cluster import Cluster
from headrace_compute.workers.roster import Strength
from headrace_server.settings import Settings

INTERVAL_SECONDS = 1.0
STORE_STALE_SECONDS = 4.5
"""An answer of the store older than this counts as failed: a hanging store must show within five seconds."""

WORKERS_STALE_SECONDS = 10.0
"""The same for Ray's answer, which takes longer when every core is busy."""

FULL_BYTES = 64 << 20
"""A store with less room than this is full: an upload's block may need as much."""

LOST_SECONDS = 45.0
"""A cluster that was joined, and has been silent for so long, is gone: a restart may find another."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Health:
    """One answer: what works.

    Attributes:
        full: Whether the store is full, or nearly; what is stored can be read.
        workers: Whether Ray answers.
        strength: How many workers there are.
    """

    store: bool
    full: bool
    events: bool
    workers: bool
    strength: Strength

    @property
    def status(self) -> str:
        """Healthy, degraded or unhealthy.

        Degraded: events are delayed, the store is full, or fewer than half of the workers are there.
        Unhealthy: calls answer UNAVAILABLE.
        """
        if not (self.store and self.workers and self.strength.live):
            return "unhealthy"
        whole = self.events and not self.full and 2 * self.strength.live >= self.strength.wanted
        return "healthy" if whole else "degraded"


class Probe(HealthServicer):  # type: ignore[misc]  # grpcio's package is not typed
    """grpc.health.v1, with List, which grpcio's has for its threads only.

    Args:
        services: Names of the services that have a status, besides the server itself.
    """

    def __init__(self, *services: str) -> None:
        super().__init__()
        self._services = ("", *services)

    async def List(self, request: HealthListRequest, context: Any) -> HealthListResponse:
        """The status of each service."""
        statuses = {
            name: await self.Check(HealthCheckRequest(service=name), context) for name in self._services
        }
        return HealthListResponse(statuses=statuses)


class HealthMonitor:
    """Runs the checks and keeps the newest answer.

    It asks from threads of its own: those that calls block on the store may all be taken.

    Args:
        cluster: Where the workers are.
        events_alive: Tells at once whether events are being published.
        strength: Tells at once how many workers there are.
    """

    def __init__(
        self,
        config: StoreConfig,
        cluster: Cluster,
        events_alive: Callable[[], bool],
        strength: Callable[[], Strength],
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._events_alive = events_alive
        self._strength = strength
        self._store_seen = self._workers_seen = time.monotonic()
        self._store_failed = self._store_full = False
        self._workers_lost = ""
        self._said: dict[str, bool] = {}
        self._asking = {name: ThreadPoolExecutor(1, f"health-{name}") for name in ("store", "workers")}

    def current(self) -> Health:
        """The newest answer; never waits."""
        now = time.monotonic()
        return Health(
            store=not self._store_failed and now - self._store_seen < STORE_STALE_SECONDS,
            full=self._store_full,
            events=self._events_alive(),
            workers=not self._workers_lost and now - self._workers_seen < WORKERS_STALE_SECONDS,
            strength=self._strength(),
        )

    async def watch(self, probe: HealthServicer, service: str) -> None:
        """Asks for ever, and keeps grpc.health.v1 in step; cancel it to stop.

        Args:
            probe: The grpc.health.v1 servicer.
            service: Full name of our service; the empty name stands for the whole server.
        """
        await asyncio.gather(self._watch_store(), self._watch_workers(), self._tell(probe, service))

    async def workers_lost(self) -> str:
        """Waits until the workers are gone for good; returns how that is known.

        A local Ray is judged by its processes, never by how slowly it answers; a cluster that was joined
        by its answers alone.
        """
        while not self._workers_lost:
            silent = time.monotonic() - self._workers_seen
            if name := self._cluster.lost():
                self._workers_lost = f"Ray's process {name} has ended"
            elif not self._cluster.is_local and silent > LOST_SECONDS:
                self._workers_lost = f"Ray has not answered for {silent:.0f} seconds"
            else:
                await asyncio.sleep(INTERVAL_SECONDS)
        return self._workers_lost

    async def _tell(self, probe: HealthServicer, service: str) -> None:
        while True:
            now = self.current()
            self._changed("events", now.events, "events are delivered" if now.events else "events wait")
            serving = now.status != "unhealthy"
            status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
            for name in ("", service):
                await probe.set(name, status)
            await asyncio.sleep(INTERVAL_SECONDS)

    def _changed(self, what: str, is_well: bool, event: str, **facts: str) -> None:
        """Logs how something is when that is news: at the start, and at each change."""
        if self._said.get(what) is not is_well:
            (_log.info if is_well else _log.error)(event, **facts)
        self._said[what] = is_well

    async def _watch_store(self) -> None:
        store = open_store(self._config)
        while True:
            failure = None
            try:
                full = await self._ask("store", partial(_is_full, store))
                self._store_seen = time.monotonic()
                if full != self._store_full:
                    (_log.error if full else _log.info)(
                        "the store is full" if full else "the store has room again"
                    )
                self._store_full = full
            except HeadraceError as error:
                failure = error
            if failure is None:
                self._changed("store", True, "the store answers")
            else:
                self._changed(
                    "store",
                    False,
                    "the store does not answer",
                    reason=failure.reason,
                    message=failure.message,
                )
            self._store_failed = failure is not None
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _watch_workers(self) -> None:
        while True:
            if await self._ask("workers", self._cluster.answers):
                self._workers_seen = time.monotonic()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _ask(self, name: str, question: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._asking[name], question)


def _is_full(store: ObjectStore) -> bool:
    """Asks whether a store that serves has no room left; raises what keeps it from serving."""
    try:
        store.probe()
    except StoreFullError:
        return True
    free = store.free_bytes()
    return free is not None and free < FULL_BYTES


def health_message(settings: Settings, health: Health) -> health_pb2.CheckHealthResponse:
    """How the server is."""
    message = health_pb2.CheckHealthResponse(
        status=health.status,
        service=settings.service_name,
        version=settings.version,
        kafka_connected=health.events,
        s3_connected=health.store,
        store_full=health.full,
        workers_wanted=health.strength.wanted,
        workers_live=health.strength.live,
        workers_busy=health.strength.busy,
        workers_lost=health.strength.lost,
        mode="cluster" if settings.s3_endpoint else "embedded",
    )
    message.timestamp.GetCurrentTime()
    return message
