"""Rejects: failures as rows of the rejects table and as samples of a report."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pyarrow as pa

from headrace_compute.findings import SAMPLES, CheckFindings, Reject
from headrace_compute.model import Block, UploadSpec
from headrace_compute.stages.parse import TIMESTAMP, Failure
from headrace_compute.stages.records import Records, join

_SHOWN_BYTES = 64
"""Of a value, in messages."""


def duplicates(rows: np.ndarray, duplicate_of: np.ndarray) -> Failure:
    """The failure of rows that equal earlier ones.

    Args:
        rows: int64 indices of the later rows.
        duplicate_of: int64 row_number of the row that stays, for each.
    """
    numbers = pa.array(duplicate_of).cast(pa.string())
    rest = " of this upload in every column; send each row once."
    messages = join("The row equals row ", numbers, rest)
    return Failure("", "DUPLICATE", "", rows, messages=messages, duplicate_of=duplicate_of)


def reject_table(spec: UploadSpec, block: Block, records: Records, failures: Sequence[Failure]) -> pa.Table:
    """One row per failure and record, by row_number, then in the order of `failures`."""
    tables = [_rejects(block, records, failure) for failure in failures]
    table = pa.concat_tables(tables).combine_chunks()
    order = np.argsort(table.column("row_number").to_numpy(), kind="stable")
    table = table.take(pa.array(order))
    table = table.add_column(0, "upload_id", _constant(spec.upload_id, table.num_rows))
    return table.append_column(
        "ingested_at", pa.repeat(pa.scalar(spec.started_us, TIMESTAMP), table.num_rows)
    )


def check_findings(block: Block, records: Records, failure: Failure) -> CheckFindings:
    """A failure as a report shows it."""
    few = Failure(
        column=failure.column,
        code=failure.code,
        error=failure.error,
        rows=failure.rows[:SAMPLES],
        messages=None if failure.messages is None else failure.messages[:SAMPLES],
        duplicate_of=None if failure.duplicate_of is None else failure.duplicate_of[:SAMPLES],
    )
    return CheckFindings(failure.rows.size, samples_of(_rejects(block, records, few)))


def samples_of(table: pa.Table) -> tuple[Reject, ...]:
    """Rows of the rejects table as samples."""
    names = [field.name for field in fields(Reject)]
    return tuple(Reject(**row) for row in table.select(names).to_pylist())


def _rejects(block: Block, records: Records, failure: Failure) -> pa.Table:
    rows = failure.rows
    duplicate = failure.duplicate_of is not None
    values = (
        records.values(failure.column, rows) if failure.column else pa.array([""] * rows.size, pa.string())
    )
    return pa.table(
        {
            "row_number": pa.array(block.first_row + rows),
            "line": records.lines(rows),
            "byte_offset": records.offsets(rows),
            "column": _constant(failure.column, rows.size),
            "code": _constant(failure.code, rows.size),
            "message": _messages(records, failure),
            "value": values,
            "raw": pa.nulls(rows.size, pa.string()) if duplicate else records.raw(rows),
            "duplicate_of": pa.array(failure.duplicate_of) if duplicate else pa.nulls(rows.size, pa.int64()),
        }
    )


def _messages(records: Records, failure: Failure) -> pa.StringArray:
    if failure.messages is not None:
        return failure.messages
    if failure.code == "MISSING":
        return _constant(f"{failure.column} {failure.error}", failure.rows.size)
    shown = records.values(failure.column, failure.rows, _SHOWN_BYTES)
    return join(f'{failure.column} "', shown, f'" {failure.error}')


def _constant(text: str, count: int) -> pa.StringArray:
    return pa.repeat(pa.scalar(text, pa.string()), count)
