"""Rows to upload, and which of them must be in the table in the end: known from how they were made."""

import mmap
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

BAD_EVERY = 101
REPEAT_EVERY = 211
REPEAT_BACK = 200

_ROWS = """
SELECT
    'u' || m * 7919 % 100003 AS user_id,
    '{tag}-' || m AS item_id,
    CASE WHEN {dirty} AND m % {bad} = 0 THEN 'nonsense' ELSE ['view', 'click', 'purchase'][1 + m % 3] END
        AS interaction_type,
    strftime(TIMESTAMP '2024-01-01' + INTERVAL (m % 10000000) SECOND, '%Y-%m-%dT%H:%M:%SZ') AS "timestamp",
    CASE WHEN m % 4 = 0 THEN (1 + m % 5)::VARCHAR END AS rating
FROM (
    SELECT CASE WHEN {dirty} AND n % {every} = 5 AND n >= {back} THEN n - {back} ELSE n END AS m
    FROM range({rows}) AS numbers(n)
)
"""


@dataclass(frozen=True)
class Source:
    """A CSV file of interactions whose item_ids are all different.

    Attributes:
        data: The file's bytes.
        ends: int64, per record, the offset of the byte after it.
        accepted: bool per record, whether it belongs into the table.
    """

    tag: str
    data: mmap.mmap
    ends: np.ndarray
    accepted: np.ndarray

    @property
    def rows(self) -> int:
        """Records, good and bad."""
        return int(self.ends.size)

    @property
    def item_ids(self) -> pa.Array:
        """What tells the accepted rows apart."""
        return pa.array([f"{self.tag}-{n}" for n in np.flatnonzero(self.accepted)])

    @property
    def rejected_rows(self) -> np.ndarray:
        """Row numbers of what must be among the rejects."""
        return np.flatnonzero(~self.accepted)

    def accepted_before(self, offset: int) -> int:
        """How many accepted rows lie whole before an offset."""
        return int(self.accepted[: np.searchsorted(self.ends, offset, side="right")].sum())


def make_source(folder: Path, tag: str, rows: int, *, dirty: bool = True) -> Source:
    """Writes a file of rows.

    Args:
        tag: Begins every item_id; no two sources of a table may share it.
        dirty: Whether there are bad rows and repeated ones among them.
    """
    path = folder / f"{tag}.csv"
    query = _ROWS.format(tag=tag, rows=rows, dirty=dirty, bad=BAD_EVERY, every=REPEAT_EVERY, back=REPEAT_BACK)
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (HEADER, DELIMITER ',')")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))[1:] + 1
    numbers = np.arange(rows)
    repeats = dirty & (numbers % REPEAT_EVERY == 5) & (numbers >= REPEAT_BACK)
    bad = dirty & ((numbers - REPEAT_BACK * repeats) % BAD_EVERY == 0)
    assert ends.size == rows
    return Source(tag, data, ends, ~(repeats | bad))
