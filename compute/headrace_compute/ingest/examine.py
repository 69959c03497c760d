"""Examine: each row of a block judged and nothing stored: parsed, validated, compared with earlier ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute.ingest.parse import Failure, Parsed, parse
from headrace_compute.ingest.rejects import duplicates
from headrace_compute.ingest.validate import validate
from headrace_compute.kernels.rows import column_hashes, first_rows, row_hashes, validity
from headrace_compute.model import Block, UploadSpec


@dataclass(frozen=True)
class UploadRows:
    """Which rows of a block belong to which of several uploads, one upload after the other.

    Attributes:
        ids: upload_id of each upload.
        starts: int64 per upload and one more, where its rows begin.
        owner: int64 per row, the place of its upload in `ids`.
        number: int64 per row, its row_number.
    """

    ids: pa.StringArray
    starts: np.ndarray
    owner: np.ndarray
    number: np.ndarray

    @classmethod
    def of(cls, uploads: Sequence[tuple[str, int]]) -> "UploadRows":
        """Those of uploads given as upload_id and number of rows."""
        counts = np.array([count for _, count in uploads], np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)])
        owner = np.repeat(np.arange(counts.size), counts)
        ids = pa.array([upload_id for upload_id, _ in uploads], pa.string())
        return cls(ids, starts, owner, np.arange(owner.size) - starts[owner])


@dataclass(frozen=True)
class Examined:
    """A block, parsed and validated.

    Attributes:
        failures: All rules broken, in the order in which one record's are told.
        keep: int64, rows that are accepted, ascending.
        doubled: int64, rows that equal an earlier one, ascending; `failures` has them too.
        hashes, valid: Per contract column a hash of each value (uint64), and whether it is there (bool).
        row_hashes: uint64 per record, over all contract columns.
    """

    parsed: Parsed
    failures: tuple[Failure, ...]
    keep: np.ndarray
    doubled: np.ndarray
    hashes: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    row_hashes: np.ndarray

    @property
    def key_hashes(self) -> np.ndarray:
        """xxh64 of each record's user_id (items: item_id): uint64."""
        return self.hashes[0]

    def cells(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Which records have anything in a contract column, and which of them what parses: bool each."""
        filled = readable = self.valid[column]
        for failure in self.parsed.failures:
            if failure.column == self.parsed.table.column_names[column]:
                filled, readable = filled.copy(), readable.copy()
                filled[failure.rows], readable[failure.rows] = True, False
        return filled, readable


def examine(
    spec: UploadSpec,
    block: Block,
    payload: np.ndarray | pa.Table | bytes,
    uploads: UploadRows | None = None,
) -> Examined:
    """Parses and validates a block, and finds its duplicates; stores nothing.

    Args:
        payload: As `parse` takes it.
        uploads: Whose rows they are if not all of one upload: rows of two uploads are never equal.

    Raises:
        InvalidFieldError: A json payload is no JSON array.
    """
    parsed = parse(spec, block, payload)
    table = parsed.table
    order = {name: place for place, name in enumerate(["", *table.column_names])}
    failures = sorted([*parsed.failures, *validate(spec, parsed)], key=lambda failure: order[failure.column])
    columns = [column.combine_chunks() for column in table.columns]
    hashes = tuple(column_hashes(column) for column in columns)
    valid = tuple(validity(column) for column in columns)
    cells = list(zip(hashes, valid, strict=True))
    if uploads is not None:
        # The upload is a column like the others.
        owner = pa.array(uploads.owner.astype(np.float64))
        table = table.append_column("", owner)
        cells.append((column_hashes(owner), validity(owner)))
    rows = row_hashes(cells)
    keep = _good_rows(table.num_rows, failures)
    first = keep[first_rows(table, rows[keep], keep)]
    again = first != keep
    doubled, stays = keep[again], first[again]
    if doubled.size:
        numbers = block.first_row + stays if uploads is None else uploads.number[stays]
        failures.append(duplicates(doubled, numbers))
    return Examined(parsed, tuple(failures), keep[~again], doubled, hashes, valid, rows)


def _good_rows(count: int, failures: Sequence[Failure]) -> np.ndarray:
    good = np.ones(count, np.bool_)
    for failure in failures:
        good[failure.rows] = False
    return np.flatnonzero(good)
