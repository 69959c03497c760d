"""The exchange against a plain reading of its rows: every row reaches its shard, once and as it was."""

import pickle
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.delta.layout import CONTRACT_SCHEMAS
from headrace_compute.inputs.exchange import Slice, exchange
from headrace_compute.inputs.numbering import number_items
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import BATCHES, BUCKETS, Batch, DataFile, Shard, StoreConfig, batch_plan
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part

START = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = CONTRACT_SCHEMAS["interactions"]


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(str(tmp_path))


def some_rows(count: int, seed: int, rated: bool = True) -> pa.Table:
    chance = random.Random(seed)
    rows = [
        {
            "user_id": f"u{chance.randrange(50)}é",
            "item_id": f"i{chance.randrange(20)}",
            "interaction_type": chance.choice(INTERACTION_TYPES),
            "timestamp": START + timedelta(microseconds=chance.randrange(1000)),
            "rating": chance.choice([None, 1.0, 4.5]) if rated else None,
        }
        for _ in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def stored(config: StoreConfig, name: str, rows: pa.Table, ordered: bool = True) -> DataFile:
    """The rows as a part."""
    users = rows["user_id"].combine_chunks()
    table = rows.append_column("bucket", pa.array(bucket_of(xxh64_strings(users))))
    table = table.sort_by("bucket") if ordered else table
    part = write_part(open_store(config), f"raw-data/acme/interactions/{name}.parquet", table)
    return DataFile(part.key, part.rows, part.size_bytes)


def exchanged(
    config: StoreConfig, files: Sequence[DataFile], plan: Sequence[Shard], as_of_us: Any = None
) -> Any:
    item_ids, *slices = exchange(config, Batch(0, tuple(files)), plan, as_of_us)
    return item_ids, slices


def rows_of(item_ids: pa.Array, rows: Slice) -> list[tuple[Any, ...]]:
    """A slice as tuples of what the columns had."""
    return sorted(
        zip(
            rows.user_ids.to_pylist(),
            item_ids.take(pa.array(rows.items)).to_pylist(),
            [INTERACTION_TYPES[place] for place in rows.types],
            rows.times_us.tolist(),
            [None if rating != rating else rating for rating in rows.ratings.tolist()],
            strict=True,
        ),
        key=str,
    )


def expected(tables: Sequence[pa.Table], shard: Shard, as_of_us: int | None) -> list[tuple[Any, ...]]:
    rows = pa.concat_tables(tables)
    rows = rows.set_column(3, "timestamp", rows["timestamp"].cast(pa.int64()))
    found = [tuple(row.values()) for row in rows.to_pylist()]
    buckets = bucket_of(xxh64_strings(rows["user_id"].combine_chunks()))
    inside = [row for row, bucket in zip(found, buckets, strict=True) if shard.first <= bucket < shard.last]
    return sorted((row for row in inside if as_of_us is None or row[3] < as_of_us), key=str)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("late", [None, 0, 500, 2000])
def test_every_row_reaches_its_shard_as_it_was(config: StoreConfig, ordered: bool, late: int | None) -> None:
    tables = [some_rows(300, 1), some_rows(1, 2), some_rows(0, 3), some_rows(700, 4, rated=False)]
    files = [stored(config, str(number), table, ordered) for number, table in enumerate(tables)]
    as_of_us = None if late is None else int(START.timestamp()) * 1_000_000 + late
    plan = [Shard(0, 1), Shard(1, 400), Shard(400, 401), Shard(401, BUCKETS)]
    item_ids, slices = exchanged(config, files, plan, as_of_us)
    for shard, rows in zip(plan, slices, strict=True):
        assert rows_of(item_ids, rows) == expected(tables, shard, as_of_us)
    used = {row[1] for rows in slices for row in rows_of(item_ids, rows)}
    assert sorted(item_ids.to_pylist()) == sorted(used)


def test_ratings_that_are_null_take_a_bit(config: StoreConfig) -> None:
    file = stored(config, "p", some_rows(80, 1, rated=False))
    _, [rows] = exchanged(config, [file], [Shard(0, BUCKETS)])
    assert (rows.rated.nbytes, rows.some_ratings.nbytes) == (10, 0)


def test_a_slice_is_as_large_as_its_own_rows(config: StoreConfig) -> None:
    file = stored(config, "p", some_rows(20_000, 1))
    plan = [Shard(edge * 16, edge * 16 + 16) for edge in range(64)]
    _, slices = exchanged(config, [file], plan)
    sizes = [len(pickle.dumps(rows)) for rows in slices]
    assert max(sizes) < sum(sizes) / 4


def test_items_are_numbered_in_byte_order_of_their_ids() -> None:
    catalog = pa.table({"item_id": ["b", "z", "é"]})
    batches = [pa.array(["z", "a"]), pa.array([], pa.string()), pa.array(["\U0001f600", "b", "Z"])]
    numbering = number_items(StoreConfig(""), catalog, *batches)
    assert numbering.item_ids.to_pylist() == ["Z", "a", "b", "z", "é", "\U0001f600"]
    assert numbering.listed.tolist() == [2, 3, 4]
    assert [places.tolist() for places in numbering.places] == [[3, 1], [], [5, 2, 0]]
    alone = number_items(StoreConfig(""), None)
    assert (len(alone), alone.listed.tolist(), alone.places) == (0, [], ())


@pytest.mark.parametrize(
    ("rows", "batches"), [([5], 1), ([10] * 1000, 2), ([150_000] * 14, 2), ([150_000] * 4000, BATCHES)]
)
def test_batches_hold_every_file_once_and_are_not_too_many(rows: list[int], batches: int) -> None:
    files = [DataFile(f"p{number}", count, 1) for number, count in enumerate(rows)]
    plan = batch_plan(files)
    assert [file for batch in plan for file in batch.files] == files
    assert [batch.number for batch in plan] == list(range(len(plan)))
    assert len(plan) <= batches
    assert batch_plan([]) == ()


def test_numbers_of_every_item_are_found_again() -> None:
    ids = pa.array([f"i{number}" for number in range(1000)])
    numbering = number_items(StoreConfig(""), None, ids, ids.slice(500))
    for places, batch in zip(numbering.places, (ids, ids.slice(500)), strict=True):
        assert pc.all(pc.equal(numbering.item_ids.take(pa.array(places)), batch)).as_py()
