"""How the server is: asked in the background, answered at once.

Checks may hang on a dead disk or network, so no caller waits for one: a task
asks every `INTERVAL_SECONDS` and callers read the last answer, which counts as
failed once it is too old.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse

from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_compute.pool import Pool
from headrace_compute.storage.store import open_store

INTERVAL_SECONDS = 1.0
STORE_STALE_SECONDS = 4.5
"""The store's answer counts as none once it is older: what hangs must show within five seconds."""

WORKERS_STALE_SECONDS = 10.0
"""The same for Ray's answer, which takes its time when every core is busy."""

LOST_SECONDS = 30.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Health:
    """One answer: what works."""

    store: bool
    events: bool
    workers: bool

    @property
    def status(self) -> str:
        """healthy, degraded (events are delayed) or unhealthy (calls answer UNAVAILABLE)."""
        if not (self.store and self.workers):
            return "unhealthy"
        return "healthy" if self.events else "degraded"


class HealthMonitor:
    """Keeps the newest answer at hand.

    Args:
        events_alive: Tells at once whether events are being published.
    """

    def __init__(self, config: StoreConfig, pool: Pool, events_alive: Callable[[], bool]) -> None:
        self._config = config
        self._pool = pool
        self._events_alive = events_alive
        self._store_seen = self._workers_seen = time.monotonic()
        self._store_failed = False

    def current(self) -> Health:
        """The newest answer; never waits."""
        now = time.monotonic()
        return Health(
            store=not self._store_failed and now - self._store_seen < STORE_STALE_SECONDS,
            events=self._events_alive(),
            workers=now - self._workers_seen < WORKERS_STALE_SECONDS,
        )

    async def watch(self, probe: HealthServicer, service: str) -> None:
        """Asks for ever, and keeps grpc.health.v1 in step; cancel it to stop.

        Args:
            probe: The grpc.health.v1 servicer.
            service: Full name of our service; the empty name stands for the whole server.
        """
        await asyncio.gather(self._watch_store(), self._watch_workers(), self._tell(probe, service))

    async def workers_lost(self) -> None:
        """Returns when the workers have not answered for `LOST_SECONDS`: a local Ray does not come back."""
        while time.monotonic() - self._workers_seen < LOST_SECONDS:
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _tell(self, probe: HealthServicer, service: str) -> None:
        while True:
            serving = self.current().status != "unhealthy"
            status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
            for name in ("", service):
                await probe.set(name, status)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _watch_store(self) -> None:
        store = open_store(self._config)
        while True:
            try:
                await asyncio.to_thread(store.probe)
                self._store_seen = time.monotonic()
                failure = None
            except HeadraceError as error:
                failure = error
            if failure is not None and not self._store_failed:
                _log.error("the store does not answer", reason=failure.reason, message=failure.message)
            elif failure is None and self._store_failed:
                _log.info("the store answers again")
            self._store_failed = failure is not None
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _watch_workers(self) -> None:
        while True:
            if await self._pool.alive():
                self._workers_seen = time.monotonic()
            await asyncio.sleep(INTERVAL_SECONDS)
