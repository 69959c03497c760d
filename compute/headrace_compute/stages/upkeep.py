"""Upkeep of tables that many small commits go to: compaction, and checkpoints of the log."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headrace_compute.model import DataFile, StoreConfig
from headrace_compute.stages.ingest import STATS
from headrace_compute.storage import commits, compaction, tables
from headrace_compute.storage.compaction import Merge, MergeConflictError
from headrace_compute.storage.parts import BUCKET, read_part, verify_part, write_part
from headrace_compute.storage.store import ObjectStore, open_store


def compact(config: StoreConfig, table_key: str, name: str, code_version: str) -> int | None:
    """Merges what small files a table has too many of; returns the version, None if nothing was to be done.

    A crash leaves parts that no version names. Files that were merged stay for older versions.

    Args:
        name: A UUID that no other attempt has; names the new parts.

    Raises:
        CommitContendedError, StoreUnavailableError: The table stays as it is; try again later.
    """
    store = open_store(config)
    snapshot = tables.open_table(config, table_key)
    schema = tables.SCHEMAS.get(snapshot.kind)  # type: ignore[call-overload]
    found = compaction.plan(snapshot) if schema is not None else []
    if not found:
        return None
    merges = [
        _merge(store, snapshot.kind, schema, files, f"{name}-{number}") for number, files in enumerate(found)
    ]
    try:
        return compaction.commit_merges(store, snapshot, merges, schema, code_version)
    except MergeConflictError:
        for merge in merges:
            store.delete(merge.part.key)
        return None


def checkpoint(config: StoreConfig, table_key: str, version: int) -> None:
    """Sums up the log up to a version, so that the table opens fast; no entry of the log is deleted."""
    commits.checkpoint(open_store(config), table_key, version)


def _merge(store: ObjectStore, kind: str, schema: pa.Schema, files: Sequence[DataFile], name: str) -> Merge:
    columns = [field for field in schema if field.name not in files[0].partition]
    tables = [read_part(store, file.key, [field.name for field in columns]) for file in files]
    table = pa.concat_tables(tables).cast(pa.schema(columns))
    if table.num_rows != sum(file.rows for file in files):
        raise AssertionError(f"{table.num_rows} rows read of {sum(file.rows for file in files)}")
    if BUCKET in table.column_names:
        table = table.take(pa.array(np.argsort(table.column(BUCKET).to_numpy(), kind="stable")))
    folder = files[0].key.rpartition("/")[0]
    part = write_part(
        store,
        f"{folder}/{name}.parquet",
        table,
        stats=STATS.get(kind, ()),
    )
    verify_part(store, part)
    return Merge(tuple(files), part)
