"""The REST gateway beside the SDK: `PYTHONPATH=tests python -m bench.gateway [--mib N]`.

The same CSV goes to the same real server, by the SDK and by curl through the gateway in turn, each time into
a table of its own. What the gateway takes at its most is its resident memory by the word of the kernel.
"""

import argparse
import gzip
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from brokers.tools import find_tool
from doors.gateway import Gateway, build, gateway
from harness.server import start_server
from rich.console import Console

import headrace
from bench.run import WIDTH, Figure, table

TURNS = 2
BATCH_ROWS = 100_000
LIMIT_BYTES = 100 << 20


def main() -> None:
    """Prints the figures; fails if the gateway took more memory than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    mib = parser.parse_args().mib
    console = Console(width=WIDTH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build(folder)
        file = folder / "interactions.csv"
        rows = write_csv(file, mib << 20)
        zipped = folder / "interactions.csv.gz"
        with file.open("rb") as source, gzip.open(zipped, "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        server = start_server(folder / "data")
        try:
            with gateway(program, server.address) as door:
                console.print(
                    f"{file.stat().st_size >> 20} MiB; load {os.getloadavg()[0]:.1f} before the start"
                )
                figures = [beside(server.address, door, source, rows) for source in (file, zipped)]
                memory_bytes = door.memory_bytes()
        finally:
            server.stop()
    console.print(table(figures))
    console.print(f"gateway at most {memory_bytes >> 20} MiB")
    if memory_bytes > LIMIT_BYTES:
        raise SystemExit(f"That is more than {LIMIT_BYTES >> 20} MiB.")


def write_csv(file: Path, size: int) -> int:
    """Writes about so many bytes of rows, no two the same; how many rows these are."""
    count = 0
    with file.open("w") as target:
        target.write("user_id,item_id,interaction_type,timestamp,rating\n")
        while target.tell() < size:
            target.write("".join(map(row, range(count, count + BATCH_ROWS))))
            count += BATCH_ROWS
    return count


def row(n: int) -> str:
    """The n-th row."""
    moment = f"2026-01-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:{n // 60 % 60:02}.{n % 1_000_000:06}Z"
    return f"user-{n % 99_991},item-{n % 9_973},view,{moment},4.5\n"


def beside(address: str, door: Gateway, file: Path, rows: int) -> Figure:
    """The file by both ways in turn, the best of each."""
    ways: dict[str, Callable[[str], int]] = {
        "sdk": lambda tenant: by_sdk(address, file, tenant),
        "rest": lambda tenant: by_curl(door, file, tenant),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(TURNS):
        for way, upload in ways.items():
            started = time.perf_counter()
            received = upload(f"{way}-{turn}-{file.suffix[1:]}")
            seconds[way].append(time.perf_counter() - started)
            assert received == rows
    return Figure(
        f"{file.suffix[1:]} by curl and gateway", rows, min(seconds["rest"]), "SDK", min(seconds["sdk"])
    )


def by_sdk(address: str, file: Path, tenant: str) -> int:
    """Rows received."""
    with headrace.Client(address) as client:
        return client.upload(tenant, "interactions", file).rows_received


def by_curl(door: Gateway, file: Path, tenant: str) -> int:
    """Rows received."""
    curl = find_tool("curl", "Install curl.")
    url = f"{door.url}/internal/data/upload-csv?tenant_id={tenant}&data_type=interactions"
    done = subprocess.run(
        [curl, "-sS", "--fail-with-body", url, "-F", f"file=@{file}"], stdout=subprocess.PIPE, check=True
    )
    answer = json.loads(done.stdout)
    return int(answer["rows_accepted"] + answer["rows_rejected"])


if __name__ == "__main__":
    main()
