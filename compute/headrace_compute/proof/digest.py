"""Digests of the rows of each section of a table, in the order of the table."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.columns import BUCKET
from headrace_compute.kernels.digests import joined_digest, row_hashes, run_digests

SPLIT = "split"
"""The column of training data that says which split a row is in."""

NO_BUCKET = -1
"""The bucket of rows that have none."""


class Section(NamedTuple):
    """The rows of one bucket, of a table with splits those of one split; a stage makes all of them.

    Attributes:
        split: Empty without splits.
    """

    bucket: int
    split: str


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
    """Rows of one section that follow each other."""

    section: Section
    rows: pa.Table
    digest: Digest


def runs_of(rows: pa.Table) -> Iterator[Run]:
    """The rows of a table, cut where the section changes.

    Raises:
        TypeError: A column is of a type that no table of ours has.
        pyarrow.ArrowInvalid: The buckets are no numbers, or the splits no names.
    """
    if not rows.num_rows:
        return
    buckets = _column(rows, BUCKET, pa.int64(), NO_BUCKET).to_numpy()
    splits = _column(rows, SPLIT, pa.string(), "").dictionary_encode().unify_dictionaries().combine_chunks()
    changes = (np.diff(buckets) != 0) | (np.diff(splits.indices.to_numpy()) != 0)
    edges = np.array([0, *(np.flatnonzero(changes) + 1), rows.num_rows])
    digests = run_digests(row_hashes(rows), edges)
    for (begin, end), value in zip(pairwise(edges), digests, strict=True):
        section = Section(int(buckets[begin]), splits[begin].as_py())
        yield Run(section, rows.slice(begin, end - begin), Digest(int(end - begin), int(value)))


def _column(rows: pa.Table, name: str, kind: pa.DataType, default: int | str) -> pa.ChunkedArray:
    """A column of a table; a default where it is null, or not there."""
    if name not in rows.column_names:
        return pa.chunked_array([pa.repeat(pa.scalar(default, kind), rows.num_rows)])
    return pc.fill_null(rows[name].cast(kind), default)
