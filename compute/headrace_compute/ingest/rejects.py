"""Rejects: failures as rows of the rejects table and as samples of a report."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.findings import SAMPLES, CheckFindings, Reject
from headrace_compute.formats.records import Records, join
from headrace_compute.ingest.parse import Failure
from headrace_compute.model import Block, UploadSpec

MAX_REJECT_BYTES = 64 << 20
"""Bytes of rejects, in memory, that a block keeps before the rest is only counted."""

REJECTS_AT_ONCE = 32_768
"""Rejects made at a time, so that what is kept costs hardly more than the limit."""

_SHOWN_BYTES = 64
"""Limit on the bytes of a value in messages."""


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
    raws = _Raws(records, failures)
    tables = [_rejects(block, records, failure, raws) for failure in failures]
    table = pa.concat_tables(tables).combine_chunks()
    order = np.argsort(table.column("row_number").to_numpy(), kind="stable")
    table = table.take(pa.array(order))
    table = table.add_column(0, "upload_id", _constant(spec.upload_id, table.num_rows))
    return table.append_column(
        "ingested_at", pa.repeat(pa.scalar(spec.started_us, TIMESTAMP), table.num_rows)
    )


class KeptRejects:
    """The first rejects of a block in order, until they have MAX_REJECT_BYTES; all of a record's or none.

    Five bytes of commas break four rules: the rejects of a block may have a hundred times its size. So they
    are made some at a time.

    Attributes:
        left_out: How many of them it does not keep; known when all tables have been taken.
    """

    def __init__(self, spec: UploadSpec, block: Block, records: Records, failures: Sequence[Failure]) -> None:
        self._made = (reject_table(spec, block, records, some) for some in self._kept(failures))
        self._bytes = 0
        self.left_out = 0

    def __iter__(self) -> Iterator[pa.Table]:
        """Tables as `reject_table` makes them, once."""
        for table in self._made:
            self._bytes += table.nbytes
            yield table

    def _kept(self, failures: Sequence[Failure]) -> Iterator[list[Failure]]:
        for some in _slices(failures):
            if self._bytes < MAX_REJECT_BYTES:
                yield some
            else:
                self.left_out += sum(failure.rows.size for failure in some)


def rows_to_keep(told: pa.Table) -> int:
    """How many of a block's rejects, in order, it keeps: MAX_REJECT_BYTES, all of a record's or none."""
    if told.nbytes <= MAX_REJECT_BYTES:
        return int(told.num_rows)
    numbers = told.column("row_number").to_numpy()
    last = numbers[told.num_rows * MAX_REJECT_BYTES // told.nbytes]
    return int(np.searchsorted(numbers, last, side="right"))


def _slices(failures: Sequence[Failure]) -> Iterator[list[Failure]]:
    """The failures of some records after the other, about REJECTS_AT_ONCE at a time."""
    if sum(failure.rows.size for failure in failures) <= REJECTS_AT_ONCE:
        yield list(failures)
        return
    counts = np.zeros(max(int(failure.rows[-1]) for failure in failures if failure.rows.size) + 1, np.int64)
    for failure in failures:
        counts[failure.rows] += 1
    told = np.cumsum(counts)
    full = np.searchsorted(told, np.arange(REJECTS_AT_ONCE, told[-1], REJECTS_AT_ONCE)) + 1
    for first, after in pairwise(np.unique([0, *full, counts.size]).tolist()):
        pieces = [
            some_of(failure, np.arange(*np.searchsorted(failure.rows, [first, after])))
            for failure in failures
        ]
        yield [piece for piece in pieces if piece.rows.size]


def check_findings(block: Block, records: Records, failure: Failure) -> CheckFindings:
    """A failure as a report shows it."""
    few = some_of(failure, np.arange(min(failure.rows.size, SAMPLES)))
    return CheckFindings(failure.rows.size, samples_of(_rejects(block, records, few, _Raws(records, [few]))))


def some_of(failure: Failure, places: np.ndarray) -> Failure:
    """A failure of fewer records: those at some places of `rows`."""
    taken = pa.array(places)
    return replace(
        failure,
        rows=failure.rows[places],
        errors=None if failure.errors is None else failure.errors.take(taken),
        messages=None if failure.messages is None else failure.messages.take(taken),
        duplicate_of=None if failure.duplicate_of is None else failure.duplicate_of[places],
    )


def samples_of(table: pa.Table) -> tuple[Reject, ...]:
    """Rows of the rejects table as samples."""
    names = [field.name for field in fields(Reject)]
    return tuple(Reject(**row) for row in table.select(names).to_pylist())


class _Raws:
    """Records as they were sent, each made once however many rules it breaks; not those of duplicates."""

    def __init__(self, records: Records, failures: Sequence[Failure]) -> None:
        told = [failure.rows for failure in failures if failure.duplicate_of is None]
        self._rows = np.unique(np.concatenate(told)) if told else np.empty(0, np.int64)
        self._texts = records.raw(self._rows) if told else pa.array([], pa.string())

    def of(self, failure: Failure) -> pa.StringArray:
        """Those of a failure's rows; null for duplicates."""
        if failure.duplicate_of is not None:
            return pa.nulls(failure.rows.size, pa.string())
        return self._texts.take(pa.array(np.searchsorted(self._rows, failure.rows)))


def _rejects(block: Block, records: Records, failure: Failure, raws: _Raws) -> pa.Table:
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
            "raw": raws.of(failure),
            "duplicate_of": pa.array(failure.duplicate_of) if duplicate else pa.nulls(rows.size, pa.int64()),
        }
    )


def _messages(records: Records, failure: Failure) -> pa.StringArray:
    if failure.messages is not None:
        return failure.messages
    if failure.code == "MISSING":
        return _constant(f"{failure.column} {failure.error}", failure.rows.size)
    shown = records.values(failure.column, failure.rows, _SHOWN_BYTES)
    if failure.errors is not None:
        return join(f'{failure.column} "', join("", shown, '" '), failure.errors)
    return join(f'{failure.column} "', shown, f'" {failure.error}')


def _constant(text: str, count: int) -> pa.StringArray:
    return pa.repeat(pa.scalar(text, pa.string()), count)
