"""A stage that nobody waits for ends where it can."""

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headrace_compute import cancellation, parts
from headrace_compute.cancellation import StageCancelledError
from headrace_compute.inputs.duckdb_session import DuckDBSession
from headrace_compute.model import ROW_GROUP_ROWS, DataFile, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_parts


@pytest.fixture
def cancelled() -> Iterator[None]:
    """Every stage of this process is cancelled."""
    cancellation.watch(lambda: True)
    yield
    cancellation.watch(lambda: False)


def test_outside_of_a_worker_nothing_is_cancelled() -> None:
    cancellation.check()
    assert not cancellation.is_cancelled()


def test_reading_ends_before_the_next_file(cancelled: None, tmp_path: Path) -> None:
    files = [DataFile(key="raw-data/t/interactions/p.parquet", rows=1, size_bytes=1, partition={})]
    with pytest.raises(StageCancelledError):
        read_parts(open_store(StoreConfig(root=str(tmp_path))), files, ["user_id"])


def test_a_query_that_would_take_hours_is_interrupted() -> None:
    endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE hash(a.range, b.range) = 0"
    end = time.monotonic() + 0.3
    cancellation.watch(lambda: time.monotonic() > end)
    try:
        with DuckDBSession({"t": pa.table({"a": [1]})}) as session, pytest.raises(StageCancelledError):
            session.query(endless)
    finally:
        cancellation.watch(lambda: False)


def test_a_query_runs_to_its_end_when_nobody_cancels() -> None:
    with DuckDBSession({"t": pa.table({"a": [1, 2]})}) as session:
        assert session.query("SELECT a + $by AS b FROM t", {"by": 1, "unused": 2})["b"].to_pylist() == [2, 3]


def test_a_part_is_given_up_between_row_groups_and_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = 0

    def third_time() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    monkeypatch.setattr(parts, "PIECE_GROUPS", 1)
    table = pa.table({"a": range(5 * ROW_GROUP_ROWS)})
    store = open_store(StoreConfig(root=str(tmp_path)))
    cancellation.watch(third_time)
    try:
        with pytest.raises(StageCancelledError):
            parts.write_part(store, "raw-data/p.parquet", table)
    finally:
        cancellation.watch(lambda: False)
    assert not store.exists("raw-data/p.parquet")
    whole = parts.write_part(store, "raw-data/p.parquet", table)
    monkeypatch.setattr(parts, "PIECE_GROUPS", 3)
    assert parts.write_part(store, "raw-data/p.parquet", table) == whole  # Pieces change no byte.
