"""What reading the source of a run asks of an object store: a few requests a part, each byte once."""

import asyncio
import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from brokers.minio import Minio
from contract.reach import s3_of
from contract.relay import relay_to

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.inputs.events import gather, newest_event
from headrace_compute.inputs.source import read_source
from headrace_compute.inputs.workers import InProcess
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import DataFile, StoreConfig, shard_plan
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part

pytest_plugins = ["brokers.fixtures"]

PARTS, ROWS = 4, 100_000
START_US = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def stored(config: StoreConfig, seed: int) -> DataFile:
    """A part as an upload's block leaves it, with the columns that runs do not read."""
    some = np.random.default_rng(seed)
    users = pa.array([f"u{number:06}" for number in some.integers(0, 20_000, ROWS)])
    table = pa.table(
        {
            "user_id": users,
            "item_id": [f"i{number:05}" for number in some.integers(0, 2_000, ROWS)],
            "interaction_type": random.Random(seed).choices(INTERACTION_TYPES, k=ROWS),
            "timestamp": pa.array(START_US + some.integers(0, 10**12, ROWS), pa.timestamp("us", tz="UTC")),
            "rating": pa.array([None] * ROWS, pa.float64()),
            "upload_id": [str(uuid.UUID(int=seed))] * ROWS,
            "row_number": pa.array(range(ROWS), pa.int64()),
            "bucket": bucket_of(xxh64_strings(users)),
        }
    )
    part = write_part(open_store(config), f"{config.raw}/acme/{uuid.uuid4().hex}", table.sort_by("bucket"))
    return DataFile(part.key, part.rows, part.size_bytes)


def test_a_part_costs_few_requests_and_is_read_once(minio: Minio, s3_config: StoreConfig) -> None:
    files = [stored(s3_config, number) for number in range(PARTS)]
    with relay_to(minio.endpoint) as relay:
        config = replace(s3_config, s3=replace(s3_of(minio), endpoint=relay.endpoint))
        # As many shards as there would be of eight million rows.
        shards = shard_plan(8_000_000)
        as_of_us = newest_event(config, files) + 1
        reading = read_source(InProcess(config), files, None, shards, as_of_us, lambda *_: None)
        source = asyncio.run(reading)
        rows = sum(gather(source.numbering, share).rows.num_rows for share in source.shares)
    assert rows == PARTS * ROWS
    for file in files:
        asked = [request for request in relay.seen if request.object_path == f"/{file.key}"]
        assert {request.method for request in asked} <= {"GET", "HEAD"}
        assert len(asked) <= 6, [(request.method, request.headers.get("range")) for request in asked]
        read = sum(request.asked_bytes(file.size_bytes) for request in asked if request.method == "GET")
        assert file.size_bytes / 4 < read <= 1.5 * file.size_bytes
