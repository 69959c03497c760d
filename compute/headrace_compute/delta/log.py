"""Reads the Delta log: one JSON file of actions for each version.

Log cleanup is off for our tables, so every version's file stays.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from headrace_compute.delta.receipts import GROUP, RECEIPTS
from headrace_compute.errors import StoreUnavailableError
from headrace_compute.objects.store import KeyMissingError, ObjectStore

ENTRY_NAME = re.compile(r"[0-9]{20}\.json")

METADATA_PREFIX = "headrace."
"""Our keys in a commit's info; the others belong to Delta and its writers."""

STATISTICS = "headrace.statistics"
"""Key of a commit's info that has the statistics of the version, as JSON."""


class LogEntry(NamedTuple):
    """What one commit did.

    Attributes:
        committed_us: When, by the committer's clock, to the millisecond.
        metadata: Its `headrace.*` keys.
        files: Keys of the files it added, in key order.
        rows_added: Rows of these files, whether they are new or rewritten.
        data_change: False if it only arranged rows anew.
    """

    version: int
    committed_us: int
    kind: str
    metadata: dict[str, str]
    files: tuple[str, ...]
    rows_added: int
    data_change: bool


def entry_key(table_key: str, version: int) -> str:
    """The key of a version's log file."""
    return f"{table_key}/_delta_log/{version:020d}.json"


def newest_entry(store: ObjectStore, table_key: str) -> int:
    """The newest version that has a log file, whether or not all before it have theirs; -1 without any."""
    names = store.children(f"{table_key}/_delta_log")
    return max((int(name[:20]) for name in names if ENTRY_NAME.fullmatch(name)), default=-1)


def commit_info(store: ObjectStore, table_key: str, version: int) -> tuple[int, dict[str, str]]:
    """When a version was committed, in microseconds, and its `headrace.*` metadata.

    Raises:
        StoreUnavailableError: the log file is gone.
    """
    for action in actions_at(store, table_key, version):
        if info := action.get("commitInfo"):
            return commit_time_us(info), _metadata(info)
    return 0, {}


def commit_statistics(store: ObjectStore, table_key: str, version: int) -> str | None:
    """The statistics that a version's commit has, as JSON; None if it has none.

    Raises:
        StoreUnavailableError: the log file is gone.
    """
    infos = (
        action["commitInfo"] for action in actions_at(store, table_key, version) if "commitInfo" in action
    )
    return next((info.get(STATISTICS) for info in infos), None)


def read_kind(store: ObjectStore, table_key: str, kind_property: str) -> str:
    """What a table holds, from the properties in its first version; empty if it does not say."""
    for action in actions_at(store, table_key, 0):
        if found := action.get("metaData"):
            return str(found["configuration"].get(kind_property, ""))
    return ""


def read_entry(store: ObjectStore, table_key: str, version: int, kind: str) -> LogEntry:
    """Sums up what a version did to a table of a kind."""
    committed_us, metadata, rows, data_change = 0, {}, 0, False
    files = []
    for action in actions_at(store, table_key, version):
        if info := action.get("commitInfo"):
            committed_us, metadata = commit_time_us(info), _metadata(info)
        if add := action.get("add"):
            rows += int(json.loads(add["stats"])["numRecords"])
            files.append(f"{table_key}/{unquote(add['path'])}")
        if change := add or action.get("remove"):
            data_change = data_change or bool(change["dataChange"])
    return LogEntry(version, committed_us, kind, metadata, tuple(sorted(files)), rows, data_change)


def find_transaction(store: ObjectStore, table_key: str, newest: int, transaction: str) -> int:
    """The newest version up to `newest` that carries an app transaction.

    Raises:
        StoreUnavailableError: none does, so the log has lost files.
    """
    for version in range(newest, -1, -1):
        for line in _lines(store, table_key, version):
            if b'"txn"' in line and json.loads(line).get("txn", {}).get("appId") == transaction:
                return version
    raise StoreUnavailableError(f"The log of {table_key} lacks the commit of {transaction}.")


def actions_of(data: bytes, skip: bytes | None = None) -> Iterator[dict[str, Any]]:
    """The actions of a log file.

    Args:
        skip: Lines that begin with this are passed over, unread; our writers put no space before it.
    """
    return (json.loads(line) for line in data.splitlines() if line and not (skip and line.startswith(skip)))


def entries_after(
    store: ObjectStore, table_key: str, version: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The versions after one, oldest first, up to the newest, each with its actions.

    Those that add files are left out if one of our writers wrote them.
    """
    while True:
        version += 1
        try:
            yield version, entry_actions(store, table_key, version)
        except KeyMissingError:
            return


def entry_actions(store: ObjectStore, table_key: str, version: int) -> list[dict[str, Any]]:
    """The actions of one version, but for files that our writers added.

    Raises:
        KeyMissingError: There is no such version.
    """
    return list(actions_of(store.get(entry_key(table_key, version)), skip=b'{"add"'))


def actions_at(store: ObjectStore, table_key: str, version: int) -> Iterator[dict[str, Any]]:
    """All actions of a version.

    Raises:
        StoreUnavailableError: the log file is gone.
    """
    return (json.loads(line) for line in _lines(store, table_key, version))


def changes_layout(actions: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a version changes the table's columns, properties or protocol."""
    return any("metaData" in action or "protocol" in action for action in actions)


def commit_time_us(info: Mapping[str, Any]) -> int:
    """When a commit was made, from its info."""
    return int(info["timestamp"]) * 1000


def _lines(store: ObjectStore, table_key: str, version: int) -> list[bytes]:
    try:
        data = store.get(entry_key(table_key, version))
    except KeyMissingError:
        raise StoreUnavailableError(f"The log of {table_key} lacks version {version}.") from None
    return [line for line in data.splitlines() if line]


def _metadata(info: dict[str, Any]) -> dict[str, str]:
    # Receipts are for the server that wrote them, and statistics have a call; in events and lineage they
    # would be noise.
    return {
        key: str(value)
        for key, value in info.items()
        if key.startswith(METADATA_PREFIX) and key not in (GROUP, RECEIPTS, STATISTICS)
    }
