"""The relay: from the Delta logs to the event log.

The Delta log is the outbox: a commit is the event's only source, so a crash
between the two loses nothing. The relay goes on after the last version it finds
published, at least once and in order for each table.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog

from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_compute.storage import tables
from headrace_server import metrics
from headrace_server.events.cloudevent import TYPES, CommitEvent
from headrace_server.events.local import EventLog

RETRY_SECONDS = 1.0
FLUSH_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Relay:
    """Publishes commits in the background.

    Args:
        folder: Where the local event log lies.
        topics: Topic by table kind.
    """

    def __init__(self, config: StoreConfig, folder: Path, topics: Mapping[str, str]) -> None:
        self._config = config
        self._folder = folder
        self._topics = topics
        self._pending: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._failing = False

    def alive(self) -> bool:
        """Whether the newest attempt to publish went well."""
        return not self._failing

    def notify(self, tenant: str, table: str) -> None:
        """Tells that a table may have new versions; never waits."""
        self._pending.put_nowait((tenant, table))

    async def flush(self) -> None:
        """Waits a while until everything told of is published; what is left comes at the next start."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._pending.join()
        except TimeoutError:
            _log.warning("events are left for the next start")

    async def run(self) -> None:
        """Publishes for ever: first what a former process left, then what is told of."""
        log = await asyncio.to_thread(EventLog, self._folder)
        published = await asyncio.to_thread(log.published)
        for tenant, table in await asyncio.to_thread(self._all_tables):
            self.notify(tenant, table)
        while True:
            tenant, table = await self._pending.get()
            try:
                after = published.get((tenant, table), -1)
                published[tenant, table] = await asyncio.to_thread(self._publish, log, tenant, table, after)
                self._failing = False
            except (HeadraceError, OSError) as error:
                # Events wait, and nothing else does.
                self._failing = True
                _log.error("events are delayed", tenant=tenant, table=table, exc_info=error)
                await asyncio.sleep(RETRY_SECONDS)
                # What was appended before the fault is found again from the file.
                published = await asyncio.to_thread(log.published)
                self.notify(tenant, table)
            finally:
                self._pending.task_done()

    def _all_tables(self) -> list[tuple[str, str]]:
        return [
            (tenant, name)
            for tenant in tables.tenants(self._config)
            for name, _ in tables.list_tables(self._config, tenant)
        ]

    def _publish(self, log: EventLog, tenant: str, table: str, after: int) -> int:
        """Appends the events of every version after `after`; returns the newest one seen."""
        key = tables.table_key(self._config, tenant, table)
        for entry in tables.log_entries(self._config, key, after):
            after = entry.version
            if entry.kind not in TYPES or not entry.data_change:
                continue
            event = CommitEvent(
                tenant=tenant,
                table=table,
                kind=entry.kind,
                uri=tables.table_uri(self._config, key),
                version=entry.version,
                rows=entry.rows_added,
                time_us=entry.committed_us,
                lineage=entry.metadata,
            )
            topic = self._topics[entry.kind]
            log.append(topic, event.to_json())
            metrics.EVENTS.labels(topic).inc()
        return after
