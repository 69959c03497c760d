"""`make bench-nodes`: two nodes of a Ray cluster beside one, and what the coordinator costs.

The same upload, features run and sampling run with one node and, once another has joined, with two. All of
it is on one machine: client, server, the cluster's head and the broker-less store share its cores with the
nodes, so two nodes are twice the workers on what cores there are. Prints a table, asserts nothing.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from harness.nodes import Nodes
from harness.server import Server, start_server
from harness.watch import eventually
from rich.console import Console
from rich.table import Table

from bench.scale import generate
from headrace import Client

RUNS = 2


@dataclass(frozen=True)
class Cost:
    """What the faster of some runs took.

    Attributes:
        seconds: As its client sees it.
        server_s: CPU seconds of the server's own process, which coordinates.
        workers_s: CPU seconds of the cluster: its workers, and Ray itself.
    """

    seconds: float
    server_s: float
    workers_s: float


def main() -> None:
    """Measures one node, then two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=5, metavar="N", help="interactions")
    rows = parser.parse_args().millions * 1_000_000
    console = Console(width=120)
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB")
    with tempfile.TemporaryDirectory() as name, Nodes() as nodes:
        folder = Path(name)
        parquet = generate(folder, rows)
        nodes.add(1)
        server = start_server(folder / "data", **nodes.settings, HEADRACE_WORKERS="0")
        try:
            with Client(server.address, timeout=3_600) as client:
                one = dict(costs(client, server, nodes, "one", folder, parquet))
                nodes.add(1)
                eventually(lambda: client.health().workers_live == 2, 120)
                two = dict(costs(client, server, nodes, "two", folder, parquet))
        finally:
            server.stop()
    console.print(table(rows, one, two))


def costs(
    client: Client, server: Server, nodes: Nodes, tenant: str, folder: Path, parquet: Path
) -> Iterator[tuple[str, Cost]]:
    """An upload, and both runs on what it brought, each several times."""
    client.upload(tenant, "items", folder / "items.csv")
    names = [*(f"{tenant}-{number}" for number in range(1, RUNS)), tenant]
    uploads = [partial(client.upload, name, "interactions", parquet) for name in names]
    yield "upload", cost(server, nodes, uploads)
    yield "features", cost(server, nodes, [lambda: client.compute_features(tenant)] * RUNS)
    yield "negatives", cost(server, nodes, [lambda: client.sample_negatives(tenant, seed=1)] * RUNS)


def cost(server: Server, nodes: Nodes, runs: Sequence[Callable[[], Any]]) -> Cost:
    """The fastest of some runs."""
    found = []
    for run in runs:
        own, others, started = own_cpu(server.process.pid), family_cpu(nodes.pid), time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        found.append(Cost(seconds, own_cpu(server.process.pid) - own, family_cpu(nodes.pid) - others))
    return min(found, key=lambda each: each.seconds)


def own_cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def family_cpu(pid: int) -> float:
    """CPU seconds of a process and all below it so far."""
    total = own_cpu(pid)
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            total += own_cpu(process.pid)
    return total


def table(rows: int, one: dict[str, Cost], two: dict[str, Cost]) -> Table:
    """The costs for people."""
    shown = Table(
        f"{rows:,} rows",
        "one node s",
        "two nodes s",
        "ratio",
        "server CPU s / M rows",
        "cluster CPU s / M rows",
    )
    millions = rows / 1e6
    for what, before in one.items():
        after = two[what]
        shown.add_row(
            what,
            f"{before.seconds:.2f}",
            f"{after.seconds:.2f}",
            f"{before.seconds / after.seconds:.2f}x",
            f"{before.server_s / millions:.3f} / {after.server_s / millions:.3f}",
            f"{before.workers_s / millions:.2f} / {after.workers_s / millions:.2f}",
        )
    return shown


if __name__ == "__main__":
    main()
