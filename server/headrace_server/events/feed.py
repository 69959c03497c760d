"""A feed: the events of one table after a cursor, in batches.

The Delta log is the outbox: a version's events are derived from its log entry and
its parts, and can be derived again, to the same ids and bytes, as long as those exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_compute.delta import tables
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import part_row_groups, read_row_groups
from headrace_server.events.batch import EventBatch, concat
from headrace_server.events.cursors import Cursor
from headrace_server.events.options import EventOptions
from headrace_server.events.payload import CommitEvent, commit_event, row_events

MAX_BATCH_EVENTS = 65_536
"""About as many events as are gathered before they are published."""

MAX_BATCH_BYTES = 64 << 20
"""Bytes of payloads after which no more are gathered: items may have long descriptions."""

MAX_BATCH_VERSIONS = 1_000
"""Versions that go into one batch at most: each costs a look at the log."""


@dataclass(frozen=True)
class FeedBatch:
    """Events to be published together.

    Attributes:
        events: None if the versions passed over have no events.
        after: Where the table stands once they are published.
        newest: Newest version that was seen.
        committed_us: When the oldest version of the batch was committed.
    """

    topic: str
    events: EventBatch | None
    after: Cursor
    newest: int
    committed_us: int


class Feed:
    """The events of one table after a cursor. `next` blocks: call it in a thread, one at a time."""

    def __init__(
        self, config: StoreConfig, tenant: str, table: str, after: Cursor, options: EventOptions
    ) -> None:
        self._config = config
        self._tenant = tenant
        self._table = table
        self._key = tables.table_key(config, tenant, table)
        self._after = after
        self._options = options

    def next(self) -> FeedBatch | None:
        """The next batch; None if the table has nothing new.

        Raises:
            HeadraceError: The table cannot be read; the feed stands where it stood.
        """
        gathered: list[EventBatch] = []
        after, first, topic, seen = self._after, None, "", 0
        for entry in tables.log_entries(self._config, self._key, after.version):
            first = first or entry
            topic = self._options.topics.get(entry.kind, "")
            seen += 1
            skip = after.groups if entry.version == after.version + 1 else 0
            groups = self._gather(entry, skip, gathered)
            if groups is not None:
                after = Cursor(entry.version - 1, groups)
                break
            after = Cursor(entry.version)
            if _full(gathered) or seen == MAX_BATCH_VERSIONS:
                break
        if first is None:
            return None
        self._after = after
        return FeedBatch(
            topic=topic,
            events=concat(gathered) if gathered else None,
            after=after,
            newest=first.version + seen - 1,
            committed_us=first.committed_us,
        )

    def _gather(self, entry: tables.LogEntry, skip_groups: int, gathered: list[EventBatch]) -> int | None:
        """Adds a version's events; how many of its row groups are told then, None if all."""
        if not entry.data_change or self._options.tells_nothing(entry.kind):
            return None
        if self._options.tells_rows(entry.kind):
            return self._gather_rows(entry, skip_groups, gathered)
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
        gathered.append(commit_event(event, self._options.format))
        return None

    def _gather_rows(
        self, entry: tables.LogEntry, skip_groups: int, gathered: list[EventBatch]
    ) -> int | None:
        store = open_store(self._config)
        passed = 0
        for key in entry.files:
            count = part_row_groups(store, key)
            for group in range(max(0, skip_groups - passed), count):
                if _full(gathered):
                    return passed + group
                rows = read_row_groups(store, key, [group])
                gathered.append(row_events(self._tenant, entry.kind, rows, self._options.format))
            passed += count
        return None


def _full(gathered: Sequence[EventBatch]) -> bool:
    """Whether what is gathered should be published before more is."""
    events = sum(map(len, gathered))
    return events >= MAX_BATCH_EVENTS or sum(batch.values.nbytes for batch in gathered) >= MAX_BATCH_BYTES
