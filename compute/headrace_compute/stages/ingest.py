"""Ingest: one block from raw records to stored parts and findings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute.block_result import BlockResult
from headrace_compute.errors import StoreFullError
from headrace_compute.findings import CheckFindings, Findings, unknown_columns
from headrace_compute.kernels.hashing import bucket_of
from headrace_compute.kernels.rows import clustered, column_hashes, first_rows, row_hashes, validity
from headrace_compute.model import Block, Part, StoreConfig, UploadSpec
from headrace_compute.stages.columns import summarise
from headrace_compute.stages.parquet import ParquetPiece, read_piece
from headrace_compute.stages.parse import TIMESTAMP, Failure, Parsed, parse
from headrace_compute.stages.records import Records
from headrace_compute.stages.rejects import check_findings, duplicates, reject_table
from headrace_compute.stages.validate import validate
from headrace_compute.storage.parts import write_part
from headrace_compute.storage.store import open_store

STATS = {
    "interactions": ("timestamp", "rating", "row_number", "ingested_at", "bucket"),
    "items": ("price", "row_number", "ingested_at", "bucket"),
}
"""Columns whose bounds go to the Delta log."""


@dataclass(frozen=True)
class Examined:
    """A block, parsed and validated.

    Attributes:
        failures: All rules broken, in the order in which one record's are told.
        keep: int64, rows that are accepted, ascending.
        row_hashes: uint64 per record, over all contract columns.
        key_hashes: uint64 per record, xxh64 of the user_id (items: item_id).
    """

    parsed: Parsed
    failures: tuple[Failure, ...]
    findings: Findings
    keep: np.ndarray
    row_hashes: np.ndarray
    key_hashes: np.ndarray


def ingest_block(
    config: StoreConfig,
    spec: UploadSpec,
    block: Block,
    payload: np.ndarray | pa.Table | bytes | ParquetPiece,
    attempt: str,
) -> BlockResult:
    """Parses and validates a block and stores what is good and what is not.

    Duplicates are dropped within the block only; `duplicates.py` finds the others.

    Args:
        payload: As `parse` takes it, or where to read it.
        attempt: Names this attempt; parts of different attempts have different keys.

    Raises:
        InvalidFieldError: A json payload is no JSON array.
        StoreFullError: There is no room; what this attempt had stored is gone again.
        UnreadableStreamError: A piece of Parquet cannot be read; see `read_piece`.
    """
    if isinstance(payload, ParquetPiece):
        payload = read_piece(config, payload)
    examined = examine(spec, block, payload)
    try:
        return _store(config, spec, block, examined, part_name(spec, block, attempt))
    except StoreFullError:
        delete_attempt(config, spec, block, attempt)
        raise


def delete_attempt(config: StoreConfig, spec: UploadSpec, block: Block, attempt: str) -> None:
    """Deletes what one attempt at a block has stored; nothing may name it."""
    store, name = open_store(config), part_name(spec, block, attempt)
    for prefix in (spec.part_prefix, spec.sidecar_prefix, spec.rejects_prefix):
        store.delete(f"{prefix}{name}")


def _store(config: StoreConfig, spec: UploadSpec, block: Block, examined: Examined, name: str) -> BlockResult:
    store = open_store(config)
    data = sidecar = None
    rejects: tuple[Part, ...] = ()
    if examined.keep.size:
        rows = data_table(spec, block, examined)
        data = write_part(store, f"{spec.part_prefix}{name}", rows, stats=STATS[spec.data_type])
        sidecar = write_part(store, f"{spec.sidecar_prefix}{name}", sidecar_table(spec, block, examined))
    if examined.failures:
        table = reject_table(spec, block, examined.parsed.records, examined.failures)
        rejects = (write_part(store, f"{spec.rejects_prefix}{name}", table),)
    return BlockResult(block=block, data=data, sidecar=sidecar, rejects=rejects, findings=examined.findings)


def part_name(spec: UploadSpec, block: Block, attempt: str) -> str:
    """What a block's parts are called, below the prefixes of the spec."""
    return f"{spec.upload_id}-{block.index:06d}-{attempt}.parquet"


def examine(spec: UploadSpec, block: Block, payload: np.ndarray | pa.Table | bytes) -> Examined:
    """Parses and validates a block; stores nothing."""
    parsed = parse(spec, block, payload)
    table = parsed.table
    order = {name: place for place, name in enumerate(["", *table.column_names])}
    failures = sorted([*parsed.failures, *validate(spec, parsed)], key=lambda failure: order[failure.column])
    columns = [column.combine_chunks() for column in table.columns]
    hashes = [column_hashes(column) for column in columns]
    valid = [validity(column) for column in columns]
    rows = row_hashes(list(zip(hashes, valid, strict=True)))
    keep = _good_rows(table.num_rows, failures)
    first = keep[first_rows(table, rows[keep], keep)]
    rejected = table.num_rows - keep.size
    if (doubled := first != keep).any():
        failures.append(duplicates(keep[doubled], block.first_row + first[doubled]))
        keep = keep[~doubled]
    findings = Findings(
        received=table.num_rows,
        rejected=table.num_rows - keep.size,
        duplicates=table.num_rows - keep.size - rejected,
        unreadable=int(parsed.unreadable.sum()),
        checks=_checks(block, parsed.records, failures),
        columns=summarise(spec.data_type, parsed, hashes, valid),
        warnings=unknown_columns(parsed.unknown),
    )
    return Examined(parsed, tuple(failures), findings, keep, rows, hashes[0])


def data_table(spec: UploadSpec, block: Block, examined: Examined) -> pa.Table:
    """The accepted rows as the data table has them.

    By bucket, in it each user's (or item's) rows together, and those by row_number.
    """
    order = examined.keep[clustered(examined.key_hashes[examined.keep])]
    table = examined.parsed.table.take(pa.array(order))
    for name, values in (
        ("upload_id", _constant(spec.upload_id, order.size)),
        ("row_number", pa.array(block.first_row + order)),
        ("ingested_at", pa.repeat(pa.scalar(spec.started_us, TIMESTAMP), order.size)),
        ("bucket", pa.array(bucket_of(examined.key_hashes[order]))),
    ):
        table = table.append_column(name, values)
    return table


def sidecar_table(spec: UploadSpec, block: Block, examined: Examined) -> pa.Table:
    """Where each accepted row stood and how it hashes, by row_number.

    Columns: row_hash, for items key_hash (xxh64 of item_id), row_number, line, byte_offset.
    """
    keep, records = examined.keep, examined.parsed.records
    columns = {"row_hash": pa.array(examined.row_hashes[keep])}
    if spec.data_type == "items":
        columns["key_hash"] = pa.array(examined.key_hashes[keep])
    columns["row_number"] = pa.array(block.first_row + keep)
    columns["line"] = records.lines(keep)
    columns["byte_offset"] = records.offsets(keep)
    return pa.table(columns)


def _checks(
    block: Block, records: Records, failures: Sequence[Failure]
) -> dict[tuple[str, str], CheckFindings]:
    """Failures by column and code: two rules may share a code, as BAD_TEXT does."""
    checks: dict[tuple[str, str], CheckFindings] = {}
    for failure in failures:
        key, found = (failure.column, failure.code), check_findings(block, records, failure)
        checks[key] = checks[key].merge(found) if key in checks else found
    return checks


def _good_rows(count: int, failures: Sequence[Failure]) -> np.ndarray:
    good = np.ones(count, np.bool_)
    for failure in failures:
        good[failure.rows] = False
    return np.flatnonzero(good)


def _constant(text: str, count: int) -> pa.DictionaryArray:
    """One text many times, as cheap to write as a number."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text], pa.string()))
