"""Maintenance of tables with many small commits: compaction, and checkpoints of the log."""

import logging
import uuid
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from headrace_compute.columns import BUCKET
from headrace_compute.delta import compaction, drafts, tables
from headrace_compute.delta.actions import partition_folder
from headrace_compute.delta.compaction import Merge, MergeConflictError
from headrace_compute.delta.drafts import Draft
from headrace_compute.delta.layout import STATS
from headrace_compute.errors import HeadraceError, StoreFullError
from headrace_compute.model import DataFile, Snapshot, StoreConfig
from headrace_compute.objects.faults import fault_in
from headrace_compute.objects.store import KeyMissingError, ObjectStore, open_store
from headrace_compute.parts import read_part, verify_part, write_part

_log = logging.getLogger(__name__)


def compact(config: StoreConfig, table_key: str, name: str, code_version: str) -> int | None:
    """Merges what small files a table has too many of; returns the version, None if nothing was to be done.

    A crash leaves parts that no version names, and the draft that tells of them; whoever tries the same again
    deletes them. Files that were merged stay for older versions.

    Args:
        name: A UUID of the draft, with which the names of the new parts begin.

    Raises:
        StoreFullError: The table stays as it is, and nothing of the attempt is left.
        CommitContendedError, StoreUnavailableError: The table stays as it is; try again later.
    """
    store = open_store(config)
    snapshot = tables.open_table(config, table_key)
    schema = tables.SCHEMAS.get(snapshot.kind)  # type: ignore[call-overload]
    found = compaction.plan(snapshot) if schema is not None else []
    if not found:
        return None
    draft = Draft(name, {table_key: snapshot.version})
    drafts.begin(config, draft)
    # One whose worker died may have merged other files under the same number.
    attempt = uuid.uuid4().hex[:8]
    merges: list[Merge] = []
    version: int | None = None
    try:
        for number, files in enumerate(found):
            merges.append(merge_files(store, snapshot, schema, files, f"{draft.prefix}{number}-{attempt}"))
        version = compaction.commit_merges(store, snapshot, merges, schema, code_version)
    except MergeConflictError:
        pass  # The files are others by now, and the next round number looks at them.
    except StoreFullError:
        drafts.clear(config, drafts.entry_key(config, name))
        raise
    drafts.clear(config, drafts.entry_key(config, name))
    return version


def checkpoint(config: StoreConfig, table_key: str, version: int) -> None:
    """Sums up the log up to a version, so that the table opens fast; no entry of the log is deleted.

    No correctness depends on a checkpoint: one that fails is logged, and the next replaces it.
    """
    store = open_store(config)
    try:
        options = store.storage_options()
        DeltaTable(store.uri(table_key), version=version, storage_options=options).create_checkpoint()
        store.sync(f"{table_key}/_delta_log/{version:020d}.checkpoint.parquet")
        store.sync(f"{table_key}/_delta_log/_last_checkpoint")
    except (DeltaError, OSError, HeadraceError, KeyMissingError) as error:
        fault = fault_in(str(error))
        cause = fault.code if fault else error
        _log.warning("no checkpoint of %s at version %d: %s", table_key, version, cause)


def merge_files(
    store: ObjectStore, snapshot: Snapshot, schema: pa.Schema, files: Sequence[DataFile], name: str
) -> Merge:
    """Writes the rows of some files as one, sorted by bucket where they have one; nothing is committed.

    The part lies in the folder of its partition, where its draft is looked for. What lies in the folder of an
    upload is that upload's, and deleted where no record of it names it.
    """
    columns = [field for field in schema if field.name not in files[0].partition]
    tables = [read_part(store, file.key, [field.name for field in columns]) for file in files]
    table = pa.concat_tables(tables).cast(pa.schema(columns))
    if table.num_rows != sum(file.rows for file in files):
        raise AssertionError(f"{table.num_rows} rows read of {sum(file.rows for file in files)}")
    if BUCKET in table.column_names:
        table = table.take(pa.array(np.argsort(table.column(BUCKET).to_numpy(), kind="stable")))
    folder = partition_folder(snapshot.table_key, files[0].partition)
    part = write_part(store, f"{folder}/{name}.parquet", table, stats=STATS.get(snapshot.kind, ()))
    verify_part(store, part)
    return Merge(tuple(files), part)
