"""The rejects a block keeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace_compute.columns import CONTRACT
from headrace_compute.errors import TooLargeError
from headrace_compute.formats.header import MAX_COLUMNS, read_header
from headrace_compute.ingest import rejects
from headrace_compute.ingest.block import ingest_block
from headrace_compute.ingest.examine import examine
from headrace_compute.ingest.rejects import KeptRejects, reject_table
from headrace_compute.inputs.reading import read_rejects, reject_rows
from headrace_compute.model import ROW_GROUP_ROWS, Block, Part, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.pages import PAGE_BYTES
from headrace_compute.parts import write_part
from headrace_compute.report import report_of
from headrace_compute.schemas.contract import describe

COLUMNS = tuple(CONTRACT["interactions"])
SPEC = UploadSpec("up", "interactions", "d/", "r/", "s/", 0, 1 << 50, columns=COLUMNS)
LINES = b"u,i,view,2026-01-01,4\n" * 3 + b",,,,\n" * 500 + b"u,i,view,32-01-01,\n" * 20


def block_of(data: bytes) -> tuple[Block, np.ndarray]:
    rows = data.count(b"\n")
    return Block(0, "csv", 0, len(data), 0, rows, 1), np.frombuffer(data, np.uint8)


def test_rejects_made_by_slices_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    block, payload = block_of(LINES)
    examined = examine(SPEC, block, payload)
    arguments = (SPEC, block, examined.parsed.records, examined.failures)
    whole = reject_table(*arguments)
    monkeypatch.setattr(rejects, "REJECTS_AT_ONCE", 64)
    kept = KeptRejects(*arguments)
    assert pa.concat_tables(kept).combine_chunks().equals(whole)
    assert kept.left_out == 0


def test_a_block_keeps_its_first_rejects_and_counts_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    block, payload = block_of(LINES)
    config = StoreConfig(root=str(tmp_path_factory.mktemp("store")))
    every = ingest_block(config, SPEC, block, payload, "a")
    monkeypatch.setattr(rejects, "REJECTS_AT_ONCE", 100)
    monkeypatch.setattr(rejects, "MAX_REJECT_BYTES", 1)
    some = ingest_block(config, SPEC, block, payload, "b")
    told, all_told = (sum(part.rows for part in each.rejects) for each in (some, every))
    assert 100 <= told < 110
    assert some.findings.checks == every.findings.checks
    (warning,) = report_of(some.findings).warnings
    assert (warning.code, warning.count) == ("REJECTS_LEFT_OUT", all_told - told)
    rows = stored(config, some.rejects, 0, told)
    assert rows == stored(config, every.rejects, 0, told)
    assert rows[:7] == stored(config, some.rejects, 0, 7)


def stored(config: StoreConfig, parts: Sequence[Part], group: int, limit: int) -> list[dict[str, Any]]:
    return [row for page in read_rejects(config, parts, group, limit) for row in reject_rows(page)]


def test_rejects_are_read_a_page_at_a_time_from_wherever_they_are(tmp_path: Path) -> None:
    config = StoreConfig(root=str(tmp_path))
    count = ROW_GROUP_ROWS + 700
    table = pa.table({"row_number": range(count), "raw": ["é" * 300] * count})
    store = open_store(config)
    whole = [write_part(store, "raw-data/whole.parquet", table)]
    halves = [write_part(store, f"raw-data/{n}.parquet", table.slice(n, 1 << 14)) for n in (1 << 14, 0)]
    for parts in (whole, halves):
        pages = read_rejects(config, parts, 0, ROW_GROUP_ROWS)
        assert len(pages) > 1
        assert max(pa.ipc.open_stream(page).read_all().nbytes for page in pages) <= PAGE_BYTES
        assert [row["row_number"] for page in pages for row in reject_rows(page)] == list(range(1 << 14))
        assert [row["row_number"] for row in stored(config, parts, 1, 10)] == list(
            range(1 << 14, (1 << 14) + 10)
        )


def test_columns_are_counted_before_they_are_taken_apart() -> None:
    with pytest.raises(TooLargeError, match=f"has 1,048,577 columns, at most {MAX_COLUMNS:,} are taken"):
        read_header(describe("interactions").columns, b"," * (1 << 20), reject_unknown=False)
