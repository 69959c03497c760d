"""Training data made in this process, and what docs/semantics.md says of its source in plain Python."""

import asyncio
import itertools
import math
import uuid
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from headrace_compute.inputs.catalog import CATALOG_SCHEMA
from headrace_compute.inputs.workers import InProcess
from headrace_compute.model import BUCKETS, DataFile, Shard, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part
from headrace_compute.sink import PartSink
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.run import make_dataset
from headrace_compute.training.split import TEMPORAL

NO_CORE = SamplingParams(min_interactions_per_user=0, min_interactions_per_item=0)


def bucket(user: str) -> int:
    return xxhash.xxh64_intdigest(user.encode()) % BUCKETS


def make(
    root: Path,
    rows: list[Any],
    params: SamplingParams,
    *,
    catalog: Any = None,
    as_of_us: int | None = None,
    plan: int = 2,
) -> Any:
    """The dataset of rows of (user, item, type, time_us), and its table."""
    config = StoreConfig(str(root))
    stored = sorted(rows, key=lambda row: bucket(row[0]))
    users, items, kinds, times = zip(*stored, strict=True)
    table = pa.table(
        {
            "user_id": pa.array(users),
            "item_id": pa.array(items),
            "interaction_type": pa.array(kinds),
            "timestamp": pa.array(times, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "rating": pa.nulls(len(stored), pa.float64()),
            "bucket": pa.array(map(bucket, users), pa.int16()),
        }
    )
    part = write_part(open_store(config), f"raw/{uuid.uuid4().hex}.parquet", table)
    listed = None
    if catalog is not None:
        items_listed = [{"item_id": item, "bucket": bucket(item)} for item in sorted(catalog)]
        listed = pa.Table.from_pylist(items_listed, CATALOG_SCHEMA)
    edges = [BUCKETS * edge // plan for edge in range(plan + 1)]
    shards = [Shard(first, last) for first, last in itertools.pairwise(edges)]
    file = DataFile(part.key, part.rows, part.size_bytes)
    prefix = f"training/{uuid.uuid4().hex}/"
    dataset = asyncio.run(
        make_dataset(InProcess(config), [file], listed, shards, as_of_us, params, PartSink(prefix))
    )
    tables = [read_part(open_store(config), part.key) for part in dataset.parts]
    return dataset, pa.concat_tables(tables).combine_chunks()


def first_positives(rows: list[Any], types: Any) -> dict[Any, int]:
    """When each pair first is positive."""
    first: dict[Any, int] = {}
    for user, item, kind, time in rows:
        if kind in types:
            first[user, item] = min(time, first.get((user, item), time))
    return first


def core_of(pairs: set[Any], per_user: int, per_item: int) -> set[Any]:
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        left = {pair for pair in pairs if users[pair[0]] >= per_user and items[pair[1]] >= per_item}
        if left == pairs:
            return pairs
        pairs = left


def views_of(rows: list[Any], params: SamplingParams) -> Any:
    """The names of the splits, the rows that each sees, and their cuts."""
    split = params.split
    assert split is not None
    first = first_positives(rows, params.positive_types)
    if split.kind == TEMPORAL:
        in_order = sorted(first.values())
        cuts = list(split.cuts_us) or [
            in_order[math.floor(Fraction(str(share)) * len(in_order))] for share in split.fractions
        ]
        names = ("train", "valid", "test") if len(cuts) == 2 else ("train", "test")
        return names, [[row for row in rows if row[3] < end] for end in (*cuts, math.inf)], tuple(cuts)
    held: list[set[Any]] = [set(), set()]
    for user in {user for user, _ in first}:
        own = sorted((-time, item.encode(), item) for (who, item), time in first.items() if who == user)
        for place, (_, _, item) in enumerate(own[:2]):
            held[place].add((user, item))
    last, second = held
    without_last = [row for row in rows if (row[0], row[1]) not in last]
    train = [row for row in without_last if (row[0], row[1]) not in second]
    return ("train", "valid", "test"), [train, without_last, rows], ()
