"""What handlers need, wired up once in `main.py`."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import structlog

from headrace_compute.errors import HeadraceError
from headrace_compute.model import Kind, Part, StoreConfig
from headrace_compute.pool import Pool
from headrace_compute.storage import tables
from headrace_compute.storage.tail import Addition, Tail
from headrace_compute.turns import Turns
from headrace_server import metrics
from headrace_server.events.outbox import Outbox
from headrace_server.limits import Limit
from headrace_server.maintenance import Maintenance
from headrace_server.settings import Settings
from headrace_server.shutdown import Shutdown
from headrace_server.uploads.live import LiveUploads

GATHERED_BYTES = 64 << 20
"""What all streams together should gather before they cut a block."""

MIN_BLOCK_BYTES = 256 << 10
"""Smaller blocks cost more than they save."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TableCommit:
    """One commit to be made; `headrace_compute.storage.tables.commit` explains the fields."""

    key: str
    kind: Kind
    schema: pa.Schema
    parts: tuple[Part, ...]
    transaction: str
    metadata: Mapping[str, str]
    partition: Mapping[str, str] | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Services:
    """The parts of a running server, passed to every handler."""

    settings: Settings
    config: StoreConfig
    pool: Pool
    outbox: Outbox
    maintenance: Maintenance
    shutdown: Shutdown = field(default_factory=Shutdown)
    live: LiveUploads = field(default_factory=LiveUploads)
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _tasks: set[asyncio.Future[None]] = field(default_factory=set)

    @cached_property
    def uploads(self) -> Limit:
        """Streams of rows under way: Upload and Validate."""
        return Limit("uploads", self.settings.max_uploads, self.settings.max_uploads_per_tenant)

    @cached_property
    def small_calls(self) -> Limit:
        """Small batches under way; one tenant may fill half of the room."""
        most = self.settings.max_small_calls
        return Limit("small calls", most, max(1, most // 2))

    @cached_property
    def places(self) -> Turns[int]:
        """What all streams together may have with the workers: two blocks each, and some to settle."""
        return Turns(range(self.settings.blocks_in_flight or 2 * self.pool.size + 2))

    def block_bytes(self) -> int:
        """Bytes that the next block of a stream should have: less when many streams gather theirs."""
        share = GATHERED_BYTES // max(1, self.uploads.held)
        return min(self.settings.block_bytes, max(MIN_BLOCK_BYTES, share))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something in the background that need not be done; failures are logged."""
        task = asyncio.ensure_future(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def commit(self, tenant: str, commit: TableCommit) -> int:
        """Commits parts to a table and tells the relay; returns the version.

        Commits of this server to one table take turns: losing a race costs more
        than waiting. Races with other servers are settled by the commit itself.
        """
        async with self._locks[commit.key]:
            version = await asyncio.to_thread(
                tables.commit,
                self.config,
                commit.key,
                kind=commit.kind,
                schema=commit.schema,
                parts=commit.parts,
                mode="overwrite" if commit.overwrite else "append",
                transaction=commit.transaction,
                metadata=commit.metadata,
                partition=commit.partition,
            )
        metrics.COMMITS.labels(commit.kind).inc()
        self.outbox.notify(tenant, tables.table_name(commit.key))
        self.maintenance.committed(commit.key, version)
        return version

    async def append(self, tenant: str, tail: Tail, addition: Addition) -> int:
        """Appends a group of small ingests to a table and tells the relay; returns the version.

        Raises:
            RequestsTakenError: Other commits have decided requests that this one claims.
        """
        async with self._locks[tail.table_key]:
            version = await asyncio.to_thread(tail.append, addition)
        metrics.COMMITS.labels(tail.kind).inc()
        self.outbox.notify(tenant, tables.table_name(tail.table_key))
        self.maintenance.committed(tail.table_key, version)
        return version


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except HeadraceError as error:
        _log.warning("background work failed", reason=error.reason, message=error.message)
