"""`make bench-scale`: what a row costs a run at several sizes, straight after the upload that brought it.

CPU seconds of all processes, Ray's included, per million rows; what the workers read, beside the size of
the table; peak memory of all processes. At one of the sizes also training data with more columns, and both
kinds of run with DuckDB, Polars and NumPy, each in a process of its own. With `--minio` the store is a MinIO
behind a relay in this process, which counts requests, those for each part of the interactions and what they
ask for; seconds are the relay's then. Prints tables, asserts nothing.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import psutil
from brokers.minio import start_minio
from contract.reach import s3_of
from contract.relay import Relay, Request, relay_to
from harness.server import Server, start_server
from rich.console import Console
from rich.table import Table

from bench.memory import Watch
from bench.peers import FEATURES, NEGATIVES
from headrace import Client
from headrace.options import NegativesOptions
from headrace.v1 import run_pb2
from headrace_compute.delta import tables
from headrace_compute.model import S3Config, StoreConfig

RUNS = 2
TENANT = "bench"
ITEMS = 100_000
WIDTH = 150
MORE: Mapping[str, NegativesOptions] = {
    "negatives, history 50": {"history": 50, "history_interaction_types": ["view", "click", "purchase"]},
    "negatives, 8 features": {
        "with_features": "snapshot",
        "feature_columns": [
            *("user_total_interactions", "user_avg_rating", "user_days_since_last_interaction"),
            *("item_total_interactions", "item_popularity_score", "item_purchase_rate_smoothed"),
            *("item_category", "item_price"),
        ],
    },
    "negatives, all features": {"with_features": "snapshot"},
}
"""Training data in other ways, at the size at which peers run too."""

S3_SETTINGS = ("endpoint", "access_key", "secret_key")


@dataclass(frozen=True)
class Cost:
    """What something took: the fastest run's seconds, CPU seconds, bytes read and requests; peak memory.

    Attributes:
        written: Rows of training data that it wrote.
    """

    what: str
    rows: int
    seconds: float
    cpu_s: float
    read_share: float = 0.0
    peak_bytes: int = 0
    requests: tuple[int, int] = (0, 0)
    written: int = 0


class Source:
    """The table that runs read, and what they read of it.

    Args:
        server: Whose workers are watched.
        relay: The way to the store, if it counts requests.
    """

    def __init__(self, server: Server, config: StoreConfig, relay: Relay | None) -> None:
        files = tables.open_table(config, tables.table_key(config, TENANT, "interactions")).files
        self._sizes = {f"/{file.key}": file.size_bytes for file in files}
        self._server = server
        self._relay = relay
        self._before = 0 if relay else worker_bytes(server)
        self._seen = len(relay.seen) if relay else 0

    def read_share(self) -> float:
        """Bytes read since, of those that the table has."""
        if self._relay is None:
            read = worker_bytes(self._server) - self._before
        else:
            asked = (each for each in self._asked() if each.method == "GET")
            read = sum(each.asked_bytes(self._sizes[each.object_path]) for each in asked)
        return read / sum(self._sizes.values())

    def requests(self) -> tuple[int, int]:
        """Requests since: the most for one of the table's parts, and for all objects."""
        if self._relay is None:
            return 0, 0
        parts = Counter(each.object_path for each in self._asked())
        return max(parts.values(), default=0), len(self._relay.seen) - self._seen

    def _asked(self) -> list[Request]:
        """Requests for the table's parts."""
        assert self._relay is not None
        return [each for each in self._relay.seen[self._seen :] if each.object_path in self._sizes]


def main() -> None:
    """Measures each size in turn, on a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=[2, 10, 50], metavar="N")
    parser.add_argument("--peers-at", type=int, default=10, metavar="N", help="size at which peers run too")
    parser.add_argument("--minio", action="store_true", help="tables in a MinIO; requests; no peers")
    args = parser.parse_args()
    console = Console(width=WIDTH)
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB")
    costs: list[Cost] = []
    for millions in args.millions:
        with tempfile.TemporaryDirectory() as name:
            rows, folder = millions * 1_000_000, Path(name)
            parquet = generate(folder, rows)
            with minio_in(folder) if args.minio else nullcontext() as store:
                has_peers = millions == args.peers_at and not args.minio
                costs += runs(folder, parquet, rows, store, MORE if has_peers else {})
            if has_peers:
                for what, peers in (("features", FEATURES), ("negatives", NEGATIVES)):
                    costs += [of_peer(f"{what}, {name}", work, parquet, rows) for name, work in peers.items()]
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


@contextmanager
def minio_in(folder: Path) -> Iterator[tuple[S3Config, Relay]]:
    """A MinIO, seen through a relay, and the relay."""
    minio = start_minio(folder / "minio")
    try:
        with relay_to(minio.endpoint) as relay:
            yield replace(s3_of(minio), endpoint=relay.endpoint), relay
    finally:
        minio.stop()


def runs(
    folder: Path,
    parquet: Path,
    rows: int,
    store: tuple[S3Config, Relay] | None,
    more: Mapping[str, NegativesOptions],
) -> list[Cost]:
    """Both runs, the first of them straight after the upload, then training data in other ways."""
    s3, relay = store or (None, None)
    settings = {} if s3 is None else {f"S3_{name.upper()}": getattr(s3, name) for name in S3_SETTINGS}
    server = start_server(folder / "data", **settings)
    config = StoreConfig(str(folder / "data"), s3=s3)
    try:
        with Client(server.address, timeout=3_600) as client:
            client.upload(TENANT, "items", folder / "items.csv")
            client.upload(TENANT, "interactions", parquet)

            def source() -> Source:
                return Source(server, config, relay)

            return [
                of_run(server, "features", rows, source, lambda: client.compute_features(TENANT)),
                *(
                    of_run(server, what, rows, source, partial(client.sample_negatives, TENANT, **how))
                    for what, how in {"negatives": NegativesOptions(), **more}.items()
                ),
            ]
    finally:
        server.stop()


def of_run(
    server: Server, what: str, rows: int, source_of: Callable[[], Source], run: Callable[[], Any]
) -> Cost:
    """The fastest of some runs; memory of another one, as watching it takes time."""
    best: Cost | None = None
    for _ in range(RUNS):
        source, cpu_s, started = source_of(), cpu_seconds(server), time.perf_counter()
        made = run()
        seconds = time.perf_counter() - started
        used_s, share, requests = cpu_seconds(server) - cpu_s, source.read_share(), source.requests()
        written = made.output.rows if isinstance(made, run_pb2.NegativesResult) else 0
        cost = Cost(what, rows, seconds, used_s, share, requests=requests, written=written)
        best = cost if best is None or cost.seconds < best.seconds else best
    assert best is not None
    with Watch(server.process.pid) as watch:
        run()
    return replace(best, peak_bytes=watch.all_bytes)


def of_peer(what: str, work: Callable[[Path], int], parquet: Path, rows: int) -> Cost:
    """The same by a peer, in a process of its own each time."""
    best: Cost | None = None
    for _ in range(RUNS):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, cpu_s, peak, written = pool.apply(_measured, (work, parquet))
        if best is None or seconds < best.seconds:
            best = Cost(what, rows, seconds, cpu_s, peak_bytes=peak, written=written)
    assert best is not None
    return best


def _measured(work: Callable[[Path], int], parquet: Path) -> tuple[float, float, int, int]:
    before, started = time.process_time(), time.perf_counter()
    written = work(parquet)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - before
    return seconds, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, written


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
    titles = ("what", "rows", "seconds", "M rows out / s", "CPU s", "CPU s / M rows", "read / table")
    shown = Table(*titles, "peak MiB, all PSS", "requests a part, at most", "requests")
    for cost in costs:
        shown.add_row(
            cost.what,
            f"{cost.rows:,}",
            f"{cost.seconds:.2f}",
            f"{cost.written / cost.seconds / 1e6:.2f}" if cost.written else "",
            f"{cost.cpu_s:.1f}",
            f"{cost.cpu_s / cost.rows * 1e6:.2f}",
            f"{cost.read_share:.2f}" if cost.read_share else "",
            f"{cost.peak_bytes >> 20:,}",
            *(f"{count:,}" if count else "" for count in cost.requests),
        )
    return shown


if __name__ == "__main__":
    main()
