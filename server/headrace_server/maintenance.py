"""Background maintenance of tables with many commits, one task at a time.

The server that commits a version with a round number maintains the table, so only one of several servers
does. If a crash or a conflict prevents it, the next round number makes up for it.
"""

import asyncio
import time
import uuid

import structlog

from headrace_compute.delta import maintenance as upkeep
from headrace_compute.errors import HeadraceError
from headrace_compute.workers.pool import Pool
from headrace_server import metrics

COMPACT_VERSIONS = 64

CHECKPOINT_VERSIONS = 100
"""Delta's own interval."""

REST = 3.0
"""It pauses for this many times the duration of the last task: a table with a long log costs more to open."""

_log = structlog.get_logger(__name__)


class Maintenance:
    """Compaction and checkpoints of the tables that this server writes.

    Args:
        pool: Workers, of which it occupies one at most.
        code_version: Goes into the commits.
    """

    def __init__(self, pool: Pool, code_version: str) -> None:
        self._pool = pool
        self._code_version = code_version
        self._compact: dict[str, None] = {}
        self._checkpoint: dict[str, int] = {}
        self._news = asyncio.Event()

    def committed(self, table_key: str, version: int) -> None:
        """Tells of a commit; never waits."""
        if version % COMPACT_VERSIONS == 0:
            self._compact[table_key] = None
        if version % CHECKPOINT_VERSIONS == 0:
            self._checkpoint[table_key] = version
        if self._compact or self._checkpoint:
            self._news.set()

    async def run(self) -> None:
        """Works for ever; cancel it to stop."""
        while True:
            await self._news.wait()
            started = time.monotonic()
            try:
                await self._step()
            except HeadraceError as error:
                _log.warning("maintenance is put off", reason=error.reason, message=error.message)
            except Exception:
                # A fault in one table must not end the care for all others.
                _log.exception("maintenance failed")
            await asyncio.sleep(REST * (time.monotonic() - started))

    async def _step(self) -> None:
        if self._checkpoint:
            key = next(iter(self._checkpoint))
            await self._pool.run(upkeep.checkpoint, key, self._checkpoint.pop(key))
        elif self._compact:
            key = next(iter(self._compact))
            del self._compact[key]
            version = await self._pool.run(upkeep.compact, key, str(uuid.uuid4()), self._code_version)
            if version is not None:
                metrics.COMPACTIONS.inc()
                self.committed(key, version)
        else:
            self._news.clear()
