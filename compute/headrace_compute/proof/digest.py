"""Digests of the rows of each bucket, in the order of the table."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.columns import BUCKET
from headrace_compute.kernels.digests import joined_digest, row_hashes, run_digests

NO_BUCKET = -1
"""The bucket of rows that have none."""


class Digest(NamedTuple):
    """Of rows in their order.

    Attributes:
        rows: How many.
        value: Equal for equal rows.
    """

    rows: int = 0
    value: int = 0

    def then(self, others: "Digest") -> "Digest":
        """Of these rows, and others behind them."""
        return Digest(self.rows + others.rows, joined_digest(self.value, others.value, others.rows))


class Run(NamedTuple):
    """Rows of one bucket that follow each other."""

    bucket: int
    rows: pa.Table
    digest: Digest


def runs_of(rows: pa.Table) -> Iterator[Run]:
    """The rows of a table, cut where the bucket changes.

    Raises:
        TypeError: A column is of a type that no table of ours has.
        pyarrow.ArrowInvalid: The buckets are no numbers.
    """
    buckets = buckets_of(rows)
    starts = np.flatnonzero(np.diff(buckets, prepend=NO_BUCKET - 1))
    edges = np.append(starts, len(buckets))
    digests = run_digests(row_hashes(rows), edges)
    for number, begin in enumerate(starts):
        count = int(edges[number + 1] - begin)
        yield Run(int(buckets[begin]), rows.slice(begin, count), Digest(count, int(digests[number])))


def buckets_of(rows: pa.Table) -> np.ndarray:
    """The bucket of each row, int64.

    Raises:
        pyarrow.ArrowInvalid: They are no numbers.
    """
    if BUCKET not in rows.column_names:
        return np.full(rows.num_rows, NO_BUCKET)
    numbers: np.ndarray = pc.fill_null(rows[BUCKET].cast(pa.int64()), NO_BUCKET).to_numpy()
    return numbers
