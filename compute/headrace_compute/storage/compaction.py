"""Compaction: which small files of a table to merge, and the commit that puts one in their place.

Files are merged in tiers, like with like: sixteen of a tier make at least one of the next, so a row is
rewritten once for each tier, and n commits cost O(n log n) altogether. deltalake's `optimize`
would rewrite the whole table each time (z_order), or mix its buckets (compact) [both seen on 1.6.6].

A merge changes no row, so it is in nobody's way: appends go on, readers of older versions keep their
files, the relay passes over it. Only a commit that has taken one of the files away is in ours.
"""

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace_compute.errors import CommitContendedError, HeadraceError
from headrace_compute.model import DataFile, Part, Snapshot
from headrace_compute.storage.actions import add_action, log_file, partition_text, remove_action
from headrace_compute.storage.commits import ROUNDS
from headrace_compute.storage.layout import table_name
from headrace_compute.storage.log import actions_of, entry_key
from headrace_compute.storage.store import KeyExistsError, KeyMissingError, ObjectStore

WRITER_VERSION = 2
"""Highest Delta writer protocol whose rules a merge keeps."""

FANOUT = 16
"""Files of a tier that are merged into one of the next."""

MERGED_FILES = 1_024
"""Files that go into one merge at most: each costs a millisecond to read."""

LARGE_ROWS: Mapping[str, int] = {"interactions": 65_536, "items": 4_096, "rejects": 4_096}
"""Rows from which on a file stays as it is, by kind of table; a merge makes four times as many at most.

Rows of items and rejects may have 16 KiB each, and a merge holds them all in memory.
"""

ID = "headrace.compaction"
"""Key in a commit's info that names a merge."""


class MergeConflictError(HeadraceError):
    """Somebody else has taken away a file that was being merged; the merge is given up."""


@dataclass(frozen=True)
class Merge:
    """Files of one partition, and the part that has the same rows."""

    files: tuple[DataFile, ...]
    part: Part


def plan(snapshot: Snapshot) -> list[tuple[DataFile, ...]]:
    """Files to merge with each other; empty if the table is as it should be, or not of a kind that grows."""
    large = LARGE_ROWS.get(snapshot.kind, 0)
    if snapshot.writer_version > WRITER_VERSION:
        return []
    tiers: defaultdict[tuple[str, int], list[DataFile]] = defaultdict(list)
    for file in snapshot.files:
        if file.rows < large:
            tiers[repr(file.partition), _tier(file.rows)].append(file)
    return [_fitting(files, 4 * large) for files in tiers.values() if len(files) >= FANOUT]


def commit_merges(
    store: ObjectStore, snapshot: Snapshot, merges: Sequence[Merge], schema: pa.Schema, code_version: str
) -> int:
    """Puts merged parts in the place of their files, on top of whatever was committed meanwhile.

    Args:
        snapshot: Where the files were found.
        schema: Columns of the table.

    Returns:
        The version.

    Raises:
        MergeConflictError: A file is gone, or the table's layout has changed; nothing was committed.
        CommitContendedError: Other writers won every round; nothing was committed.
        StoreUnavailableError: The log cannot be written; it may have been, all the same.
    """
    table_key, merge_id = snapshot.table_key, str(uuid.uuid4())
    taken = {file.key.removeprefix(f"{table_key}/") for merge in merges for file in merge.files}
    body = log_file(
        "OPTIMIZE",
        {ID: merge_id, "headrace.code_version": code_version},
        [action for merge in merges for action in _actions(table_key, merge, schema)],
    )
    version = snapshot.version
    for _ in range(ROUNDS):
        for newer, is_ours in _follow(store, table_key, version, taken, merge_id):
            version = newer
            if is_ours:
                return version
        store.sync(entry_key(table_key, version))
        try:
            store.create(entry_key(table_key, version + 1), body)
            return version + 1
        except KeyExistsError:
            continue  # Another writer was first, or our own create was, whose answer was lost.
    name = table_name(table_key)
    raise CommitContendedError(
        f"Other writers of table {name!r} won {ROUNDS} times in a row. Retry.", {"table": name}
    )


def _tier(rows: int) -> int:
    """0 for fewer than 16 rows, 1 for fewer than 256, and so on."""
    return max(rows.bit_length() - 1, 0) // (FANOUT.bit_length() - 1)


def _fitting(files: Iterable[DataFile], most_rows: int) -> tuple[DataFile, ...]:
    """The first files, as many as a merge can hold: in any case enough to make a file of a higher tier."""
    found: list[DataFile] = []
    rows = 0
    for file in files:
        rows += file.rows
        if rows > most_rows or len(found) == MERGED_FILES:
            break
        found.append(file)
    return tuple(found)


def _actions(table_key: str, merge: Merge, schema: pa.Schema) -> list[dict[str, object]]:
    values = {name: partition_text(value) for name, value in merge.files[0].partition.items()}
    # A null would be a partition of another writer's; ours have values.
    known = {name: value for name, value in values.items() if value is not None}
    add = add_action(table_key, merge.part, schema, known, data_change=False)
    return [*(remove_action(table_key, file) for file in merge.files), add]


def _follow(
    store: ObjectStore, table_key: str, version: int, taken: Collection[str], merge_id: str
) -> Iterable[tuple[int, bool]]:
    """Versions after one, and whether they are this very merge; stops at the first that forbids it."""
    yield version, False
    while True:
        version += 1
        try:
            data = store.get(entry_key(table_key, version))
        except KeyMissingError:
            return
        is_ours = False
        for action in actions_of(data, skip=b'{"add"'):
            is_ours = is_ours or action.get("commitInfo", {}).get(ID) == merge_id
            gone = action.get("remove", {}).get("path") in taken
            if not is_ours and (gone or "metaData" in action or "protocol" in action):
                raise MergeConflictError(f"version {version} of {table_key} is in the way of a merge")
        yield version, is_ours
