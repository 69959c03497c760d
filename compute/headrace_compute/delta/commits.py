"""One commit of parts to a Delta table, through deltalake, exactly once for each transaction.

deltalake takes the same app transaction twice and may raise though the commit landed [both seen on 1.6.6].
So every round loads a snapshot, looks for our transaction in it, and commits without hidden retries.

In a local folder deltalake does not fsync. A version is acknowledged after its log file
is on disk, and committed on top of a version only after that one is. In an S3 store the
log file is put on the condition that there is none of its name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from headrace_compute.delta.actions import add_action, path_in
from headrace_compute.delta.layout import table_name
from headrace_compute.delta.log import METADATA_PREFIX, entry_key, find_transaction
from headrace_compute.delta.swap import compare_and_swap
from headrace_compute.errors import HeadraceError, StoreUnavailableError, WrongTableKindError
from headrace_compute.model import Kind, Part, StoreConfig
from headrace_compute.objects.store import KeyExistsError, KeyMissingError, ObjectStore, open_store

KIND_PROPERTY = "headrace.kind"
"""Table property that names the kind, so that no table is overwritten by another kind."""

_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class Change(NamedTuple):
    """What a commit is to do to a table, whichever version it lands on."""

    table_key: str
    kind: Kind
    schema: Schema
    adds: list[AddAction | RemoveAction]
    mode: Literal["append", "overwrite"]
    transaction: str
    metadata: dict[str, str]
    partition_columns: list[str]
    base: int | None = None


class VersionMovedError(HeadraceError):
    """A commit that must follow one version found another one; nothing was committed."""


def commit(
    config: StoreConfig,
    table_key: str,
    *,
    kind: Kind,
    schema: pa.Schema,
    parts: Sequence[Part],
    mode: Literal["append", "overwrite"] = "append",
    transaction: str,
    metadata: Mapping[str, str],
    partition: Mapping[str, str] | None = None,
    base: int | None = None,
) -> int:
    """Commits parts to a table, exactly once for each transaction; returns the version.

    The first commit creates the table. Its version 0 only lays out the columns;
    data begin with version 1.

    Args:
        config: Names the store.
        table_key: Where the table lies.
        kind: What the table holds; it must hold that already if it exists.
        schema: Every column of the table, the partition columns included.
        parts: Whole parts below `table_key`, verified by the caller.
        mode: `overwrite` takes all former files out of the new version; old versions keep them.
        transaction: Names this commit for good. If the table has it, nothing is written.
        metadata: Goes into the commit's info; keys begin with `headrace.`.
        partition: Value of each partition column, the same for all parts, as Delta writes it.
        base: The version that the commit must follow; None: whichever is the newest.

    Raises:
        VersionMovedError: `base` is not the newest version.
        WrongTableKindError: the table holds another kind, or other columns in append mode.
        CommitContendedError: other writers won every round.
        StoreFullError, StoreDeniedError, StoreUnavailableError: the log cannot be written.
    """
    if stray := [key for key in metadata if not key.startswith(METADATA_PREFIX)]:
        raise ValueError(f"metadata keys {stray} must begin with {METADATA_PREFIX!r}")
    store = open_store(config)
    values = dict(partition or {})
    change = Change(
        table_key=table_key,
        kind=kind,
        schema=Schema.from_arrow(schema),
        adds=[_add(store, table_key, part, schema, values) for part in parts],
        mode=mode,
        transaction=transaction,
        metadata=dict(metadata),
        partition_columns=list(values),
        base=base,
    )
    return compare_and_swap(table_key, partial(_swap, store, change))


def load(store: ObjectStore, table_key: str, version: int | None = None) -> DeltaTable | None:
    """Opens a Delta table, its newest version if none is named; None if there is no table."""
    try:
        return DeltaTable(store.uri(table_key), version=version, storage_options=store.storage_options())
    except TableNotFoundError:
        if store.exists(entry_key(table_key, 0)):
            raise
        return None


def _swap(store: ObjectStore, change: Change) -> int:
    """One attempt: the version that carries the transaction, found or written."""
    table = load(store, change.table_key) or create_table(store, change)
    version = int(table.version())
    if table.transaction_version(change.transaction) is not None:
        version = find_transaction(store, change.table_key, version, change.transaction)
    else:
        check_table(table, change)
        if change.base not in (None, version):
            raise VersionMovedError(f"{change.table_key} has version {version} by now, not {change.base}")
        if change.mode == "overwrite":
            _check_names(table, change)
        store.sync(entry_key(change.table_key, version))
        _write(table, change)
        version += 1
    store.sync(entry_key(change.table_key, version))
    return version


def _write(table: DeltaTable, change: Change) -> None:
    """Writes the version after the one that was loaded; loses with CommitFailedError if there is one."""
    table.create_write_transaction(
        change.adds,
        change.mode,
        change.schema,
        change.partition_columns,
        commit_properties=CommitProperties(
            custom_metadata=change.metadata,
            max_commit_retries=0,
            app_transactions=[Transaction(change.transaction, 1)],
        ),
        post_commithook_properties=_HOOKS,
    )


def create_table(store: ObjectStore, change: Change) -> DeltaTable:
    """Writes version 0; loses with DeltaError if another writer is first.

    deltalake refuses properties it does not know in a first commit with files
    [seen on 1.6.6], so version 0 has none.
    """
    return DeltaTable.create(
        store.uri(change.table_key),
        change.schema,
        mode="error",
        partition_by=change.partition_columns,
        configuration={KIND_PROPERTY: change.kind, "delta.enableExpiredLogCleanup": "false"},
        storage_options=store.storage_options(),
        raise_if_key_not_exists=False,
        commit_properties=CommitProperties(max_commit_retries=0),
        post_commithook_properties=_HOOKS,
    )


def check_table(table: DeltaTable, change: Change) -> None:
    """Refuses what deltalake does not: files of any schema go into any table [seen on 1.6.6]."""
    found = table.metadata()
    name = table_name(change.table_key)
    kind = found.configuration.get(KIND_PROPERTY, "")
    attributes = {"table": name, "kind": kind, "expected": change.kind}
    if kind != change.kind:
        raise WrongTableKindError(
            f"Table {name!r} holds {kind or 'something else'}, not {change.kind}. Choose another name.",
            attributes,
        )
    if found.partition_columns != change.partition_columns or (
        change.mode == "append" and table.schema() != change.schema
    ):
        raise WrongTableKindError(f"Table {name!r} has other columns than the rows to write.", attributes)


def _check_names(table: DeltaTable, change: Change) -> None:
    """A commit that adds and removes a file of one name has no meaning in Delta."""
    former = {unquote(path) for path in pa.table(table.get_add_actions())["path"].to_pylist()}
    if again := former.intersection(add.path for add in change.adds):
        raise ValueError(f"parts {sorted(again)} are in table {change.table_key} already; name them anew")


def _add(
    store: ObjectStore, table_key: str, part: Part, schema: pa.Schema, partition: Mapping[str, str]
) -> AddAction:
    """The log's entry of a part.

    In a partitioned table the part gets a second name that contains the partition's
    values: Delta does not need that, but Polars reads them from nowhere else [seen on 2.1].
    """
    if partition:
        values = "/".join(f"{name}={value}" for name, value in partition.items())
        key = f"{table_key}/{values}/{path_in(table_key, part.key)}"
        try:
            store.copy(part.key, key)
        except KeyExistsError:
            pass  # an earlier try of this commit came so far
        except KeyMissingError:
            raise StoreUnavailableError(f"The part {part.key} is gone from the store.") from None
        part = replace(part, key=key)
    return add_action(table_key, part, schema, partition)
