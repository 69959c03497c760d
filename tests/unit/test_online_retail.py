"""The real slice in tests/data/online_retail gives the counts of its README and the oracle's features."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from harness.features import DEFAULTS, micros, read_parts
from harness.oracle import DAY, assert_rows, expected_items, expected_users
from harness.retail import DATA, current_catalog, valid_interactions
from harness.workers import Unordered

from headrace_compute.features.cut_run import Wanted, features_at_cuts
from headrace_compute.features.registry import features_of, schema_of
from headrace_compute.features.run import make_features
from headrace_compute.findings import Findings
from headrace_compute.formats.header import check_header
from headrace_compute.ingest.block import ingest_block
from headrace_compute.ingest.duplicates import (
    drop_duplicates,
    find_duplicates,
    hash_ranges,
    parts_of,
)
from headrace_compute.inputs.catalog import current_catalog as catalog_stage
from headrace_compute.inputs.source import read_source
from headrace_compute.kernels.framing import CsvFramer
from headrace_compute.model import BUCKETS, Block, DataFile, DataType, Shard, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part
from headrace_compute.report import report_of
from headrace_compute.sink import PartSink


def _upload(root: Path, data_type: DataType, block_bytes: int) -> tuple[Findings, list[DataFile], int]:
    config, framer = StoreConfig(root=str(root)), CsvFramer()
    framer.feed((DATA / f"{data_type}.csv").read_bytes())
    framed = framer.finish(block_bytes)
    columns = check_header(config, data_type, framer.header or b"", False)
    folders = (f"raw-data/{data_type}/", f"processed-data/{data_type}/", f"raw-data/s/{data_type}/")
    spec = UploadSpec("up", data_type, *folders, 0, 2**60, columns)
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
    hashed = parts_of(blocks)
    found = [find_duplicates(config, spec, hashed, span) for span in hash_ranges(data_type, hashed)]
    kept = [drop_duplicates(config, spec, each, "b", *found) for each in blocks]
    findings = kept[0].findings
    for each in kept[1:]:
        findings = findings.merge(each.findings)
    parts = [each.data for each in kept if each.data]
    files = [DataFile(part.key, part.rows, part.size_bytes) for part in parts]
    return findings, files, sum(part.redefined for part in found)


def _rows(root: Path, files: Sequence[DataFile]) -> list[dict[str, object]]:
    store = open_store(StoreConfig(root=str(root)))
    return [row for file in files for row in read_part(store, file.key).to_pylist()]


@pytest.mark.parametrize("block_bytes", [8 << 20, 20_000])
def test_interactions(tmp_path: Path, block_bytes: int) -> None:
    findings, files, _ = _upload(tmp_path, "interactions", block_bytes)
    rows = _rows(tmp_path, files)
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
    findings, files, redefined = _upload(tmp_path, "items", block_bytes)
    rows = _rows(tmp_path, files)
    assert (findings.received, findings.accepted, findings.duplicates) == (2_015, 2_001, 0)
    assert {key: check.failing_rows for key, check in findings.checks.items()} == {("title", "MISSING"): 14}
    assert redefined == len(rows) - len({row["item_id"] for row in rows})
    warnings = [(warning.code, warning.column) for warning in report_of(findings).warnings]
    assert warnings == [("ALL_NULL", "brand"), ("ALL_NULL", "category"), ("ALL_NULL", "description")]


@pytest.mark.parametrize("shards", [1, 2, 7, pytest.param(64, marks=pytest.mark.slow)])
def test_features_are_those_of_the_oracle_however_it_is_cut(tmp_path: Path, shards: int) -> None:
    """From the bytes of the file to both tables; blocks and shards are cut anew in each case."""
    _, interactions, _ = _upload(tmp_path, "interactions", 300_000 // min(shards, 7))
    _, items, _ = _upload(tmp_path, "items", 40_000)
    rows = valid_interactions()
    as_of = max(row[3] for row in rows) + DAY / 2
    run = make_features(
        Unordered(StoreConfig(str(tmp_path)), shards),
        interactions,
        items,
        _plan(shards),
        micros(as_of),
        DEFAULTS,
        PartSink("features/users-"),
        PartSink("features/items-"),
    )
    made = asyncio.run(run)
    assert made.interactions == len(rows) == 6_950
    config = StoreConfig(str(tmp_path))
    assert_rows(read_parts(config, made.users, schema_of("user", DEFAULTS)), expected_users(rows, as_of))
    expected = expected_items(rows, as_of, current_catalog())
    assert_rows(read_parts(config, made.items, schema_of("item", DEFAULTS)), expected)


def test_features_before_each_day_are_those_of_the_oracle(tmp_path: Path) -> None:
    """For each user and item before the day of each of its events, as training data asks for them."""
    config = StoreConfig(str(tmp_path))
    _, interactions, _ = _upload(tmp_path, "interactions", 100_000)
    _, items, _ = _upload(tmp_path, "items", 40_000)
    rows, plan, workers = valid_interactions(), _plan(3), Unordered(config, 3)
    catalog = catalog_stage(config, items)
    days = sorted({row[3] for row in rows})
    assert len(days) == 4  # There was none on the 4th, a Saturday.

    def asked(grain: str, place: int) -> pa.Table:
        cuts = pa.array([row[3] for row in rows], pa.timestamp("us", tz="UTC"))
        return pa.table({f"{grain}_id": [row[place] for row in rows], "cut": cuts})

    async def run() -> tuple[pa.Table, pa.Table]:
        source = await read_source(workers, interactions, catalog, plan, micros(days[-1]), lambda *_: None)
        features = features_of("user", DEFAULTS), features_of("item", DEFAULTS)
        wanted = Wanted([asked("user", 0)], [asked("item", 1)], *features, DEFAULTS)
        made = await features_at_cuts(workers, source, catalog, plan, wanted)
        return pa.concat_tables(made.users), pa.concat_tables(made.items)

    users, items_made = asyncio.run(run())
    listed = current_catalog()
    for day in days:
        of_day = pc.equal(users["cut"], pa.scalar(day, users["cut"].type))
        names = {row[0] for row in rows if row[3] == day}
        assert_rows(users.filter(of_day).drop_columns("cut"), expected_users(rows, day, names))
        of_day = pc.equal(items_made["cut"], pa.scalar(day, items_made["cut"].type))
        names = {row[1] for row in rows if row[3] == day}
        assert_rows(items_made.filter(of_day).drop_columns("cut"), expected_items(rows, day, listed, names))


def _plan(shards: int) -> list[Shard]:
    edges = [BUCKETS * number // shards for number in range(shards + 1)]
    return [Shard(first, last) for first, last in pairwise(edges)]
