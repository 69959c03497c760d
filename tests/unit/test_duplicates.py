"""Duplicates across blocks: the same rows stay and go, wherever blocks end."""

import itertools
import random
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace_compute.ingest import duplicates, rejects
from headrace_compute.ingest.block import ingest_block
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.ingest.duplicates import (
    DuplicateCounts,
    count_duplicates,
    drop_duplicates,
    find_duplicates,
    hash_ranges,
    parts_of,
)
from headrace_compute.kernels.framing import CsvFramer
from headrace_compute.kernels.rows import first_hashes
from headrace_compute.model import DataType, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, verify_part
from headrace_compute.report import report_of

HEADERS: dict[DataType, str] = {
    "interactions": "user_id,item_id,interaction_type,timestamp,rating",
    "items": "item_id,title,category,price,brand,description",
}


class Upload:
    """An upload cut into blocks of about `target` bytes, its duplicates dropped."""

    def __init__(self, root: Path, data_type: DataType, records: list[str], target: int) -> None:
        self.config = StoreConfig(root=str(root))
        self.spec = UploadSpec(
            upload_id="up",
            data_type=data_type,
            part_prefix="raw-data/a/t/",
            rejects_prefix="processed-data/a/rejects/",
            sidecar_prefix="raw-data/_headrace/up/",
            started_us=0,
            latest_us=2**60,
            columns=tuple(HEADERS[data_type].split(",")),
        )
        framer = CsvFramer()
        framer.feed("\n".join([HEADERS[data_type], *records]).encode())
        blocks = [
            ingest_block(self.config, self.spec, shape.block(index), data, "first")
            for index, (data, shape) in enumerate(framer.finish(target))
        ]
        parts = parts_of(blocks)
        self.ranges = hash_ranges(data_type, parts)
        self.found = [find_duplicates(self.config, self.spec, parts, span) for span in self.ranges]
        self.counts_found = reduce(
            DuplicateCounts.merge,
            [count_duplicates(self.config, found) for found in self.found],
            DuplicateCounts(),
        )
        self.blocks = [
            drop_duplicates(self.config, self.spec, block, "second", *self.found) for block in blocks
        ]
        rewritten = {new.block.index for new, old in zip(self.blocks, blocks, strict=True) if new is not old}
        assert rewritten == self.counts_found.blocks

    def rows(self) -> list[dict[str, Any]]:
        store = open_store(self.config)
        parts = [block.data for block in self.blocks if block.data is not None]
        for part in parts:
            verify_part(store, part)
        rows = [row for part in parts for row in read_part(store, part.key).to_pylist()]
        return sorted(rows, key=lambda row: row["row_number"])

    def rejects(self) -> list[tuple[Any, ...]]:
        store = open_store(self.config)
        parts = [part for block in self.blocks for part in block.rejects]
        rows = [row for part in parts for row in read_part(store, part.key).to_pylist()]
        names = ("row_number", "line", "byte_offset", "code", "duplicate_of", "raw", "message")
        return sorted(tuple(row[name] for name in names) for row in rows)

    def counts(self) -> tuple[int, int, int, int]:
        def total(name: str) -> int:
            return sum(getattr(block, name) for block in self.blocks)

        return total("received"), total("accepted"), total("rejected"), total("duplicates")


def _interactions(count: int) -> list[str]:
    draw = random.Random(7)
    records = []
    for _ in range(count):
        user, item = draw.choice(["", "u1", "u2", "u3"]), draw.choice(["i1", "i2", "i3", "i4", "i5"])
        kind, rating = draw.choice(["view", "click", "buy"]), draw.choice(["", "4", "4.0", "5"])
        records.append(f"{user},{item},{kind},2025-01-0{draw.randint(1, 4)},{rating}")
    return records


def _oracle(records: list[str]) -> tuple[list[int], list[tuple[int, int]]]:
    """Row numbers that stay, and (row_number, duplicate_of) of those that go."""
    seen: dict[tuple[str, ...], int] = {}
    stay, go = [], []
    for number, record in enumerate(records):
        user, item, kind, day, rating = record.split(",")
        if not user or kind == "buy":
            continue
        key = (user, item, kind, day, rating[:1])
        if key in seen:
            go.append((number, seen[key]))
        else:
            seen[key] = number
            stay.append(number)
    return stay, go


@pytest.mark.parametrize("target", [1, 100, 1000, 5000, 1 << 20])
@pytest.mark.parametrize("range_rows", [40, 1 << 20])
def test_the_first_copy_stays_wherever_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: int, range_rows: int
) -> None:
    monkeypatch.setattr(duplicates, "RANGE_ROWS", range_rows)
    records = _interactions(60 if target == 1 else 400)
    upload = Upload(tmp_path, "interactions", records, target)
    stay, go = _oracle(records)
    bad = sum(record.startswith(",") or ",buy," in record for record in records)
    assert [row["row_number"] for row in upload.rows()] == stay
    found = [(row[0], row[4]) for row in upload.rejects() if row[3] == "DUPLICATE"]
    assert found == go
    assert upload.counts() == (len(records), len(stay), bad + len(go), len(go))
    for number, line, offset, code, first, raw, message in upload.rejects():
        assert line == number + 2
        assert offset == len(HEADERS["interactions"]) + 1 + sum(
            len(record) + 1 for record in records[:number]
        )
        if code == "DUPLICATE":
            assert raw is None
            assert message.startswith(f"The row equals row {first} of this upload")


def test_findings_tell_of_dropped_duplicates(tmp_path: Path) -> None:
    record = "u,i,view,2025-01-01,"
    upload = Upload(tmp_path, "interactions", [record] * 30, 2 * len(record) + 2)
    findings = upload.blocks[0].findings
    for block in upload.blocks[1:]:
        findings = findings.merge(block.findings)
    check = findings.checks["", "DUPLICATE"]
    assert (findings.received, findings.accepted, findings.duplicates, check.failing_rows) == (30, 1, 29, 29)
    assert [sample.row_number for sample in check.samples] == list(range(1, 21))
    assert {sample.duplicate_of for sample in check.samples} == {0}
    assert [block.data is None for block in upload.blocks] == [False] + [True] * 14


def test_rows_whose_hashes_collide_are_told_apart_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def colliding(columns: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        return np.full(columns[0][0].size, 5, np.uint64)

    monkeypatch.setattr("headrace_compute.ingest.examine.row_hashes", colliding)
    records = _interactions(200)
    stay, go = _oracle(records)
    for target in (1 << 20, 500):
        upload = Upload(tmp_path / str(target), "interactions", records, target)
        assert [row["row_number"] for row in upload.rows()] == stay
        assert [(row[0], row[4]) for row in upload.rejects() if row[3] == "DUPLICATE"] == go


@pytest.mark.parametrize("target", [1, 60, 1 << 20])
@pytest.mark.parametrize("range_rows", [2, 1 << 20])
def test_items_defined_again_with_other_values_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: int, range_rows: int
) -> None:
    monkeypatch.setattr(duplicates, "RANGE_ROWS", range_rows)
    records = ["a,A,,,,", "b,B,,1,,", "a,A,,,,", "a,AA,,,,", "c,C,,,,", "b,B,,1.0,,", "a,A,,2,,", "c,,,,,"]
    upload = Upload(tmp_path, "items", records, target)
    assert [row["row_number"] for row in upload.rows()] == [0, 1, 3, 4, 6]
    counts = upload.counts_found
    assert (counts.redefined, counts.redefined_samples) == (2, ("a", "a"))


def test_there_is_nothing_to_look_for_in_a_single_block_of_interactions(tmp_path: Path) -> None:
    assert Upload(tmp_path, "interactions", _interactions(50), 1 << 20).ranges == []
    assert Upload(tmp_path / "item", "items", ["a,A,,,,"], 1 << 20).ranges == []


def test_ranges_cover_every_hash_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(duplicates, "RANGE_ROWS", 7)
    ranges = Upload(tmp_path, "interactions", _interactions(100), 500).ranges
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 2**64 - 1
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ranges))


def test_a_result_without_duplicates_is_left_as_it_is(tmp_path: Path) -> None:
    upload = Upload(tmp_path, "interactions", ["u,i,view,2025-01-01,", "v,i,view,2025-01-01,"], 25)
    result: BlockResult = upload.blocks[0]
    assert drop_duplicates(upload.config, upload.spec, result, "third", *upload.found) is result


def test_of_duplicates_beyond_the_limit_of_a_block_the_first_are_kept_and_the_rest_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = "u,i,view,2025-01-01,"
    records = [record, "v" + record, *[f"x{n}{record}" for n in range(20)]] * 2
    half = sum(len(record) + 1 for record in records) // 2
    every = Upload(tmp_path / "every", "interactions", records, half)
    monkeypatch.setattr(rejects, "MAX_REJECT_BYTES", 1500)
    some = Upload(tmp_path / "some", "interactions", records, half)
    told, all_told = some.rejects(), every.rejects()
    assert 0 < len(told) < len(all_told) == 22
    assert told == all_told[: len(told)]
    assert some.rows() == every.rows()
    assert some.counts() == every.counts()
    (warning,) = [
        found for block in some.blocks for found in report_of(block.findings).warnings if found.count
    ]
    assert (warning.code, warning.count) == ("REJECTS_LEFT_OUT", len(all_told) - len(told))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shift", [0, 3, 24])
def test_hashes_of_a_narrow_range_are_told_apart_in_linear_time(shift: int) -> None:
    # A search holds one range of hashes: with 10 M rows all of them share their top bits.
    hashes = np.random.default_rng(5).integers(0, 2**64 >> shift, 1_000_000, np.uint64, endpoint=False)
    doubled = np.concatenate([hashes, hashes[:1000]])
    first = first_hashes(doubled)
    assert first[-1000:].tolist() == list(range(1000))
    assert np.unique(first).size == np.unique(hashes).size
