"""Rows written to one file, in each format."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.cli.export.file import export

TIMES = [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)]
BATCH = pa.record_batch(
    {
        "name": ["a", "b", "c"],
        "times": pa.array([TIMES, [], None], pa.list_(pa.timestamp("us", "UTC"))),
        "names": pa.array([['x "y"'], [], None], pa.list_(pa.string())),
    }
)


def test_lists_of_times_are_json_where_there_are_no_lists(tmp_path: Path) -> None:
    files = {ending: tmp_path / f"out.{ending}" for ending in ("parquet", "csv", "jsonl")}
    assert {export([BATCH], file) for file in files.values()} == {3}
    assert pq.read_table(files["parquet"]).to_batches()[0].equals(BATCH)
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    written = ["2026-01-02T03:04:05Z", "2026-01-03T00:00:00Z"]
    assert [line["times"] for line in lines] == [written, [], None]
    with files["csv"].open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [json.loads(row["times"]) if row["times"] else None for row in rows] == [written, [], None]
    assert json.loads(rows[0]["names"]) == ['x "y"']
