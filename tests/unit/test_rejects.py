"""The rejects a block keeps."""

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
from headrace_compute.inputs.reading import read_rejects
from headrace_compute.model import Block, StoreConfig, UploadSpec
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
    rows = read_rejects(config, some.rejects, 0, told)
    assert rows == read_rejects(config, every.rejects, 0, told)
    assert rows[:7] == read_rejects(config, some.rejects, 0, 7)


def test_columns_are_counted_before_they_are_taken_apart() -> None:
    with pytest.raises(TooLargeError, match=f"has 1,048,577 columns, at most {MAX_COLUMNS:,} are taken"):
        read_header(describe("interactions").columns, b"," * (1 << 20), reject_unknown=False)
