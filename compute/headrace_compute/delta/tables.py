"""Versions of tables: open one, list them, follow their log.

The one module to import for everything about tables; `commit` and the keys come
from the modules beside it.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from headrace_compute.delta.commits import KIND_PROPERTY, commit, load
from headrace_compute.delta.layout import (
    FIXED,
    SCHEMAS,
    dataset_key,
    datasets_key,
    feature_statistics_key,
    interactions_key,
    item_features_key,
    items_key,
    rejects_key,
    table_key,
    table_name,
    user_features_key,
    vocabulary_key,
)
from headrace_compute.delta.log import (
    STATISTICS,
    LogEntry,
    commit_info,
    commit_statistics,
    entry_key,
    find_transaction,
    read_entry,
    read_kind,
)
from headrace_compute.errors import StoreUnavailableError, TableNotFoundError, VersionNotFoundError
from headrace_compute.model import NAME, DataFile, Snapshot, StoreConfig
from headrace_compute.objects.faults import fault_in, store_error
from headrace_compute.objects.store import ObjectStore, open_store
from headrace_compute.parts import part_rows
from headrace_compute.report import iso_time

__all__ = [
    "SCHEMAS",
    "STATISTICS",
    "LogEntry",
    "commit",
    "dataset_key",
    "feature_statistics_key",
    "find_commit",
    "interactions_key",
    "is_newest",
    "item_features_key",
    "items_key",
    "log_entries",
    "newest_version",
    "open_table",
    "origin",
    "rejects_key",
    "statistics_at",
    "table_key",
    "table_name",
    "table_names",
    "table_uri",
    "tenants",
    "user_features_key",
    "vocabulary_key",
]


def open_table(config: StoreConfig, table_key: str, version: int | None = None) -> Snapshot:
    """Opens a version of a table, the newest if none is named.

    Raises:
        TableNotFoundError: nothing was ever committed to it.
        VersionNotFoundError: it has no such version.
    """
    store = open_store(config)
    try:
        return _open(store, table_key, version)
    except (DeltaError, OSError) as error:
        if fault := fault_in(str(error)):
            raise store_error(fault, "read", table_key) from None
        raise StoreUnavailableError(f"Table {table_name(table_key)!r} cannot be read.") from error


def open_known(config: StoreConfig, table_key: str, known_us: int) -> Snapshot:
    """Opens the newest version that was committed at or before an instant, microseconds since the epoch.

    A commit's time is its server's clock; versions are taken to follow each other in time.

    Raises:
        TableNotFoundError: There was none.
    """
    store = open_store(config)
    low, high = 0, open_table(config, table_key).version
    while low < high:
        middle = (low + high + 1) // 2
        committed_us, _ = commit_info(store, table_key, middle)
        low, high = (middle, high) if committed_us <= known_us else (low, middle - 1)
    if low == 0:
        name = table_name(table_key)
        raise TableNotFoundError(f"Table {name!r} had no version at {iso_time(known_us)}.", {"table": name})
    return open_table(config, table_key, low)


def find_commit(config: StoreConfig, table_key: str, transaction: str) -> tuple[int, dict[str, str]] | None:
    """The version of a transaction and what its commit says of itself (`headrace.*` keys).

    None if the table has no such transaction.
    """
    store = open_store(config)
    try:
        table = load(store, table_key)
    except (DeltaError, OSError) as error:
        if fault := fault_in(str(error)):
            raise store_error(fault, "read", table_key) from None
        raise StoreUnavailableError(f"Table {table_name(table_key)!r} cannot be read.") from error
    if table is None or table.transaction_version(transaction) is None:
        return None
    version = find_transaction(store, table_key, int(table.version()), transaction)
    return version, commit_info(store, table_key, version)[1]


def statistics_at(config: StoreConfig, table_key: str, version: int) -> str | None:
    """The statistics of a version that there is, as JSON; None if its commit has none."""
    return commit_statistics(open_store(config), table_key, version)


def origin(config: StoreConfig, snapshot: Snapshot) -> dict[str, str]:
    """What the newest commit up to a version that changed its rows says of itself (`headrace.*` keys).

    Compaction, and whatever else arranges rows anew, changes none.

    Raises:
        StoreUnavailableError: The log lacks that commit.
    """
    store = open_store(config)
    for version in range(snapshot.version, 0, -1):
        entry = read_entry(store, snapshot.table_key, version, snapshot.kind)
        if entry.data_change:
            return entry.metadata
    return {}


def table_uri(config: StoreConfig, table_key: str) -> str:
    """Where other programs find a table, whether it exists or not."""
    return open_store(config).uri(table_key)


def is_newest(config: StoreConfig, table_key: str, version: int, committed_us: int) -> bool:
    """Whether the version of a table that was committed then is its newest, told without opening it."""
    store = open_store(config)
    if store.exists(entry_key(table_key, version + 1)):
        return False
    try:
        return commit_info(store, table_key, version)[0] == committed_us
    except StoreUnavailableError:
        return False  # It is gone, or opening it will tell what is wrong.


def table_names(config: StoreConfig, tenant: str) -> list[str]:
    """Names of the tables that a tenant may have, sorted; training sets are looked for, the rest is fixed."""
    datasets = open_store(config).children(datasets_key(config, tenant))
    return sorted({*FIXED, *(name for name in datasets if NAME.fullmatch(name))})


def newest_version(config: StoreConfig, table_key: str, at_least: int) -> int:
    """The newest version of a table that has version `at_least`, found without opening it.

    Versions have no gaps, so doubling steps and halving them finds the last.
    """
    store = open_store(config)
    newest, step = at_least, 1
    while store.exists(entry_key(table_key, newest + step)):
        newest, step = newest + step, step * 2
    while step > 1:
        step //= 2
        if store.exists(entry_key(table_key, newest + step)):
            newest += step
    return newest


def tenants(config: StoreConfig) -> list[str]:
    """Tenants that have stored anything, by name."""
    store = open_store(config)
    folders = {config.raw, config.processed, config.features, config.training}
    return sorted({name for folder in folders for name in store.children(folder) if NAME.fullmatch(name)})


def log_entries(config: StoreConfig, table_key: str, after_version: int) -> Iterator[LogEntry]:
    """What each version after one did, oldest first, up to the newest; nothing where there is no table.

    Version 0 has no data and is left out.
    """
    store = open_store(config)
    version = max(after_version, 0) + 1
    if not store.exists(entry_key(table_key, version)):
        return
    kind = read_kind(store, table_key, KIND_PROPERTY)
    while store.exists(entry_key(table_key, version)):
        yield read_entry(store, table_key, version, kind)
        version += 1


def _open(store: ObjectStore, table_key: str, version: int | None) -> Snapshot:
    name = table_name(table_key)
    if version is not None and (version < 1 or not store.exists(entry_key(table_key, version))):
        newest = _open(store, table_key, None).version
        raise VersionNotFoundError(
            f"Table {name!r} has no version {version}; the newest is {newest}.",
            {"table": name, "version": str(version), "newest": str(newest)},
        )
    table = load(store, table_key, version)
    if table is None or table.version() == 0:
        raise TableNotFoundError(
            f"There is no table {name!r} yet; something must be written to it first.", {"table": name}
        )
    committed_us, metadata = commit_info(store, table_key, table.version())
    return Snapshot(
        table_key=table_key,
        uri=store.uri(table_key),
        kind=table.metadata().configuration.get(KIND_PROPERTY, ""),
        version=int(table.version()),
        files=_files(store, table_key, table),
        committed_us=committed_us,
        metadata=metadata,
        writer_version=int(table.protocol().min_writer_version),
    )


def _files(store: ObjectStore, table_key: str, table: DeltaTable) -> tuple[DataFile, ...]:
    """A version's files in key order; the log's own order changes at a checkpoint."""
    adds = pa.table(table.get_add_actions(flatten=True))
    partition_columns = table.metadata().partition_columns
    files = [
        DataFile(
            key=(key := f"{table_key}/{unquote(add['path'])}"),
            rows=add["num_records"] if add["num_records"] is not None else part_rows(store, key),
            size_bytes=add["size_bytes"],
            partition={name: add[f"partition.{name}"] for name in partition_columns},
            split=_split(add),
        )
        for add in adds.to_pylist()
    ]
    return tuple(sorted(files, key=lambda file: file.key))


def _split(add: Mapping[str, Any]) -> str | None:
    """The split of all rows of a file, by the bounds of its column `split`."""
    lowest, highest = add.get("min.split"), add.get("max.split")
    return lowest if lowest == highest and add.get("null_count.split") == 0 else None
