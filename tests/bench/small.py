"""Small ingests: `PYTHONPATH=tests python -m bench.small [--commits N]`.

One-row calls one after another, then from many clients at once, on a real server; then how long a
table of that many small commits takes to open, after the upkeep that a server gives it.
"""

import argparse
import statistics
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pyarrow as pa
from harness.server import start_server
from rich.console import Console

from bench.run import WIDTH, Figure, table
from headrace.v1 import ingest_pb2, row_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub
from headrace_compute.delta import maintenance as upkeep
from headrace_compute.delta import tables
from headrace_compute.delta.appender import Addition, LogAppender
from headrace_compute.delta.receipts import Group
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part
from headrace_server.maintenance import CHECKPOINT_VERSIONS, COMPACT_VERSIONS

CALLS = 500
CLIENTS = 64
ROW = row_pb2.Interaction(user_id="u", item_id="i", interaction_type="view", timestamp="2026-01-01")


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=10_000)
    commits = parser.parse_args().commits
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = start_server(folder / "data")
        try:
            figures = [*one_client(server.address), many_clients(server.address)]
        finally:
            server.stop()
        figures += opening(StoreConfig(str(folder / "table")), commits)
    Console(width=WIDTH).print(table(figures))


def one_client(address: str) -> list[Figure]:
    """One call after another."""
    request = ingest_pb2.IngestInteractionsRequest(tenant_id="one", rows=[ROW])
    seconds = []
    with grpc.insecure_channel(address) as channel:
        stub = PipelineServiceStub(channel)
        for _ in range(CALLS):
            started = time.perf_counter()
            stub.IngestInteractions(request)
            seconds.append(time.perf_counter() - started)
    ordered = sorted(seconds)
    p50, p99 = statistics.median(seconds), ordered[CALLS * 99 // 100]
    return [Figure("one-row ingest, p50", 1, p50), Figure("one-row ingest, p99", 1, p99)]


def many_clients(address: str) -> Figure:
    """As many clients at once, each with one call after another."""
    request = ingest_pb2.IngestInteractionsRequest(tenant_id="many", rows=[ROW])

    def calls() -> None:
        with grpc.insecure_channel(address) as channel:
            stub = PipelineServiceStub(channel)
            for _ in range(CALLS // 8):
                stub.IngestInteractions(request)

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as threads:
        for done in [threads.submit(calls) for _ in range(CLIENTS)]:
            done.result()
    count = CLIENTS * (CALLS // 8)
    return Figure(f"one-row ingests from {CLIENTS} clients", count, time.perf_counter() - started)


def opening(config: StoreConfig, commits: int) -> list[Figure]:
    """Seconds for all the commits with their upkeep, and for opening the table then."""
    store = open_store(config)
    store.prepare()
    key = tables.interactions_key(config, "acme")
    schema = tables.SCHEMAS["interactions"]
    row = {name: "x" for name in schema.names if schema.field(name).type == pa.string()}
    rows = pa.Table.from_pylist([{**row, "timestamp": 0, "row_number": 0, "bucket": 0}], schema=schema)
    appender, done = LogAppender(config, key, "interactions", schema), 0
    started = time.perf_counter()
    for _ in range(commits):
        group = Group(str(uuid.uuid4()), 0)
        part = write_part(store, f"{key}/{group.id}.parquet", rows, stats=("bucket",))
        version = appender.append(Addition([(part, {})], group))
        if version - done >= COMPACT_VERSIONS:
            upkeep.compact(config, key, str(uuid.uuid4()), "bench")
            done = version
        if version % CHECKPOINT_VERSIONS == 0:
            upkeep.checkpoint(config, key, version)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    snapshot = tables.open_table(config, key)
    opened = time.perf_counter() - started
    assert snapshot.rows == commits
    return [
        Figure("commits with their upkeep", commits, seconds),
        Figure(f"opening the table: {len(snapshot.files)} files", 1, opened),
    ]


if __name__ == "__main__":
    main()
