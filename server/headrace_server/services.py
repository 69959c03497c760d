"""The dependencies of handlers, wired up once in `main.py`."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa
import structlog

from headrace_compute.delta import tables
from headrace_compute.delta.appender import Addition, LogAppender
from headrace_compute.errors import HeadraceError
from headrace_compute.fair_queue import FairQueue
from headrace_compute.model import Kind, Part, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.workers.pool import FOLLOW_SECONDS, Pool
from headrace_server import metrics
from headrace_server.events.relay_process import RelayProcess
from headrace_server.maintenance import Maintenance
from headrace_server.room import Room
from headrace_server.rpc.limits import Limit, ReservingLimit
from headrace_server.rpc.live import LiveUploads
from headrace_server.rpc.run_queue import RunQueue
from headrace_server.rpc.shutdown import Shutdown
from headrace_server.rpc.stream_limit import StreamLimit
from headrace_server.settings import Settings

T = TypeVar("T")
Rows = TypeVar("Rows")

GATHERED_BYTES = 48 << 20
"""Bytes that all streams together should gather before they cut a block."""

MIN_BLOCK_BYTES = 256 << 10
"""Smaller blocks cost more than they save."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TableCommit:
    """One commit to be made; `headrace_compute.delta.tables.commit` explains the fields."""

    key: str
    kind: Kind
    schema: pa.Schema
    parts: tuple[Part, ...]
    transaction: str
    metadata: Mapping[str, str]
    partition: Mapping[str, str] | None = None
    overwrite: bool = False
    base: int | None = None

    def make(self, config: StoreConfig) -> int:
        """Makes it, and returns the version; blocks, and tells nobody."""
        return tables.commit(
            config,
            self.key,
            kind=self.kind,
            schema=self.schema,
            parts=self.parts,
            mode="overwrite" if self.overwrite else "append",
            transaction=self.transaction,
            metadata=self.metadata,
            partition=self.partition,
            base=self.base,
        )


@dataclass(frozen=True)
class Services:
    """The parts of a running server, passed to every handler."""

    settings: Settings
    config: StoreConfig
    pool: Pool
    relay: RelayProcess
    maintenance: Maintenance
    shutdown: Shutdown = field(default_factory=Shutdown)
    live: LiveUploads = field(default_factory=LiveUploads)
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _tasks: set[asyncio.Future[None]] = field(default_factory=set)
    _packing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "packing"))

    @cached_property
    def uploads(self) -> StreamLimit:
        """Streams of rows under way: Upload and Validate."""
        return StreamLimit("uploads", self.settings.max_uploads, self.settings.max_uploads_per_tenant)

    @cached_property
    def small_calls(self) -> Limit:
        """Small batches under way, and questions about uploads; one tenant may fill half of the room."""
        maximum = self.settings.max_small_calls
        return Limit("small calls", maximum, max(1, maximum // 2))

    @cached_property
    def reads(self) -> Limit:
        """Streams of stored rows under way: ReadTable and ListRejects."""
        return ReservingLimit("reads", self.settings.max_reads, self.settings.max_reads_per_tenant)

    @cached_property
    def questions(self) -> Limit:
        """ListTables, ValidateSample and GetSchema under way; clients that do not read hold no such place."""
        return Limit("questions", self.settings.max_reads, self.settings.max_reads_per_tenant)

    @cached_property
    def lists(self) -> Limit:
        """Lists of tables that wait or are made, for questions under way and for those given up."""
        return Limit("lists", self.settings.max_reads, self.settings.max_reads_per_tenant)

    @cached_property
    def runs(self) -> RunQueue:
        """Runs under way, features and training sets, and those that wait for their turn."""
        had = self.settings
        queued = had.max_queued_runs, had.max_queued_runs_per_tenant
        return RunQueue(had.max_runs, had.max_runs_per_tenant, *queued)

    @cached_property
    def followers(self) -> Limit:
        """Calls that follow a run with a request_id; the run itself goes on without them."""
        had = self.settings
        total = had.max_reads + had.max_queued_runs
        per_tenant = had.max_reads_per_tenant + had.max_queued_runs_per_tenant
        return ReservingLimit("followed runs", total, per_tenant)

    @cached_property
    def room(self) -> Room:
        """What runs under way may still write."""
        return Room(open_store(self.config))

    @cached_property
    def places(self) -> FairQueue[int]:
        """What all streams together may have with the workers: two blocks each, and some to settle."""
        return FairQueue(range(self._blocks_in_flight()))

    async def follow(self) -> None:
        """Makes places for blocks as workers join, for ever; cancel it to stop."""
        made = self._blocks_in_flight()
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            for place in range(made, self._blocks_in_flight()):
                self.places.add(place)
            made = max(made, self._blocks_in_flight())

    def _blocks_in_flight(self) -> int:
        return self.settings.blocks_in_flight or 2 * self.pool.size + 2

    def block_bytes(self) -> int:
        """Bytes that the next block of a stream should have: less when many streams gather theirs."""
        share = GATHERED_BYTES // max(1, self.uploads.held)
        return min(self.settings.block_bytes, max(MIN_BLOCK_BYTES, share))

    async def packed(self, make: Callable[[Rows], T], rows: Rows) -> T:
        """Makes messages of rows, off the event loop, in one thread for all.

        Making them is Python's work: more threads would get no more of it done, but each would have the event
        loop wait its turn.
        """
        return await asyncio.get_running_loop().run_in_executor(self._packing, make, rows)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Runs something in the background, whatever becomes of the caller; failures are logged."""
        task = asyncio.ensure_future(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self, seconds: float) -> None:
        """Waits for runs, which clear what they wrote, and for what is in the background; at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._tasks or self.runs.held:
                    await asyncio.sleep(0.05)

    async def commit(self, tenant: str, commit: TableCommit) -> int:
        """Commits parts to a table and tells the relay; returns the version.

        Commits of this server to one table are serialised: losing a race costs more
        than waiting. Races with other servers are settled by the commit itself.
        """
        async with self._locks[commit.key]:
            version = await asyncio.to_thread(commit.make, self.config)
        metrics.COMMITS.labels(commit.kind).inc()
        self.relay.notify(tenant, tables.table_name(commit.key))
        self.maintenance.committed(commit.key, version)
        return version

    async def append(self, tenant: str, appender: LogAppender, addition: Addition) -> int:
        """Appends a group of small ingests to a table and tells the relay; returns the version.

        Raises:
            RequestsTakenError: Other commits have decided requests that this one claims.
        """
        async with self._locks[appender.table_key]:
            version = await asyncio.to_thread(appender.append, addition)
        metrics.COMMITS.labels(appender.kind).inc()
        self.relay.notify(tenant, tables.table_name(appender.table_key))
        self.maintenance.committed(appender.table_key, version)
        return version


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except HeadraceError as error:
        _log.warning("background work failed", reason=error.reason, message=error.message)
