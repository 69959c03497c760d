"""What handlers need, wired up once in `main.py`."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from headrace_compute.model import Kind, Part, StoreConfig
from headrace_compute.pool import Pool
from headrace_compute.storage import tables
from headrace_compute.storage.tail import Addition, Tail
from headrace_server import metrics
from headrace_server.events.outbox import Outbox
from headrace_server.maintenance import Maintenance
from headrace_server.settings import Settings


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
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

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
