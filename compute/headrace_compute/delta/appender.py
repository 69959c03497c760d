"""Appends to a table's log without deltalake, and the index of the requests that they hold.

A commit is the creation of the next log file, which exactly one writer wins. A writer that loses reads
the version committed instead and tries the next number, so every writer has seen all versions below its
own: a request id committed by another server is found before it can be committed again.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
from deltalake import Schema

from headrace_compute.delta import commits
from headrace_compute.delta.actions import WRITER_VERSION, add_action, log_file
from headrace_compute.delta.layout import table_name
from headrace_compute.delta.log import changes_layout, commit_time_us, entries_after, entry_actions, entry_key
from headrace_compute.delta.receipts import Group, Receipt
from headrace_compute.delta.request_index import RequestIndex
from headrace_compute.delta.swap import compare_and_swap
from headrace_compute.errors import WrongTableKindError
from headrace_compute.model import Kind, Part, StoreConfig
from headrace_compute.objects.store import ObjectStore, open_store

MIN_VERSIONS = 200
"""Versions searched for a request id whatever their timestamps say: clocks may be wrong."""

READ_AT_ONCE = 16

HOUR_US = 3_600_000_000


class RequestsTakenError(Exception):
    """Other commits have decided some requests of a group already; `ids` names them."""

    def __init__(self, ids: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(ids)))
        self.ids = ids


@dataclass(frozen=True)
class Addition:
    """What a commit adds to a table.

    Attributes:
        parts: Parts with the values of the table's partition columns.
        claims: Request ids that no other commit may hold.
        metadata: `headrace.*` keys for people and events.
    """

    parts: Sequence[tuple[Part, Mapping[str, str]]]
    group: Group
    claims: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)


class Found(NamedTuple):
    """A request's receipt, and the commit that holds it."""

    version: int
    group: Group
    receipt: Receipt


class _Entry(NamedTuple):
    version: int
    committed_us: int
    group: Group | None
    new_layout: bool


class LogAppender:
    """Follows one table's log and appends to it; methods block and may be called from any thread.

    Args:
        kind: What the table holds; appending makes the table if it is not there.
        schema: Its columns, partition columns included.
    """

    def __init__(
        self,
        config: StoreConfig,
        table_key: str,
        kind: Kind,
        schema: pa.Schema,
        partition: Sequence[str] = (),
    ) -> None:
        self.table_key = table_key
        self.kind = kind
        self._store: ObjectStore = open_store(config)
        self._schema = schema
        self._layout = commits.Change(
            table_key, kind, Schema.from_arrow(schema), [], "append", "", {}, list(partition)
        )
        self._lock = threading.RLock()
        self._index = RequestIndex()
        self._version = -1
        self._durable = -1
        """Newest version known to be on disk: deltalake acknowledges versions that are not."""
        self._covered = 0
        """All versions from this one on are in the index."""

    def append(self, addition: Addition) -> int:
        """Commits, exactly once for each group id; durable when this returns, with the version.

        Raises:
            RequestsTakenError: Other commits hold requests that this one claims; nothing was written.
            WrongTableKindError: The table holds another kind, has other columns or foreign features.
            CommitContendedError: Other writers won every round.
            StoreFullError, StoreUnavailableError: The log cannot be written.
        """
        with self._lock:
            return compare_and_swap(self.table_key, partial(self._swap, addition))

    def find(self, upload_id: str, since_us: int) -> Found | None:
        """The newest receipt of a request.

        Args:
            since_us: How far back to look, by the committers' clocks; what was looked at once stays known.
        """
        with self._lock:
            if not self._open(create=False):
                return None
            self._follow()
            self._cover(since_us)
        for version in self._index.versions(upload_id):
            group = self._read(version).group
            if group is not None and (receipt := group.receipt(upload_id)):
                return Found(version, group, receipt)
        return None

    def may_hold(self, upload_id: str) -> bool:
        """Whether a commit seen so far may hold a request; does no I/O."""
        return bool(self._index.versions(upload_id))

    def has_group(self, group_id: str, since_us: int) -> bool:
        """Whether a group has its commit in this table."""
        with self._lock:
            if not self._open(create=False):
                return False
            self._follow()
            self._cover(since_us)
        return any(self._is_group(version, group_id) for version in self._index.versions(group_id))

    def groups(self, since_us: int) -> list[Group]:
        """The groups that have receipts in this table, oldest first; reads the log again."""
        with self._lock:
            if not self._open(create=False):
                return []
            self._follow()
            newest = self._version
        found = []
        for entry in self._backwards(newest, since_us):
            if entry.group is not None and entry.group.receipts:
                found.append(entry.group)
        return found[::-1]

    def cover(self, since_us: int) -> None:
        """Reads the log back to a time, once."""
        with self._lock:
            if self._open(create=False):
                self._cover(since_us)

    def _open(self, create: bool) -> bool:
        """Finds the newest version and checks the table's layout, once."""
        if self._version >= 0:
            return True
        table = commits.load(self._store, self.table_key)
        if table is None:
            if not create:
                return False
            table = commits.create_table(self._store, self._layout)
        commits.check_table(table, self._layout)
        protocol = table.protocol()
        if protocol.min_writer_version > WRITER_VERSION:
            name = table_name(self.table_key)
            raise WrongTableKindError(
                f"Table {name!r} has Delta writer version {protocol.min_writer_version}; small ingests write "
                f"up to {WRITER_VERSION}. Use Upload for it.",
                {"table": name, "kind": self.kind, "expected": self.kind},
            )
        if not self._covered:
            self._covered = table.version() + 1
        self._version = int(table.version())
        return True

    def _swap(self, addition: Addition) -> int:
        """One round: the version that holds the group, found or written."""
        self._open(create=True)
        if (version := self._follow(addition.group.id)) is not None:
            self._sync(version)
            return version
        self._check_claims(addition.claims)
        return self._create_next(addition)

    def _follow(self, group_id: str = "") -> int | None:
        """Reads the versions that have come since; returns that of a group, if it is among them."""
        found = None
        for version, actions in entries_after(self._store, self.table_key, self._version):
            entry = _entry(version, actions)
            self._note(entry)
            self._version = entry.version
            if entry.group is not None and entry.group.id == group_id:
                found = entry.version
            if entry.new_layout:
                self._version = -1
                self._open(create=False)
                self._version = entry.version
        return found

    def _check_claims(self, claims: frozenset[str]) -> None:
        if not claims:
            return
        self._cover(time.time_ns() // 1000 - HOUR_US)
        taken = frozenset(each for each in claims if self._holds(each))
        if taken:
            raise RequestsTakenError(taken)

    def _holds(self, upload_id: str) -> bool:
        groups = (self._read(version).group for version in self._index.versions(upload_id))
        return any(group is not None and group.receipt(upload_id) for group in groups)

    def _is_group(self, version: int, group_id: str) -> bool:
        group = self._read(version).group
        return group is not None and group.id == group_id

    def _create_next(self, addition: Addition) -> int:
        version = self._version + 1
        actions = [add_action(self.table_key, part, self._schema, values) for part, values in addition.parts]
        info = {**addition.metadata, **addition.group.to_metadata()}
        self._sync(self._version)
        self._store.create(entry_key(self.table_key, version), log_file("WRITE", info, actions))
        self._durable = version
        self._note(_Entry(version, 0, addition.group, False))
        self._version = version
        return version

    def _sync(self, version: int) -> None:
        if version > self._durable:
            self._store.sync(entry_key(self.table_key, version))
            self._durable = version

    def _note(self, entry: _Entry) -> None:
        if entry.group is not None:
            ids = [receipt.upload_id for receipt in entry.group.receipts]
            self._index.add([entry.group.id, *ids], entry.version)

    def _cover(self, since_us: int) -> None:
        for entry in self._backwards(self._covered - 1, since_us):
            self._note(entry)
            self._covered = entry.version

    def _backwards(self, newest: int, since_us: int) -> Iterator[_Entry]:
        """Versions from one down to a time, and at least MIN_VERSIONS below the newest of all.

        Stops only after a whole batch of old versions: a single timestamp may come from a wrong clock.
        """
        oldest = self._version - MIN_VERSIONS
        with ThreadPoolExecutor(READ_AT_ONCE) as threads:
            while newest > 0:
                versions = range(newest, max(newest - READ_AT_ONCE, 0), -1)
                entries = list(threads.map(self._read, versions))
                yield from entries
                if newest < oldest and all(entry.committed_us < since_us for entry in entries):
                    return
                newest = versions[-1] - 1

    def _read(self, version: int) -> _Entry:
        return _entry(version, entry_actions(self._store, self.table_key, version))


def _entry(version: int, actions: Sequence[Mapping[str, Any]]) -> _Entry:
    us, group = 0, None
    for action in actions:
        if info := action.get("commitInfo"):
            us, group = commit_time_us(info), Group.from_info(info)
    return _Entry(version, us, group, changes_layout(actions))
