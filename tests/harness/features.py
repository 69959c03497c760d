"""Feature tables made in this process, of rows that a test gives."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pyarrow as pa
import xxhash

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.delta.layout import CONTRACT_SCHEMAS
from headrace_compute.features.aggregate import ItemFeatures, UserShard, user_shard, write_items
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import features_of, schema_of
from headrace_compute.features.snapshot import add_partials
from headrace_compute.inputs.catalog import CATALOG_SCHEMA
from headrace_compute.inputs.source import Source, read_source
from headrace_compute.inputs.workers import InProcess
from headrace_compute.model import BUCKETS, DataFile, Part, Shard, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part
from headrace_compute.sink import PartSink

CONTRACT_SCHEMA = CONTRACT_SCHEMAS["interactions"]
DEFAULTS = FeatureParams()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = tuple[str, str, str, datetime, float | None]
"""user_id, item_id, interaction_type, timestamp, rating."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def micros(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def bucket(name: str) -> int:
    return xxhash.xxh64_intdigest(name.encode()) % BUCKETS


def store_rows(config: StoreConfig, uploads: Sequence[Sequence[Row]]) -> list[DataFile]:
    """Writes each upload's rows as the part of one block."""
    store = open_store(config)
    files = []
    for upload, rows in enumerate(uploads):
        clustered = sorted(rows, key=lambda row: (bucket(row[0]), row[0].encode()))
        columns = dict(zip(CONTRACT_SCHEMA.names, zip(*clustered, strict=True), strict=True))
        table = pa.table({**columns, "bucket": [bucket(row[0]) for row in clustered]}).cast(
            pa.schema([*CONTRACT_SCHEMA, ("bucket", pa.int16())])
        )
        part = write_part(store, f"raw-data/acme/interactions/{upload}.parquet", table)
        files.append(DataFile(part.key, part.rows, part.size_bytes))
    return files


def read(
    config: StoreConfig,
    files: Sequence[DataFile],
    shards: Sequence[Shard],
    as_of: datetime | None,
    catalog: pa.Table | None = None,
) -> Source:
    """What `read_source` gives, with everything in this process."""
    until_us = None if as_of is None else micros(as_of)
    reading = read_source(InProcess(config), files, catalog, shards, until_us, lambda *_: None)
    return asyncio.run(reading)


def shard_of(*how: Any) -> tuple[UserShard[Part], pa.Table]:
    """What `user_shard` gives, but for the sketch."""
    written, partial, _ = user_shard(*how)
    assert isinstance(written, UserShard)
    assert isinstance(partial, pa.Table)
    return written, partial


def compute(
    config: StoreConfig,
    uploads: Sequence[Sequence[Row]],
    as_of: datetime,
    edges: Sequence[int] = (0, BUCKETS),
    catalog: pa.Table | None = None,
    params: FeatureParams = DEFAULTS,
) -> tuple[pa.Table, pa.Table, ItemFeatures[Part]]:
    """Runs the stages under a shard plan and reads back what they wrote."""
    run = f"features/acme/{'-'.join(map(str, edges))}"
    plan = [Shard(a, b) for a, b in pairwise(edges)]
    source = read(config, store_rows(config, uploads), plan, as_of, catalog)
    as_of_us, sink = micros(as_of), PartSink(f"{run}/users-")
    shards = [
        shard_of(config, shard, as_of_us, sink, str(shard.first), params, source.numbering, *share)
        for shard, share in zip(plan, source.shares, strict=True)
    ]
    totals = add_partials(config, features_of("item", params), *(partial for _, partial in shards))
    of_all = (catalog, source.numbering, totals)
    items = write_items(config, PartSink(f"{run}/items-"), as_of_us, params, *of_all)
    user_parts = [part for written, _ in shards for part in written.parts]
    users = read_parts(config, user_parts, schema_of("user", params))
    return users, read_parts(config, items.parts, schema_of("item", params)), items


def read_parts(config: StoreConfig, parts: Sequence[Part], schema: pa.Schema) -> pa.Table:
    store = open_store(config)
    return pa.concat_tables(
        [schema.empty_table(), *(read_part(store, part.key).cast(schema) for part in parts)]
    )


def catalog_of(**titles: str) -> pa.Table:
    rows = [
        {"item_id": item, "title": title, "category": "c", "price": 9.5, "bucket": bucket(item)}
        for item, title in sorted(titles.items())
    ]
    return pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA)


def many_rows() -> list[Row]:
    """Always the same, before March 2024."""
    some = random.Random(7)
    return [
        (
            f"u{some.randrange(120)}",
            f"i{some.randrange(40)}",
            some.choice(sorted(INTERACTION_TYPES)),
            at("2024-01-01") + timedelta(hours=some.randrange(1_400)),
            some.choice([None, 1.5, 4.0]),
        )
        for _ in range(1_500)
    ]


def catalog_files(config: StoreConfig, catalog: pa.Table) -> list[DataFile]:
    """The catalog as the items of one upload."""
    count = catalog.num_rows
    stored = catalog.append_column("upload_id", pa.array(["u"] * count))
    stored = stored.append_column("row_number", pa.array(range(count), pa.int64()))
    stored = stored.append_column("ingested_at", pa.array([0] * count, pa.timestamp("us", tz="UTC")))
    part = write_part(open_store(config), "raw-data/acme/items/0.parquet", stored.sort_by("bucket"))
    return [DataFile(part.key, part.rows, part.size_bytes)]
