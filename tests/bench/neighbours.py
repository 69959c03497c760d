"""`make bench-neighbours`: what other tenants notice of a heavy run.

One-row ingests of one tenant and uploads of another, alone, beside a features run and beside a sampling run
that a third one makes over and over. Prints figures and their ratios to those without a run, asserts
nothing. With the run there are two tenants, so the fair share of an upload is half of the workers' time:
2.0x as long.
"""

import argparse
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import duckdb
import grpc
import psutil
from harness.server import start_server
from rich.console import Console
from rich.table import Table

from bench.run import WIDTH
from bench.scale import generate
from bench.small import ROW
from headrace import Client
from headrace.v1 import ingest_pb2, run_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

INGESTS = 1_000
UPLOADS = 3
BEGIN_SECONDS = 600
PROBES = ("one-row ingest, p50 ms", "one-row ingest, p99 ms", "one-row ingest, worst ms", "upload, s")


def main() -> None:
    """Measures each situation in turn, on one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=10, metavar="N", help="rows that the run reads")
    rows = int(parser.parse_args().millions * 1_000_000)
    console = Console(width=WIDTH)
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        heavy, upload = generate(folder, rows), folder / "upload.csv"
        uploaded = rows // 5
        duckdb.sql(f"COPY (FROM '{heavy}' LIMIT {uploaded}) TO '{upload}' (HEADER)")
        server = start_server(folder / "data")
        try:
            seen = measure(server.address, heavy, folder / "items.csv", upload)
        finally:
            server.stop()
    console.print(f"Runs over {rows:,} rows; uploads of {uploaded:,} rows of CSV, the median of {UPLOADS}.")
    console.print(table(seen))


def measure(address: str, heavy: Path, items: Path, upload: Path) -> dict[str, list[float]]:
    """The probes of PROBES, by what went on beside them."""
    with Client(address, timeout=3_600) as client, grpc.insecure_channel(address) as channel:
        client.upload("heavy", "items", items)
        client.upload("heavy", "interactions", heavy)
        # Workers are warm for each kind of work.
        client.compute_features("heavy")
        client.sample_negatives("heavy", seed=1)
        client.upload("warm", "interactions", upload)
        stub = PipelineServiceStub(channel)
        features = run_pb2.ComputeFeaturesRequest(tenant_id="heavy")
        sampling = run_pb2.SampleNegativesRequest(tenant_id="heavy", seed=1)
        situations: Mapping[str, AbstractContextManager[None]] = {
            "alone": nullcontext(),
            "features run": over_and_over(lambda: stub.ComputeFeatures(features)),
            "sampling run": over_and_over(lambda: stub.SampleNegatives(sampling)),
        }
        seen = {}
        for name, going_on in situations.items():
            with going_on:
                seen[name] = [*ingests(stub), *uploads(client, name.partition(" ")[0], upload)]
        return seen


def ingests(stub: PipelineServiceStub) -> list[float]:
    """Milliseconds of one-row calls, one after another: median, what one in a hundred exceeds, worst."""
    request, milliseconds = ingest_pb2.IngestInteractionsRequest(tenant_id="one", rows=[ROW]), list[float]()
    for _ in range(INGESTS):
        started = time.perf_counter()
        stub.IngestInteractions(request)
        milliseconds.append((time.perf_counter() - started) * 1000)
    ordered = sorted(milliseconds)
    return [statistics.median(ordered), ordered[INGESTS * 99 // 100], ordered[-1]]


def uploads(client: Client, prefix: str, file: Path) -> list[float]:
    """Seconds of an upload into an empty table: the median."""
    seconds = []
    for number in range(UPLOADS):
        started = time.perf_counter()
        client.upload(f"{prefix}{number}", "interactions", file)
        seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds)]


@contextmanager
def over_and_over(begin: Callable[[], Any]) -> Iterator[None]:
    """Makes a run again and again while the context lasts, which begins with the run's first stage."""
    calls, begun, over = [begin()], threading.Event(), threading.Event()

    def follow() -> None:
        while True:
            try:
                for _ in calls[-1]:
                    begun.set()
            except grpc.RpcError as error:
                if over.is_set() and error.code() is grpc.StatusCode.CANCELLED:
                    return
                raise
            calls.append(begin())

    thread = threading.Thread(target=follow)
    thread.start()
    assert begun.wait(BEGIN_SECONDS), "the run does not begin"
    try:
        yield
    finally:
        over.set()
        while thread.is_alive():
            calls[-1].cancel()
            thread.join(0.1)


def table(seen: Mapping[str, list[float]]) -> Table:
    """The figures for people, each with its ratio to the one alone."""
    alone, *others = seen
    shown = Table("", alone, *(title for other in others for title in (f"beside a {other}", "ratio")))
    for number, probe in enumerate(PROBES):
        base = seen[alone][number]
        cells = [f"{base:.2f}"]
        for other in others:
            cells += [f"{seen[other][number]:.2f}", f"{seen[other][number] / base:.2f}x"]
        shown.add_row(probe, *cells)
    return shown


if __name__ == "__main__":
    main()
