"""The relay: from the Delta logs to a sink, at least once and in order for each table.

A commit is the only source of its events, so a crash between the two loses nothing:
the relay goes on from its cursor. It looks at a table when told of a commit, and
else now and then, because other servers commit too.
"""

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_compute.storage import tables
from headrace_server.events.cursors import Cursor, Cursors
from headrace_server.events.feed import Feed, Portion
from headrace_server.events.sink import EventSink, UndeliveredError
from headrace_server.events.slots import Slots
from headrace_server.events.style import Style

SCAN_SECONDS = 5.0
"""How often tenants and tables are looked for."""

POLL_SECONDS = (2.0, 30.0)
"""How often a table is looked at unasked: more seldom the longer it told nothing new."""

RETRY_SECONDS = (0.2, 5.0)
"""Pause after a failure: up to the first after one, up to the second after many."""

MEASURE_SECONDS = 1.0

SAVE_SECONDS = 1.0
"""How much publishing a crash may repeat: the cursor is saved that often, and whenever a table is idle."""

Name: TypeAlias = tuple[str, str]
"""Tenant and table."""

_log = structlog.get_logger(__name__)


@dataclass
class Followed:
    """A table being followed.

    Attributes:
        cursor: Where it stands: everything before is acknowledged.
        saved, saved_at: The cursor as the store has it, and since when (monotonic).
        ready: The next portion, read ahead.
        newest: Newest version known of.
        waiting_us: When the oldest unpublished version was committed; None if all are published.
        news_at, due: When it last told something new, when it is looked at again (monotonic).
    """

    feed: Feed
    cursor: Cursor
    saved: Cursor
    saved_at: float = field(default_factory=time.monotonic)
    ready: Portion | None = None
    newest: int = 0
    waiting_us: int | None = None
    news_at: float = field(default_factory=time.monotonic)
    due: float = 0.0


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
    """Publishes what the tables of our slots have to tell."""

    def __init__(
        self, config: StoreConfig, sink: EventSink, cursors: Cursors, slots: Slots, style: Style
    ) -> None:
        self._config = config
        self._sink = sink
        self._cursors = cursors
        self._slots = slots
        self._style = style
        self._followed: dict[Name, Followed] = {}
        self._queue: deque[Name] = deque()
        self._queued: set[Name] = set()
        self._news = asyncio.Event()
        self._failures = 0
        self._idle = asyncio.Event()
        self.counts = Counts()

    @property
    def failing(self) -> bool:
        """Whether the newest attempt to publish failed."""
        return self._failures > 0

    def notify(self, tenant: str, table: str) -> None:
        """Tells that a table may have new versions; never waits."""
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

    async def _scan(self) -> None:
        """Finds tables, and looks again at those that were silent for a while."""
        while True:
            try:
                for name in await asyncio.to_thread(self._names):
                    table = self._followed.get(name)
                    if not self._slots.owns(name[0]):
                        # Another server goes on with it, and its cursor.
                        self._followed.pop(name, None)
                    elif table is None or table.due <= time.monotonic():
                        self._put(name)
            except HeadraceError as error:
                _log.warning("tables cannot be listed", reason=error.reason, message=error.message)
            await asyncio.sleep(SCAN_SECONDS)

    def _names(self) -> list[Name]:
        return [
            (tenant, table)
            for tenant in tables.tenants(self._config)
            for table in tables.table_names(self._config, tenant)
        ]

    async def _measure(self) -> None:
        """Keeps the lag up to date."""
        while True:
            behind = [(name, table) for name, table in self._followed.items() if table.waiting_us is not None]
            try:
                for name, table in behind:
                    key = tables.table_key(self._config, *name)
                    least = max(table.newest, table.cursor.version)
                    table.newest = await asyncio.to_thread(tables.newest_version, self._config, key, least)
            except HeadraceError as error:
                _log.warning("the lag cannot be measured", reason=error.reason)
            waiting = [table for _, table in behind if table.waiting_us is not None]
            self.counts.lag_versions = sum(table.newest - table.cursor.version for table in waiting)
            oldest_us = min((table.waiting_us or 0 for table in waiting), default=None)
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
                self._failures = 0
            except (HeadraceError, UndeliveredError) as error:
                await self._fail(name, error)
                more = True
            if more:
                self._put(name)

    async def _step(self, name: Name) -> bool:
        """Publishes one portion of a table; False if it has nothing more for now."""
        table = self._followed.get(name) or await self._follow(name)
        portion = table.ready or await asyncio.to_thread(table.feed.next)
        table.ready = None
        if portion is None:
            table.waiting_us = None
            await self._save(name, table)
            silent = time.monotonic() - table.news_at
            table.due = time.monotonic() + min(max(silent, POLL_SECONDS[0]), POLL_SECONDS[1])
            return False
        table.news_at = time.monotonic()
        table.newest, table.waiting_us = max(table.newest, portion.newest), portion.committed_us
        # The next portion is read while this one is on its way.
        ahead = asyncio.create_task(asyncio.to_thread(_peek, table.feed))
        try:
            if portion.events is not None:
                await self._sink.publish(portion.topic, portion.events)
                published = self.counts.published
                published[portion.topic] = published.get(portion.topic, 0) + len(portion.events)
        finally:
            table.ready = await ahead
        table.cursor = portion.after
        if time.monotonic() - table.saved_at >= SAVE_SECONDS:
            await self._save(name, table)
        return True

    async def _follow(self, name: Name) -> Followed:
        cursor = await asyncio.to_thread(self._cursors.load, *name)
        table = Followed(Feed(self._config, *name, cursor, self._style), cursor, cursor)
        self._followed[name] = table
        return table

    async def _save(self, name: Name, table: Followed) -> None:
        if table.cursor != table.saved:
            cursor = table.cursor
            await asyncio.to_thread(self._cursors.save, *name, cursor)
            table.saved = cursor
        table.saved_at = time.monotonic()

    async def _fail(self, name: Name, error: Exception) -> None:
        """Waits a while; the table then goes on from what was acknowledged, and nothing but events waits."""
        if table := self._followed.get(name):
            table.feed, table.ready = Feed(self._config, *name, table.cursor, self._style), None
        self._failures += 1
        self.counts.retries += 1
        _log.warning("events are delayed", tenant=name[0], table=name[1], cause=str(error))
        first, most = RETRY_SECONDS
        await asyncio.sleep(random.uniform(first / 2, min(most, first * 2**self._failures)))

    def _put(self, name: Name) -> None:
        if name not in self._queued:
            self._queued.add(name)
            self._queue.append(name)
            self._idle.clear()
            self._news.set()


def _peek(feed: Feed) -> Portion | None:
    """The next portion, if it can be read; if not, the next step asks again and raises."""
    try:
        return feed.next()
    except HeadraceError:
        return None
