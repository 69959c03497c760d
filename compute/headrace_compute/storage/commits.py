"""One commit to a Delta table: compare-and-swap, carried out exactly once.

deltalake takes the same app transaction twice and may raise though the commit
landed [both seen on 1.6.6]. So every round loads a snapshot, looks for our
transaction in it, and commits on top of just that version without hidden retries;
whatever happens then, the next round looks again.

In a local folder deltalake does not fsync. A version is acknowledged after its log file
is on disk, and committed on top of a version only after that one is. In an S3 store the
log file is put on the condition that there is none of its name.
"""

import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from headrace_compute.errors import (
    CommitContendedError,
    HeadraceError,
    StoreFullError,
    StoreUnavailableError,
    WrongTableKindError,
)
from headrace_compute.model import Kind, Part, StoreConfig
from headrace_compute.storage.faults import fault_in, store_error
from headrace_compute.storage.layout import table_name
from headrace_compute.storage.log import METADATA_PREFIX, entry_key, find_transaction
from headrace_compute.storage.store import KeyExistsError, KeyMissingError, ObjectStore, open_store

KIND_PROPERTY = "headrace.kind"
"""Table property that names the kind, so that no table is written over by another kind."""

ROUNDS = 24
"""Rounds of compare-and-swap before a commit gives up."""

FAULT_SECONDS = 15.0
"""No round begins later than this if the last one failed though nobody else had won it.

Against a store that hangs, a round takes as long as `clients.delta_options` allows.
"""

MAX_PAUSE_SECONDS = 0.2

CHECKPOINT_VERSIONS = 20
"""Versions between checkpoints; opening a table reads the log files since the last one."""

_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Bound = str | int | float

_log = logging.getLogger(__name__)


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

    Raises:
        WrongTableKindError: the table holds another kind, or other columns in append mode.
        CommitContendedError: other writers won every round.
        StoreFullError, StoreDeniedError, StoreUnavailableError: the log cannot be written.
    """
    if stray := [key for key in metadata if not key.startswith(METADATA_PREFIX)]:
        raise ValueError(f"metadata keys {stray} must begin with {METADATA_PREFIX!r}")
    store = open_store(config)
    partition = dict(partition or {})
    change = Change(
        table_key=table_key,
        kind=kind,
        schema=Schema.from_arrow(schema),
        adds=[_add(store, table_key, part, schema, partition) for part in parts],
        mode=mode,
        transaction=transaction,
        metadata=dict(metadata),
        partition_columns=list(partition),
    )
    failure: Exception | None = None
    end = time.monotonic() + FAULT_SECONDS
    for attempt in range(ROUNDS):
        pause(attempt)
        try:
            version = _swap(store, change)
        except (DeltaError, OSError) as error:
            failure = error
            if _is_hopeless(error, end):
                break
            continue
        store.sync(entry_key(table_key, version))
        if version % CHECKPOINT_VERSIONS == 0:
            checkpoint(store, table_key, version)
        return version
    raise given_up(table_key, failure)


def load(store: ObjectStore, table_key: str, version: int | None = None) -> DeltaTable | None:
    """Opens a Delta table, its newest version if none is named; None if there is no table."""
    try:
        return DeltaTable(store.uri(table_key), version=version, storage_options=store.storage_options())
    except TableNotFoundError:
        if store.exists(entry_key(table_key, 0)):
            raise
        return None


def _swap(store: ObjectStore, change: Change) -> int:
    """One round: the version that carries the transaction, found or written."""
    table = load(store, change.table_key) or create_table(store, change)
    base = int(table.version())
    if table.transaction_version(change.transaction) is not None:
        return find_transaction(store, change.table_key, base, change.transaction)
    check_table(table, change)
    if change.mode == "overwrite":
        _check_names(table, change)
    store.sync(entry_key(change.table_key, base))
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
    return base + 1


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

    In a partitioned table the part gets a second name that spells the partition's
    values: Delta does not need that, but Polars reads them from nowhere else [seen on 2.1].
    """
    path = part.key.removeprefix(f"{table_key}/")
    if path == part.key:
        raise ValueError(f"part {part.key} lies outside of its table {table_key}")
    if partition:
        path = "/".join([*(f"{name}={value}" for name, value in partition.items()), path])
        try:
            store.copy(part.key, f"{table_key}/{path}")
        except KeyExistsError:
            pass  # an earlier try of this commit came so far
        except KeyMissingError:
            raise StoreUnavailableError(f"The part {part.key} is gone from the store.") from None
    return AddAction(
        path=path,
        size=part.size_bytes,
        partition_values=partition,
        modification_time=time.time_ns() // 1_000_000,
        data_change=True,
        stats=part_stats(part, schema),
    )


def part_stats(part: Part, schema: pa.Schema) -> str:
    """A part's bounds in Delta's JSON format."""
    return json.dumps(
        {
            "numRecords": part.rows,
            "minValues": _bounds(schema, {name: stats.minimum for name, stats in part.stats.items()}),
            "maxValues": _bounds(schema, {name: stats.maximum for name, stats in part.stats.items()}),
            "nullCount": {name: stats.nulls for name, stats in part.stats.items()},
        }
    )


def _bounds(schema: pa.Schema, bounds: Mapping[str, _Bound | None]) -> dict[str, _Bound]:
    """Bounds as JSON values; columns that are all null have none."""
    return {
        name: _timestamp(int(value)) if pa.types.is_timestamp(schema.field(name).type) else value
        for name, value in bounds.items()
        if value is not None
    }


def _timestamp(microseconds: int) -> str:
    """A time since the epoch as RFC 3339."""
    return f"{(_EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None).isoformat()}Z"


def pause(attempt: int) -> None:
    """Waits a random while before every round but the first, longer each time."""
    if attempt:
        time.sleep(random.uniform(0, min(MAX_PAUSE_SECONDS, 0.005 * 2**attempt)))


def checkpoint(store: ObjectStore, table_key: str, version: int) -> None:
    """Sums up the log so that opening stays fast; without it the commit stands all the same."""
    options = store.storage_options()
    try:
        DeltaTable(store.uri(table_key), version=version, storage_options=options).create_checkpoint()
        store.sync(f"{table_key}/_delta_log/{version:020d}.checkpoint.parquet")
        store.sync(f"{table_key}/_delta_log/_last_checkpoint")
    except (DeltaError, OSError, HeadraceError, KeyMissingError) as error:
        fault = fault_in(str(error))
        cause = fault.code if fault else error
        _log.warning("no checkpoint of %s at version %d: %s", table_key, version, cause)


def _is_hopeless(failure: Exception, end: float) -> bool:
    """Whether another round is in vain: no other writer won the last, and time is up or the store refuses."""
    fault = fault_in(str(failure))
    if fault is None and isinstance(failure, CommitFailedError):
        return False
    return time.monotonic() > end or (fault is not None and fault.kind in ("full", "denied"))


def given_up(table_key: str, failure: Exception | None) -> HeadraceError:
    """The typed error of a commit whose every round failed.

    Texts of an S3 store's answers may hold what must not be shown, so its errors have no cause.
    """
    name = table_name(table_key)
    if fault := fault_in(str(failure)):
        return store_error(fault, "write", table_key)
    if isinstance(failure, CommitFailedError | KeyExistsError):
        error: HeadraceError = CommitContendedError(
            f"Other writers of table {name!r} won {ROUNDS} times in a row. Retry.", {"table": name}
        )
    elif "No space left" in str(failure) or "quota" in str(failure):
        error = StoreFullError(f"The store has no room for a commit to table {name!r}. Free some space.")
    else:
        error = StoreUnavailableError(f"The store cannot take a commit to table {name!r}.")
    error.__cause__ = failure
    return error
