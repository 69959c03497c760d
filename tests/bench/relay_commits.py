"""Commit events to Kafka: `PYTHONPATH=tests python -m bench.relay_commits [--commits N]`.

Ours is the whole relay on a table with that many commits, from its first look at the
Delta log to the saved cursor. The peer is confluent-kafka's producer, given as many
ready-made events: it reads no log and keeps no cursor.
"""

import argparse
import asyncio
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

from brokers.kafka import start_kafka
from confluent_kafka import Producer
from rich.console import Console

from bench.relay import events_in, interactions
from bench.run import WIDTH, Figure, table
from headrace_compute.delta import tables
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part
from headrace_server.events.cursors import Cursors
from headrace_server.events.kafka import KafkaSink
from headrace_server.events.kafka_config import KafkaConfig
from headrace_server.events.options import EventOptions
from headrace_server.events.relay import Relay
from headrace_server.events.slots import AllSlots

TENANT, TABLE = "acme", "interactions"


def main() -> None:
    """Prints the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=1_000)
    commits = parser.parse_args().commits
    with tempfile.TemporaryDirectory() as name:
        broker = start_kafka(Path(name) / "kafka")
        try:
            config = StoreConfig(root=str(Path(name) / "data"))
            commit_rows(config, commits)
            topic = f"commits-{uuid.uuid4().hex[:8]}"
            ours = asyncio.run(relay(config, broker.bootstrap, topic))
            assert events_in(broker.bootstrap, topic) == commits
            peer = produce(broker.bootstrap, topic, commits)
        finally:
            broker.kill()
    figure = Figure("commit events to Kafka", commits, ours, "confluent-kafka produce()", peer)
    Console(width=WIDTH).print(table([figure]))


def commit_rows(config: StoreConfig, commits: int) -> None:
    """As many versions of a table, of one row each."""
    key = tables.interactions_key(config, TENANT)
    part = write_part(open_store(config), f"{key}/part.parquet", interactions(1), stats=("bucket",))
    for number in range(commits):
        tables.commit(
            config,
            key,
            kind="interactions",
            schema=tables.SCHEMAS["interactions"],
            parts=[part],
            transaction=str(number),
            metadata={"headrace.upload_id": str(number), "headrace.rows": "1"},
        )


async def relay(config: StoreConfig, bootstrap: str, topic: str) -> float:
    """Seconds from a relay's start until everything is published and the cursor is saved."""
    sink = KafkaSink(KafkaConfig(bootstrap))
    assert await sink.connected()
    relay = Relay(config, sink, Cursors(config, "bench"), AllSlots(), EventOptions({"interactions": topic}))
    started = time.perf_counter()
    running = asyncio.create_task(relay.run())
    relay.notify(TENANT, TABLE)
    await relay.drain()
    seconds = time.perf_counter() - started
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await sink.close()
    return seconds


def produce(bootstrap: str, topic: str, commits: int) -> float:
    """Seconds the peer takes for as many events of the same size."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    producer.list_topics(topic, timeout=30)
    value = bytes(300)
    headers: list[tuple[str, str | bytes | None]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"acme/interactions@1"),
    ]
    started = time.perf_counter()
    for _ in range(commits):
        producer.produce(topic, value, b"acme/interactions", headers=headers)
    assert producer.flush(60) == 0
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
