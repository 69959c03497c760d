"""Row events to Kafka: `PYTHONPATH=tests python -m bench.relay --bootstrap HOST:PORT [--rows N]`.

Ours reads a part, makes payloads and publishes them, as the relay does. The peer is
confluent-kafka's producer, one `produce` an event, with the same keys, headers and
payloads, which it gets from the same code, and the same guarantees: every replica
acknowledges, nothing twice, nothing out of order. Each run is a process of its own, so
that its memory is its own, and ends when the broker has acknowledged everything.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from brokers.kafka import start_kafka
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from rich.console import Console

from headrace_compute.delta.layout import SCHEMAS
from headrace_compute.objects.local import LocalStore
from headrace_compute.parts import part_row_groups, read_row_groups, write_part
from headrace_server.events.batch import EventBatch
from headrace_server.events.compression import Compression
from headrace_server.events.kafka import KafkaSink
from headrace_server.events.kafka_config import KafkaConfig
from headrace_server.events.options import Format
from headrace_server.events.payload import row_events

if TYPE_CHECKING:
    from bench.run import Figure

ROWS = 1_000_000
RUNS = 3
PARTITIONS = 6
GROUPS_AT_ONCE = 4
PART = "part.parquet"


def main() -> None:
    """Prints the figures; starts a broker unless told of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--compression", choices=get_args(Compression), default="lz4")
    parser.add_argument(
        "--run", nargs=4, metavar=("WHO", "FORMAT", "TOPIC", "FOLDER"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run_here(options.bootstrap, options.compression, *options.run)))
        return
    from bench.run import WIDTH, table  # It may be what imported this module.

    with tempfile.TemporaryDirectory() as name:
        broker = None if options.bootstrap else start_kafka(Path(name) / "kafka")
        try:
            bootstrap = broker.bootstrap if broker else options.bootstrap
            Console(width=WIDTH).print(table(measure(bootstrap, options.rows, options.compression)))
        finally:
            if broker:
                broker.kill()


def measure(bootstrap: str, rows: int = ROWS, compression: Compression = "lz4") -> "list[Figure]":
    """Figures for JSON and protobuf, ours beside the peer's on the same broker; the best of some runs."""
    from bench.run import Figure  # As above.

    figures = []
    with tempfile.TemporaryDirectory() as folder:
        write_part(LocalStore(folder), PART, interactions(rows))
        for format in get_args(Format):
            best: dict[str, dict[str, float]] = {}
            for _ in range(RUNS):
                for who in ("ours", "peer"):
                    found = _run(bootstrap, compression, who, format, folder, rows)
                    if who not in best or found["seconds"] < best[who]["seconds"]:
                        best[who] = found
            ours, peer = best["ours"], best["peer"]
            memory = f"peak {ours['peak_bytes'] / 2**20:.0f} MiB, peer {peer['peak_bytes'] / 2**20:.0f} MiB"
            figures.append(
                Figure(
                    f"row events to Kafka, {format}, {compression}",
                    rows,
                    ours["seconds"],
                    "confluent-kafka produce()",
                    peer["seconds"],
                    memory,
                )
            )
    return figures


def interactions(rows: int) -> pa.Table:
    """Rows as an upload stores them: users by some activity, three in ten rated."""
    random = np.random.default_rng(1)
    users, items = max(1, rows // 10), 5_000
    kinds = pa.array(["view", "click", "add_to_cart", "purchase", "like"])
    times_us = 1_770_000_000_000_000 - random.integers(0, 90 * 86_400, rows) * 1_000_000
    columns = {
        "user_id": pa.array([f"user_{number:06d}" for number in range(users)]).take(
            pa.array(random.integers(0, users, rows))
        ),
        "item_id": pa.array([f"item_{number:05d}" for number in range(items)]).take(
            pa.array(np.minimum(random.zipf(1.3, rows), items) - 1)
        ),
        "interaction_type": kinds.take(pa.array(random.choice(5, rows, p=[0.6, 0.2, 0.1, 0.05, 0.05]))),
        "timestamp": pa.array(times_us, pa.timestamp("us", "UTC")),
        "rating": pa.array(random.integers(2, 11, rows) / 2, mask=random.random(rows) > 0.3),
        "upload_id": pa.array([str(uuid.UUID(int=1 << 100))]).take(pa.array(np.zeros(rows, np.int64))),
        "row_number": pa.array(random.permutation(rows)),
        "ingested_at": pa.array(np.full(rows, 1_770_000_100_123_456), pa.timestamp("us", "UTC")),
        "bucket": pa.array(np.zeros(rows, np.int16)),
    }
    return pa.table(columns, SCHEMAS["interactions"])


def _run(
    bootstrap: str, compression: Compression, who: str, format: Format, folder: str, rows: int
) -> dict[str, float]:
    """One run in a process of its own, into a topic of its own, whose events are counted."""
    topic = f"bench-{uuid.uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    command = [sys.executable, "-m", "bench.relay", "--bootstrap", bootstrap, "--compression", compression]
    done = subprocess.run(
        [*command, "--run", who, format, topic, folder], check=True, capture_output=True, text=True
    )
    assert (there := events_in(bootstrap, topic)) == rows, f"{there:,} of {rows:,} events arrived"
    admin.delete_topics([topic])[topic].result(30)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def events_in(bootstrap: str, topic: str) -> int:
    """Records in a new topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic})
    try:
        ends = [
            consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1]
            for number in range(PARTITIONS)
        ]
    finally:
        consumer.close()
    return sum(ends)


def run_here(
    bootstrap: str, compression: Compression, who: str, format: Format, topic: str, folder: str
) -> dict[str, float]:
    """Seconds and peak memory of one run in this process."""
    if who == "ours":
        seconds = asyncio.run(_ours(KafkaConfig(bootstrap, compression=compression), topic, format, folder))
    else:
        seconds = _peer(bootstrap, compression, topic, format, folder)
    return {"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


async def _ours(config: KafkaConfig, topic: str, format: Format, folder: str) -> float:
    """Reads and encodes a batch while the one before is on its way, as the relay does."""
    sink = KafkaSink(config)
    try:
        assert await sink.connected()
        started = time.perf_counter()
        batches = _batches(folder, format)
        batch = await asyncio.to_thread(next, batches, None)
        while batch is not None:
            ahead = asyncio.create_task(asyncio.to_thread(next, batches, None))
            await sink.publish(topic, batch)
            batch = await ahead
        return time.perf_counter() - started
    finally:
        await sink.close()


def _peer(bootstrap: str, compression: Compression, topic: str, format: Format, folder: str) -> float:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": compression,
            "queue.buffering.max.messages": 1_000_000,
            "partitioner": "murmur2",
        }
    )
    producer.list_topics(topic, timeout=30)
    started = time.perf_counter()
    for events in _batches(folder, format):
        same: list[tuple[str, Any]] = [
            ("ce_specversion", b"1.0"),
            ("ce_source", f"/headrace/{events.tenant}".encode()),
            ("ce_type", events.type.encode()),
            ("ce_tenantid", events.tenant.encode()),
            ("content-type", events.content_type.encode()),
        ]
        times = pc.strftime(events.times_us.cast(pa.timestamp("us", "UTC")), "%Y-%m-%dT%H:%M:%SZ")
        columns = [column.cast(pa.binary()).to_pylist() for column in (events.keys, events.ids, times)]
        for key, name, at, value in zip(*columns, events.values.to_pylist(), strict=True):
            headers = [*same, ("ce_id", name), ("ce_time", at)]
            while True:
                try:
                    producer.produce(topic, value, key, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(120) == 0
    return time.perf_counter() - started


def _batches(folder: str, format: Format) -> Iterator[EventBatch]:
    """The part's events, some row groups at a time."""
    store = LocalStore(folder)
    count = part_row_groups(store, PART)
    for first in range(0, count, GROUPS_AT_ONCE):
        groups = range(first, min(first + GROUPS_AT_ONCE, count))
        yield row_events("acme", "interactions", read_row_groups(store, PART, groups), format)


if __name__ == "__main__":
    main()
