"""`make bench`: how fast, beside a peer on the same data in the same run, and with how much memory.

Prints a table, asserts nothing. `--rows N` sets the interactions (default 1,000,000).
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from harness.server import Server, start_server
from rich.console import Console
from rich.table import Table

from bench import dirty, families
from bench.memory import Watch
from bench.peers import copy_to_parquet, duckdb_features
from headrace import Client
from headrace.sample import Sample, generate

RUNS = 3
WIDTH = 150


@dataclass(frozen=True)
class Figure:
    """One line of the result: what was done to how many rows, ours and the peer's seconds."""

    what: str
    rows: int
    ours_s: float
    peer: str = ""
    peer_s: float = 0.0
    memory: str = ""


def main() -> None:
    """Runs every benchmark and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    console = Console(width=WIDTH)
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = Sample(users=rows // 10, items=max(1000, rows // 100), interactions=rows)
        generate(sample, folder)
        server = start_server(folder / "data")
        try:
            figures = measure(server, folder, rows)
        finally:
            server.stop()
        console.print(table(figures))
        console.print(families.table(families.costs(folder / "data", "bench")))
    console.print(dirty.table(dirty.costs()))


def measure(server: Server, folder: Path, rows: int) -> list[Figure]:
    """All figures, in the order of the pipeline."""
    csv, parquet = folder / "interactions.csv", folder / "peer.parquet"
    with Client(server.address, timeout=600) as client:
        client.upload("warm", "items", folder / "items.csv")
        client.upload("warm", "interactions", csv)
        client.upload("bench", "items", folder / "items.csv")
        tenants = iter(["bench", *(f"bench{n}" for n in range(RUNS))])
        upload_s = best(lambda: client.upload(next(tenants), "interactions", csv))
        # Apart from the timing: summing up the pages of a dozen processes takes a tenth of its time.
        with Watch(server.process.pid) as watch:
            client.upload(next(tenants), "interactions", csv)
        copy_s = best(lambda: copy_to_parquet(csv, parquet))
        features_s = best(lambda: client.compute_features("bench"))
        plain_s = best(lambda: duckdb_features(parquet))
        negatives_s = best(lambda: client.sample_negatives("bench", seed=1))
        training = next(each for each in client.list_tables("bench") if each.name == "training_data")
        figures = [
            Figure(
                "upload CSV, validated, committed",
                rows,
                upload_s,
                "DuckDB COPY csv TO parquet",
                copy_s,
                str(watch),
            ),
            Figure(
                "features, users and items",
                rows,
                features_s,
                "DuckDB, plain SQL, Parquet in and out",
                plain_s,
            ),
            Figure("negatives 1:4, popularity, written", training.rows, negatives_s),
        ]
        return [*figures, *ingest_latency(client)]


def ingest_latency(client: Client) -> list[Figure]:
    """One-row ingests, one after another."""
    row = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2026-01-01"}
    seconds = []
    for _ in range(200):
        started = time.perf_counter()
        client.ingest_interactions("small", [row])
        seconds.append(time.perf_counter() - started)
    p50, p99 = statistics.median(seconds), sorted(seconds)[197]
    return [Figure("one-row ingest, p50", 1, p50), Figure("one-row ingest, p99", 1, p99)]


def best(run: Callable[[], Any]) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def table(figures: list[Figure]) -> Table:
    """The figures for people."""
    shown = Table("what", "rows", "seconds", "rows/s", "peer", "peer rows/s", "ratio", "memory")
    for figure in figures:
        peer = (
            [f"{figure.rows / figure.peer_s:,.0f}", f"{figure.peer_s / figure.ours_s:.2f}x"]
            if figure.peer
            else ["", ""]
        )
        rate = f"{figure.rows / figure.ours_s:,.0f}" if figure.rows > 1 else ""
        shown.add_row(
            figure.what, f"{figure.rows:,}", f"{figure.ours_s:.4f}", rate, figure.peer, *peer, figure.memory
        )
    return shown


if __name__ == "__main__":
    main()
