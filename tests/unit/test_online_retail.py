"""The real slice in tests/data/online_retail gives the counts of its README."""

from pathlib import Path

import pytest

from headrace_compute.findings import Findings
from headrace_compute.formats.header import check_header
from headrace_compute.ingest.block import ingest_block
from headrace_compute.ingest.duplicates import (
    drop_duplicates,
    find_duplicates,
    hash_ranges,
    parts_of,
)
from headrace_compute.kernels.framing import CsvFramer
from headrace_compute.model import Block, DataType, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part
from headrace_compute.report import report_of

DATA = Path(__file__).parents[1] / "data" / "online_retail"


def _upload(
    root: Path, data_type: DataType, block_bytes: int
) -> tuple[Findings, list[dict[str, object]], int]:
    config, framer = StoreConfig(root=str(root)), CsvFramer()
    framer.feed((DATA / f"{data_type}.csv").read_bytes())
    framed = framer.finish(block_bytes)
    columns = check_header(config, data_type, framer.header or b"", False)
    spec = UploadSpec("up", data_type, "raw-data/a/", "processed-data/r/", "raw-data/s/", 0, 2**60, columns)
    blocks = []
    for index, (data, shape) in enumerate(framed):
        block = Block(
            index,
            "csv",
            shape.offset,
            shape.offset + shape.nbytes,
            shape.first_row,
            shape.rows,
            shape.first_line,
        )
        blocks.append(ingest_block(config, spec, block, data, "a"))
    parts = parts_of(blocks)
    found = [find_duplicates(config, spec, parts, span) for span in hash_ranges(data_type, parts)]
    kept = [drop_duplicates(config, spec, each, "b", *found) for each in blocks]
    findings = kept[0].findings
    for each in kept[1:]:
        findings = findings.merge(each.findings)
    store = open_store(config)
    rows = [row for each in kept if each.data for row in read_part(store, each.data.key).to_pylist()]
    return findings, rows, sum(part.redefined for part in found)


@pytest.mark.parametrize("block_bytes", [8 << 20, 20_000])
def test_interactions(tmp_path: Path, block_bytes: int) -> None:
    findings, rows, _ = _upload(tmp_path, "interactions", block_bytes)
    assert (findings.received, findings.accepted, findings.duplicates) == (9_999, 6_950, 658)
    assert {key: check.failing_rows for key, check in findings.checks.items()} == {
        ("user_id", "MISSING"): 2_291,
        ("interaction_type", "NOT_IN_SET"): 100,
        ("", "DUPLICATE"): 658,
    }
    assert len(rows) == 6_950
    assert (len({row["user_id"] for row in rows}), len({row["item_id"] for row in rows})) == (303, 1_689)
    days = sorted(str(row["timestamp"])[:10] for row in rows)
    assert (days[0], days[-1]) == ("2010-12-01", "2010-12-05")


@pytest.mark.parametrize("block_bytes", [8 << 20, 5_000])
def test_items(tmp_path: Path, block_bytes: int) -> None:
    findings, rows, redefined = _upload(tmp_path, "items", block_bytes)
    assert (findings.received, findings.accepted, findings.duplicates) == (2_015, 2_001, 0)
    assert {key: check.failing_rows for key, check in findings.checks.items()} == {("title", "MISSING"): 14}
    assert redefined == len(rows) - len({row["item_id"] for row in rows})
    warnings = [(warning.code, warning.column) for warning in report_of(findings).warnings]
    assert warnings == [("ALL_NULL", "brand"), ("ALL_NULL", "category"), ("ALL_NULL", "description")]
