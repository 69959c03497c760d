"""A feed: what one table has to tell, from a cursor on, in portions.

The Delta log is the outbox: a version's events are derived from its log entry and
its parts, and can be derived again, to the same ids and bytes, as long as those exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from headrace_compute.model import StoreConfig
from headrace_compute.storage import tables
from headrace_compute.storage.parts import part_row_groups, read_row_groups
from headrace_compute.storage.store import open_store
from headrace_server.events.batch import EventBatch, concat
from headrace_server.events.cursors import Cursor
from headrace_server.events.payload import TYPES, CommitEvent, Format, commit_event, row_events

PORTION_EVENTS = 65_536
"""About as many events as are gathered before they are published."""

PORTION_VERSIONS = 1_000
"""Versions that go into one portion at most: each costs a look at the log."""

RowEvents = Literal["rows", "commits", "none"]


@dataclass(frozen=True)
class Style:
    """What is published, and how.

    Attributes:
        topics: Topic by table kind.
        rows: What the tables of rows tell: each row, each commit, or nothing.
        format: How payloads are written.
    """

    topics: Mapping[str, str]
    rows: RowEvents = "commits"
    format: Format = "json"

    def tells_rows(self, kind: str) -> bool:
        """Whether a table of this kind has an event for each row."""
        return self.rows == "rows" and kind in ("interactions", "items")

    def tells_nothing(self, kind: str) -> bool:
        """Whether a table of this kind has no events."""
        return kind not in TYPES or (self.rows == "none" and kind in ("interactions", "items"))


@dataclass(frozen=True)
class Portion:
    """Events to be published together.

    Attributes:
        events: None if the versions passed over tell nothing.
        after: Where the table stands once they are published.
        newest: Newest version that was seen.
        committed_us: When the oldest version of the portion was committed.
    """

    topic: str
    events: EventBatch | None
    after: Cursor
    newest: int
    committed_us: int


class Feed:
    """The events of one table after a cursor. `next` blocks: call it in a thread, one at a time."""

    def __init__(self, config: StoreConfig, tenant: str, table: str, after: Cursor, style: Style) -> None:
        self._config = config
        self._tenant = tenant
        self._table = table
        self._key = tables.table_key(config, tenant, table)
        self._after = after
        self._style = style

    def next(self) -> Portion | None:
        """The next portion; None if the table has nothing new.

        Raises:
            HeadraceError: The table cannot be read; the feed stands where it stood.
        """
        gathered: list[EventBatch] = []
        after, first, topic, seen = self._after, None, "", 0
        for entry in tables.log_entries(self._config, self._key, after.version):
            first = first or entry
            topic = self._style.topics.get(entry.kind, "")
            seen += 1
            room = PORTION_EVENTS - sum(map(len, gathered))
            events, groups = self._events(
                entry, after.groups if entry.version == after.version + 1 else 0, room
            )
            gathered += events
            if groups is not None:
                after = Cursor(entry.version - 1, groups)
                break
            after = Cursor(entry.version)
            if sum(map(len, gathered)) >= PORTION_EVENTS or seen == PORTION_VERSIONS:
                break
        if first is None:
            return None
        self._after = after
        return Portion(
            topic=topic,
            events=concat(gathered) if gathered else None,
            after=after,
            newest=first.version + seen - 1,
            committed_us=first.committed_us,
        )

    def _events(
        self, entry: tables.LogEntry, skip_groups: int, room: int
    ) -> tuple[list[EventBatch], int | None]:
        """Events of a version, and how many of its row groups they cover: None if all."""
        if not entry.data_change or self._style.tells_nothing(entry.kind):
            return [], None
        if self._style.tells_rows(entry.kind):
            return self._row_events(entry, skip_groups, room)
        event = CommitEvent(
            tenant=self._tenant,
            table=self._table,
            kind=entry.kind,
            uri=tables.table_uri(self._config, self._key),
            version=entry.version,
            rows=entry.rows_added,
            time_us=entry.committed_us,
            lineage=entry.metadata,
        )
        return [commit_event(event, self._style.format)], None

    def _row_events(
        self, entry: tables.LogEntry, skip_groups: int, room: int
    ) -> tuple[list[EventBatch], int | None]:
        store = open_store(self._config)
        gathered: list[EventBatch] = []
        passed = 0
        for key in entry.files:
            count = part_row_groups(store, key)
            groups = list(range(count))[max(0, skip_groups - passed) :]
            while groups:
                if room <= 0:
                    return gathered, passed + groups[0]
                # Whole row groups, as many as there is room for: one at least.
                some, groups = groups[:4], groups[4:]
                rows: pa.Table = read_row_groups(store, key, some)
                gathered.append(row_events(self._tenant, entry.kind, rows, self._style.format))
                room -= rows.num_rows
            passed += count
        return gathered, None
