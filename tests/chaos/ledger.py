"""The ledger: what the server has promised, held against what is in the table.

It knows no product code: it is told what came over the wire, and reads tables as anybody can.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from chaos.source import Source


class BrokenPromiseError(AssertionError):
    """The server has said something else before."""


@dataclass
class Account:
    """One upload: what was sent under its id, and what was answered.

    Attributes:
        acked: The highest offset that was acknowledged.
        result: Outcome, version and counts; None until they were told.
    """

    source: Source
    acked: int = 0
    result: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Audit:
    """What a table holds of what it was to hold.

    Attributes:
        acked: Rows that were promised: of finished uploads all, of others those before the acked offset.
        found: Rows in the table.
        lost: Promised rows of finished uploads that are not there, and acked ones that had to be sent again.
        doubled: Rows that are there more often than once.
        stray: Rows that no finished upload has.
    """

    acked: int
    found: int
    lost: int
    doubled: int
    stray: int

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing doubled, nothing of nobody's."""
        return (self.lost, self.doubled, self.stray) == (0, 0, 0)


@dataclass
class Ledger:
    """All uploads into one tenant's interactions."""

    accounts: dict[str, Account] = field(default_factory=dict)
    lost: int = 0

    def open(self, upload_id: str, source: Source) -> None:
        """Begins an account, or goes on with it."""
        self.accounts.setdefault(upload_id, Account(source))

    def ack(self, upload_id: str, offset: int) -> None:
        """The server has said that everything before the offset is safe."""
        account = self.accounts[upload_id]
        account.acked = max(account.acked, offset)

    def started(self, upload_id: str, offset: int) -> None:
        """The server has said where to go on. Before what was acked would be a loss."""
        account = self.accounts[upload_id]
        if offset < account.acked:
            before, after = map(account.source.accepted_before, (account.acked, offset))
            self.lost += max(1, before - after)
            account.acked = offset

    def finished(self, upload_id: str, result: Any) -> None:
        """The server has told the end of an upload, for the first time or again."""
        account = self.accounts[upload_id]
        told = (
            result.outcome,
            result.version,
            result.rows_received,
            result.rows_accepted,
            result.rows_rejected,
            result.rows_duplicate,
        )
        if account.result not in (None, told):
            raise BrokenPromiseError(f"upload {upload_id} ended with {account.result}, and now with {told}")
        account.result = told

    def audit(self, uri: str, rejects_uri: str, storage_options: Mapping[str, str]) -> Audit:
        """Counts, by row identity, in the table and among the rejects."""
        done = {key: each.source for key, each in self.accounts.items() if each.result is not None}
        found = _column(uri, "item_id", storage_options)
        expected = pa.concat_arrays([pa.array([], pa.string()), *(each.item_ids for each in done.values())])
        lost, doubled, stray = _compare(found, expected)
        rejected = Counter(_rejected(rejects_uri, storage_options))
        for upload_id, source in done.items():
            for row in source.rejected_rows:
                lost += not rejected.pop((upload_id, int(row)), 0)
        acked = sum(
            int(each.source.accepted.sum()) if each.result else each.source.accepted_before(each.acked)
            for each in self.accounts.values()
        )
        return Audit(acked, len(found), lost + self.lost, doubled, stray + sum(rejected.values()))


def _compare(found: pa.Array, expected: pa.Array) -> tuple[int, int, int]:
    """Lost, doubled and stray item_ids."""
    with duckdb.connect() as connection:
        connection.register("found", pa.table({"item_id": found}))
        connection.register("expected", pa.table({"item_id": expected}))
        counted = connection.execute(
            """
            WITH counted AS (SELECT item_id, count(*) AS times FROM found GROUP BY item_id)
            SELECT
                count(*) FILTER (counted.item_id IS NULL),
                coalesce(sum(times - 1) FILTER (counted.item_id IS NOT NULL), 0)::BIGINT,
                count(*) FILTER (expected.item_id IS NULL)
            FROM counted FULL JOIN expected ON counted.item_id = expected.item_id
            """
        ).fetchone()
    assert counted is not None
    return counted


def _column(uri: str, name: str, storage_options: Mapping[str, str]) -> pa.Array:
    if not DeltaTable.is_deltatable(uri, dict(storage_options)):
        return pa.array([], pa.string())
    column = DeltaTable(uri, storage_options=dict(storage_options)).to_pyarrow_table(columns=[name])[name]
    return pa.array([], pa.string()) if not len(column) else column.cast(pa.string()).combine_chunks()


def _rejected(uri: str, storage_options: Mapping[str, str]) -> list[tuple[str, int]]:
    """Upload and row number of every rejected row, once for every file that has it."""
    if not DeltaTable.is_deltatable(uri, dict(storage_options)):
        return []
    table = DeltaTable(uri, storage_options=dict(storage_options)).to_pyarrow_table(
        columns=["upload_id", "row_number"]
    )
    numbers = np.asarray(table["row_number"])
    return list(zip(table["upload_id"].to_pylist(), numbers.tolist(), strict=True))
