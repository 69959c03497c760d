"""The relay: from the Delta logs to a sink, at least once and in order for each table.

A commit is the only source of its events, so a crash between the two loses nothing:
the relay goes on from its cursor. It looks at a table when told of a commit, by its own
server or by another one, and periodically otherwise: what servers tell each other may be lost.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from headrace_compute.backoff import Backoff
from headrace_compute.delta import tables
from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_server.events.cursors import Cursor, Cursors
from headrace_server.events.feed import Feed, FeedBatch
from headrace_server.events.options import EventOptions
from headrace_server.events.peers import Name
from headrace_server.events.sink import EventSink, UndeliveredError
from headrace_server.events.slots import Slots

SCAN_SECONDS = 5.0
"""How often tenants and tables are looked for."""

POLL_SECONDS = (2.0, 30.0)
"""How often a table is polled: less often the longer it has had nothing new."""

RETRY_SECONDS = (0.2, 5.0)
"""Longest pause after a failure: the first after one, the second after many."""

MEASURE_SECONDS = 1.0

SAVE_SECONDS = 1.0
"""How often a cursor is saved; also when its table is idle. A crash repeats what was published since."""

_log = structlog.get_logger(__name__)


@dataclass
class Followed:
    """A table being followed.

    Attributes:
        cursor: Where it stands: everything before is acknowledged.
        saved, saved_at: The cursor as the store has it, and since when (monotonic).
        ready: The next batch, read ahead.
        newest: Newest version known of.
        waiting_us: When the oldest unpublished version was committed; None if all are published.
        news_at, due: When it last told something new, when it is looked at again (monotonic).
    """

    feed: Feed
    cursor: Cursor
    saved: Cursor
    saved_at: float = field(default_factory=time.monotonic)
    ready: FeedBatch | None = None
    newest: int = 0
    waiting_us: int | None = None
    news_at: float = field(default_factory=time.monotonic)
    due: float = 0.0


@dataclass(frozen=True)
class _Lag:
    """How many versions of a table have events to be published, and when the oldest was committed."""

    versions: int
    oldest_us: int


@dataclass
class Counts:
    """What a relay has done since it started, and what is left to do.

    Attributes:
        published: Events by topic.
        lag_versions: Table versions whose events are not all published.
        lag_seconds: Age of the oldest of them.
    """

    published: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    lag_versions: int = 0
    lag_seconds: float = 0.0


class Relay:
    """Publishes the events of the tables in our slots."""

    def __init__(
        self, config: StoreConfig, sink: EventSink, cursors: Cursors, slots: Slots, options: EventOptions
    ) -> None:
        self._config = config
        self._sink = sink
        self._cursors = cursors
        self._slots = slots
        self._options = options
        self._followed: dict[Name, Followed] = {}
        self._nobodys: list[_Lag] = []
        self._queue: deque[Name] = deque()
        self._queued: set[Name] = set()
        self._news = asyncio.Event()
        self._backoff = Backoff(*RETRY_SECONDS)
        self._idle = asyncio.Event()
        self.counts = Counts()

    @property
    def failing(self) -> bool:
        """Whether the newest attempt to publish failed."""
        return self._backoff.failures > 0

    def notify(self, tenant: str, table: str) -> None:
        """Tells that a table may have new versions; never waits. Whoever owns its slot is told."""
        if self._slots.owns(tenant):
            self._put((tenant, table))
        else:
            self._slots.pass_on(tenant, table)

    def _hear(self, tenant: str, table: str) -> None:
        """Hears from another server of a commit, which it made in the belief that the slot is ours."""
        if self._slots.owns(tenant):
            self._put((tenant, table))

    async def drain(self) -> None:
        """Waits until everything told of is published, and the cursors are saved."""
        await self._idle.wait()
        await asyncio.gather(*(self._save(name, table) for name, table in self._followed.items()))

    async def run(self) -> None:
        """Publishes for ever; cancel it to stop."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._scan())
            tasks.create_task(self._measure())
            tasks.create_task(self._work())
            tasks.create_task(self._slots.run(self._hear))

    async def _scan(self) -> None:
        """Finds tables, and looks again at those that were silent for a while."""
        while True:
            self._slots.gained.clear()
            try:
                names = await asyncio.to_thread(self._names)
                for name in names:
                    table = self._followed.get(name)
                    if not self._slots.owns(name[0]):
                        # Another server goes on with it, and its cursor.
                        self._followed.pop(name, None)
                    elif table is None or table.due <= time.monotonic():
                        self._put(name)
                nobodys = [name for name in names if self._slots.is_unowned(name[0])]
                self._nobodys = await asyncio.to_thread(self._lags, nobodys)
            except HeadraceError as error:
                _log.warning("tables cannot be listed", reason=error.reason, message=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(SCAN_SECONDS):
                    await self._slots.gained.wait()

    def _names(self) -> list[Name]:
        return [
            (tenant, table)
            for tenant in tables.tenants(self._config)
            for table in tables.table_names(self._config, tenant)
        ]

    def _lags(self, names: Sequence[Name]) -> list[_Lag]:
        """How far tables that nobody relays are behind."""
        lags = []
        for name in names:
            key, cursor = tables.table_key(self._config, *name), self._cursors.load(*name)
            first = next(iter(tables.log_entries(self._config, key, cursor.version)), None)
            if first is not None:
                newest = tables.newest_version(self._config, key, cursor.version)
                lags.append(_Lag(newest - cursor.version, first.committed_us))
        return lags

    async def _measure(self) -> None:
        """Keeps the lag up to date."""
        while True:
            behind = [(name, table) for name, table in self._followed.items() if table.waiting_us is not None]
            try:
                for name, table in behind:
                    key = tables.table_key(self._config, *name)
                    known = max(table.newest, table.cursor.version)
                    table.newest = await asyncio.to_thread(tables.newest_version, self._config, key, known)
            except HeadraceError as error:
                _log.warning("the lag cannot be measured", reason=error.reason)
            waiting = [table for _, table in behind if table.waiting_us is not None]
            lags = [_Lag(table.newest - table.cursor.version, table.waiting_us or 0) for table in waiting]
            lags += self._nobodys
            self.counts.lag_versions = sum(lag.versions for lag in lags)
            oldest_us = min((lag.oldest_us for lag in lags), default=None)
            self.counts.lag_seconds = 0.0 if oldest_us is None else max(0.0, time.time() - oldest_us / 1e6)
            await asyncio.sleep(MEASURE_SECONDS)

    async def _work(self) -> None:
        while True:
            if not self._queue:
                self._idle.set()
                self._news.clear()
                await self._news.wait()
                continue
            self._idle.clear()
            name = self._queue.popleft()
            self._queued.discard(name)
            if not self._slots.owns(name[0]):
                self._followed.pop(name, None)
                continue
            try:
                more = await self._step(name)
                self._backoff.progressed()
            except (HeadraceError, UndeliveredError) as error:
                await self._fail(name, error)
                more = True
            if more:
                self._put(name)

    async def _step(self, name: Name) -> bool:
        """Publishes one batch of a table; False if it has nothing more for now."""
        table = self._followed.get(name) or await self._follow(name)
        batch = table.ready or await asyncio.to_thread(table.feed.next)
        table.ready = None
        if batch is None:
            table.waiting_us = None
            await self._save(name, table)
            silent = time.monotonic() - table.news_at
            table.due = time.monotonic() + min(max(silent, POLL_SECONDS[0]), POLL_SECONDS[1])
            return False
        table.news_at = time.monotonic()
        table.newest, table.waiting_us = max(table.newest, batch.newest), batch.committed_us
        # The next batch is read while this one is on its way.
        ahead = asyncio.create_task(asyncio.to_thread(_peek, table.feed))
        try:
            if batch.events is not None:
                await self._sink.publish(batch.topic, batch.events)
                published = self.counts.published
                published[batch.topic] = published.get(batch.topic, 0) + len(batch.events)
        finally:
            table.ready = await ahead
        table.cursor = batch.after
        if time.monotonic() - table.saved_at >= SAVE_SECONDS:
            await self._save(name, table)
        return True

    async def _follow(self, name: Name) -> Followed:
        cursor = await asyncio.to_thread(self._cursors.load, *name)
        table = Followed(Feed(self._config, *name, cursor, self._options), cursor, cursor)
        self._followed[name] = table
        return table

    async def _save(self, name: Name, table: Followed) -> None:
        if table.cursor != table.saved:
            cursor = table.cursor
            await asyncio.to_thread(self._cursors.save, *name, cursor)
            table.saved = cursor
        table.saved_at = time.monotonic()

    async def _fail(self, name: Name, error: Exception) -> None:
        """Waits before the next try; the table then resumes behind what was acknowledged."""
        if table := self._followed.get(name):
            table.feed, table.ready = Feed(self._config, *name, table.cursor, self._options), None
        self.counts.retries += 1
        _log.warning("events are delayed", tenant=name[0], table=name[1], cause=str(error))
        await asyncio.sleep(self._backoff.failed() or 0.0)

    def _put(self, name: Name) -> None:
        if name not in self._queued:
            self._queued.add(name)
            self._queue.append(name)
            self._idle.clear()
            self._news.set()


def _peek(feed: Feed) -> FeedBatch | None:
    """The next batch, if it can be read; if not, the next step asks again and raises."""
    try:
        return feed.next()
    except HeadraceError:
        return None
