"""`make bench-scale`: what a row costs a run at several sizes, straight after the upload that brought it.

CPU seconds of all processes, Ray's included, per million rows; what the workers read, beside the size of the
table; peak memory of all processes. At one of the sizes the same features with DuckDB and Polars, each in a
process of its own. Prints tables, asserts nothing.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psutil
from harness.server import Server, start_server
from rich.console import Console
from rich.table import Table

from bench.memory import Watch
from bench.peers import FEATURES
from headrace import Client

RUNS = 2
ITEMS = 100_000
WIDTH = 150


@dataclass(frozen=True)
class Cost:
    """What something took: the fastest run's seconds, its CPU seconds and bytes read, and peak memory."""

    what: str
    rows: int
    seconds: float
    cpu_s: float
    read_share: float = 0.0
    peak_bytes: int = 0


def main() -> None:
    """Measures each size in turn, on a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=[2, 10, 50], metavar="N")
    parser.add_argument("--peers-at", type=int, default=10, metavar="N", help="size at which peers run too")
    args = parser.parse_args()
    console = Console(width=WIDTH)
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB")
    costs: list[Cost] = []
    for millions in args.millions:
        with tempfile.TemporaryDirectory() as name:
            rows, folder = millions * 1_000_000, Path(name)
            parquet = generate(folder, rows)
            costs += runs(folder, parquet, rows)
            if millions == args.peers_at:
                costs += [of_peer(peer, work, parquet, rows) for peer, work in FEATURES.items()]
    console.print(table(costs))


def generate(folder: Path, rows: int) -> Path:
    """Interactions of ten a user, on ITEMS items of unequal popularity, and a catalog of these."""
    parquet = folder / "interactions.parquet"
    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as connection:
        connection.sql("SELECT setseed(0.5)")
        connection.sql(
            f"""COPY (
                SELECT
                    'u' || lpad(floor(pow(random(), 1.5) * {rows // 10})::BIGINT::VARCHAR, 8, '0') AS user_id,
                    'i' || lpad(floor(pow(random(), 3) * {ITEMS})::BIGINT::VARCHAR, 7, '0') AS item_id,
                    CASE WHEN chance < 0.7 THEN 'view' WHEN chance < 0.85 THEN 'click'
                        WHEN chance < 0.92 THEN 'add_to_cart' WHEN chance < 0.97 THEN 'purchase'
                        ELSE 'like' END AS interaction_type,
                    TIMESTAMPTZ '2026-08-01' + to_seconds((random() * 7776000)::BIGINT) AS timestamp,
                    CASE WHEN chance > 0.95 THEN 1 + floor(random() * 5) END AS rating
                FROM (SELECT random() AS chance FROM range({rows}))
            ) TO '{parquet}' (COMPRESSION zstd)"""
        )
        connection.sql(
            f"""COPY (
                SELECT 'i' || lpad(range::VARCHAR, 7, '0') AS item_id, 'Item ' || range AS title,
                    'c' || range % 12 AS category, 1 + range % 100 / 3.0 AS price
                FROM range({ITEMS})
            ) TO '{folder / "items.csv"}' (HEADER)"""
        )
    return parquet


def runs(folder: Path, parquet: Path, rows: int) -> list[Cost]:
    """Both runs, the first of them straight after the upload."""
    server = start_server(folder / "data")
    try:
        with Client(server.address, timeout_s=3_600) as client:
            client.upload("bench", "items", folder / "items.csv")
            client.upload("bench", "interactions", parquet)
            stored = folder / "data" / "raw-data" / "bench" / "interactions"
            size = sum(file.stat().st_size for file in stored.rglob("*.parquet"))
            return [
                of_run(server, "features", rows, size, lambda: client.compute_features("bench")),
                of_run(server, "negatives", rows, size, lambda: client.sample_negatives("bench", seed=1)),
            ]
    finally:
        server.stop()


def of_run(server: Server, what: str, rows: int, table_bytes: int, run: Callable[[], Any]) -> Cost:
    """The fastest of some runs; memory of another one, as watching it takes time."""
    best: Cost | None = None
    for _ in range(RUNS):
        cpu_s, read, started = cpu_seconds(server), worker_bytes(server), time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        share = (worker_bytes(server) - read) / table_bytes
        cost = Cost(what, rows, seconds, cpu_seconds(server) - cpu_s, share)
        best = cost if best is None or cost.seconds < best.seconds else best
    assert best is not None
    with Watch(server.process.pid) as watch:
        run()
    return Cost(what, rows, best.seconds, best.cpu_s, best.read_share, watch.all_bytes)


def of_peer(name: str, work: Callable[[Path], None], parquet: Path, rows: int) -> Cost:
    """The same features by a peer, in a process of its own each time."""
    best: Cost | None = None
    for _ in range(RUNS):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, cpu_s, peak = pool.apply(_measured, (work, parquet))
        if best is None or seconds < best.seconds:
            best = Cost(f"features, {name}", rows, seconds, cpu_s, peak_bytes=peak)
    assert best is not None
    return best


def _measured(work: Callable[[Path], None], parquet: Path) -> tuple[float, float, int]:
    before, started = time.process_time(), time.perf_counter()
    work(parquet)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - before
    return seconds, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def family(server: Server) -> list[psutil.Process]:
    """The server and all that it started."""
    own = psutil.Process(server.process.pid)
    return [own, *own.children(recursive=True)]


def cpu_seconds(server: Server) -> float:
    """CPU seconds of all processes so far."""
    total = 0.0
    for process in family(server):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def worker_bytes(server: Server) -> int:
    """What the workers have read from files and sockets so far; Ray's shared memory is neither."""
    total = 0
    for process in family(server):
        with suppress(psutil.Error):
            # Others move what lies between two stages from and to the disk.
            if " ".join(process.cmdline()).startswith("ray::Worker"):
                total += process.io_counters().read_chars
    return total


def table(costs: list[Cost]) -> Table:
    """The costs for people."""
    shown = Table("what", "rows", "seconds", "CPU s", "CPU s / M rows", "read / table", "peak MiB, all PSS")
    for cost in costs:
        shown.add_row(
            cost.what,
            f"{cost.rows:,}",
            f"{cost.seconds:.2f}",
            f"{cost.cpu_s:.1f}",
            f"{cost.cpu_s / cost.rows * 1e6:.2f}",
            f"{cost.read_share:.2f}" if cost.read_share else "",
            f"{cost.peak_bytes >> 20:,}",
        )
    return shown


if __name__ == "__main__":
    main()
