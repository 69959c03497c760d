"""Compaction: which small files of a table to merge, and the commit that puts one in their place.

Files are merged in tiers, like with like: sixteen of a tier make at least one of the next, so a row is
rewritten once for each tier, and n commits cost O(n log n) altogether. deltalake's `optimize`
would rewrite the whole table each time (z_order), or mix its buckets (compact) [both seen on 1.6.6].

A merge changes no row, so it conflicts with no append: readers of older versions keep their files, and
the relay skips it. It conflicts only with a commit that has removed one of its files.
"""

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake.transaction import AddAction

from headrace_compute.delta.actions import (
    WRITER_VERSION,
    add_action,
    log_file,
    partition_text,
    path_in,
    remove_action,
)
from headrace_compute.delta.log import changes_layout, entries_after, entry_key
from headrace_compute.delta.swap import compare_and_swap
from headrace_compute.errors import HeadraceError, StoreFullError
from headrace_compute.model import DataFile, Part, Snapshot
from headrace_compute.objects.store import ObjectStore

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
    """Another commit has removed a file that was being merged; the merge is abandoned."""


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
    """Replaces files by their merged parts, on top of whatever was committed meanwhile.

    Args:
        snapshot: Where the files were found.
        schema: Columns of the table.

    Returns:
        The version.

    Raises:
        MergeConflictError: A file is gone, or the table's layout has changed; nothing was committed.
        StoreFullError: Nothing was committed.
        CommitContendedError, StoreUnavailableError: As `compare_and_swap` raises them.
    """
    table_key, merge_id = snapshot.table_key, str(uuid.uuid4())
    taken = {path_in(table_key, file.key) for merge in merges for file in merge.files}
    body = log_file(
        "OPTIMIZE",
        {ID: merge_id, "headrace.code_version": code_version},
        [action for merge in merges for action in _actions(table_key, merge, schema)],
    )
    newest = snapshot.version

    def swap() -> int:
        nonlocal newest
        for version, is_ours in _follow(store, table_key, newest, taken, merge_id):
            newest = version
            if is_ours:
                store.sync(entry_key(table_key, version))
                return version
        store.sync(entry_key(table_key, newest))
        store.create(entry_key(table_key, newest + 1), body)
        return newest + 1

    try:
        return compare_and_swap(table_key, swap)
    except StoreFullError:
        # Should it be there all the same, its parts are the table's.
        for version, is_ours in _follow(store, table_key, newest, taken, merge_id):
            if is_ours:
                return version
        raise


def _tier(rows: int) -> int:
    """0 for fewer than 16 rows, 1 for fewer than 256, and so on."""
    return max(rows.bit_length() - 1, 0) // (FANOUT.bit_length() - 1)


def _fitting(files: Iterable[DataFile], max_rows: int) -> tuple[DataFile, ...]:
    """The first files, as many as a merge can hold: in any case enough to make a file of a higher tier."""
    found: list[DataFile] = []
    rows = 0
    for file in files:
        rows += file.rows
        if rows > max_rows or len(found) == MERGED_FILES:
            break
        found.append(file)
    return tuple(found)


def _actions(table_key: str, merge: Merge, schema: pa.Schema) -> list[AddAction | dict[str, Any]]:
    values = {name: partition_text(value) for name, value in merge.files[0].partition.items()}
    # A null would be a partition of another writer's; ours have values.
    known = {name: value for name, value in values.items() if value is not None}
    add = add_action(table_key, merge.part, schema, known, data_change=False)
    return [*(remove_action(table_key, file) for file in merge.files), add]


def _follow(
    store: ObjectStore, table_key: str, version: int, taken: Collection[str], merge_id: str
) -> Iterator[tuple[int, bool]]:
    """Versions after one, and whether they are this very merge; MergeConflictError at one that forbids it."""
    for newer, actions in entries_after(store, table_key, version):
        is_ours = any(action.get("commitInfo", {}).get(ID) == merge_id for action in actions)
        gone = any(action.get("remove", {}).get("path") in taken for action in actions)
        if not is_ours and (gone or changes_layout(actions)):
            raise MergeConflictError(f"version {newer} of {table_key} is in the way of a merge")
        yield newer, is_ours
