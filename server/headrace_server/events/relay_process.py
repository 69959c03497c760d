"""The relay as a child process of the server: starts it, tells it of commits, reads its reports."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from headrace_server import metrics
from headrace_server.events.relay_config import RelayConfig, write_relay_config

SILENT_SECONDS = 4.0
"""A relay that has not reported for so long counts as disconnected."""

READY_SECONDS = 30.0
"""How long a server's start waits to hear of its relay, which may have kernels to compile."""

RESTART_SECONDS = 1.0
STOP_SECONDS = 10.0

_log = structlog.get_logger(__name__)


@dataclass
class _RelayStatus:
    """The newest report of a relay process."""

    at: float = 0.0
    connected: bool = False
    published: dict[str, int] = field(default_factory=dict)
    retries: int = 0


class RelayProcess:
    """Keeps a relay process running and passes commits to it.

    The process may die at any time, whatever the reason: another one goes on from the
    cursors. Nothing here waits for it but `stop`.
    """

    def __init__(self, config: RelayConfig) -> None:
        self._config = config
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._status = _RelayStatus()
        self._reported = asyncio.Event()
        self._stopping = False

    def connected(self) -> bool:
        """Whether events are being delivered, by the relay's newest report; never waits."""
        return self._status.connected and time.monotonic() - self._status.at < SILENT_SECONDS

    def notify(self, tenant: str, table: str) -> None:
        """Tells that a table may have new versions; never waits. A relay that restarts looks by itself."""
        self._tell({"tenant": tenant, "table": table})

    async def start(self) -> None:
        """Starts the process, and from then on keeps one running."""
        self._process = await self._spawn()
        self._keeping = asyncio.create_task(self._keep())

    async def ready(self) -> None:
        """Waits for the first report, so that health is told from the beginning; gives up after a while."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._reported.wait()
        except TimeoutError:
            _log.warning("the relay has not reported yet; events wait for it, and nothing else does")

    async def stop(self) -> None:
        """Lets the relay publish what is left, a few seconds long; the rest comes at the next start."""
        self._stopping = True
        if self._keeping is None:
            return
        self._tell({"stop": True})
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.shield(self._keeping)
        except TimeoutError:
            _log.warning("events are left for the next start")
            if self._process is not None:
                with suppress(ProcessLookupError):
                    self._process.kill()
            await self._keeping

    async def _spawn(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace_server.events", stdin=PIPE, stdout=PIPE
        )
        assert process.stdin is not None
        process.stdin.write(write_relay_config(self._config))
        self._status = _RelayStatus()
        return process

    async def _keep(self) -> None:
        """Listens to the process until it ends; starts another unless it was to end."""
        while self._process is not None:
            await self._listen(self._process)
            status = await self._process.wait()
            if self._stopping:
                return
            _log.error("the relay ended; another one goes on from its cursors", status=status)
            await asyncio.sleep(RESTART_SECONDS)
            self._process = await self._spawn()

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            report = json.loads(line)
            self._count(report["published"], report["retries"])
            metrics.RELAY_LAG_VERSIONS.set(report["lag_versions"])
            metrics.RELAY_LAG_SECONDS.set(report["lag_seconds"])
            metrics.RELAY_CONNECTED.set(report["connected"])
            metrics.RELAY_SLOTS_OWNED.set(report["slots_owned"])
            metrics.RELAY_SLOTS_UNOWNED.set(report["slots_unowned"])
            self._status.at = time.monotonic()
            self._status.connected = report["connected"]
            self._reported.set()

    def _count(self, published: dict[str, int], retries: int) -> None:
        """Adds what is new since the last report of this process."""
        for topic, count in published.items():
            metrics.EVENTS.labels(topic).inc(count - self._status.published.get(topic, 0))
        metrics.RELAY_RETRIES.inc(retries - self._status.retries)
        self._status.published, self._status.retries = published, retries

    def _tell(self, message: dict[str, object]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError, RuntimeError):
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
