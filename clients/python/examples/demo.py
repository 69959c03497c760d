"""A tour of Headrace: starts a server, sends it a shop's data, shows what comes out.

Run by `make demo`. Everything lies below `.demo/`, which each run makes anew; with
`make demo BROKERS=1` tables lie in MinIO and events in Kafka.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from rich.console import Console

FOLDER = Path(".demo")
BIN = Path(sys.executable).parent
START_SECONDS = 120
EVENT_SECONDS = 60

console = Console(highlight=False)


def main() -> int:
    """Runs the tour; returns the exit status."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    with console.status("starting a server (the very first start compiles its kernels)"):
        server, address, http_port = start_server()
    place = os.environ.get("S3_ENDPOINT") or f"{FOLDER / 'data'}/"
    console.print(f"A server is up on {address}, its data in {place}.\n")
    try:
        tour(address)
        show_events(http_port)
    finally:
        server.terminate()
        status = server.wait(60)
    console.print(f"\nThe server stopped cleanly (exit status {status}).")
    where_to_go_on()
    return status


def start_server() -> tuple[subprocess.Popen[str], str, int]:
    """Starts `headrace-server` on free ports; returns it, its gRPC address and its HTTP port."""
    environment = {
        **os.environ,
        "HEADRACE_DATA_DIR": str(FOLDER / "data"),
        "HEADRACE_GRPC_ADDRESS": "127.0.0.1:0",
        "HEADRACE_HTTP_ADDRESS": "127.0.0.1:0",
    }
    log = FOLDER / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen([BIN / "headrace-server"], env=environment, stderr=output, text=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        for line in log.read_text().splitlines():
            if '"event": "serving"' in line:
                serving = json.loads(line)
                return server, f"127.0.0.1:{serving['grpc_port']}", serving["http_port"]
        time.sleep(0.2)
    server.kill()
    console.print(log.read_text(), style="red")
    raise SystemExit("the server did not start; its log is above")


def tour(address: str) -> None:
    """The commands a newcomer would type, one after another."""
    sample = FOLDER / "sample"
    run("Make a shop's data, with 2 % dirt", address, "generate", "--to", str(sample), "--dirty", "0.02")
    for data_type in ("items", "interactions"):
        file = str(sample / f"{data_type}.csv")
        run(f"Upload its {data_type}", address, "upload", file, "--tenant", "demo", "--type", data_type)
    run("Compute features", address, "features", "--tenant", "demo")
    run("Sample training data", address, "negatives", "--tenant", "demo", "--ratio", "4", "--seed", "7")
    run("Derive it again, and compare", address, "verify", "training_data", "--tenant", "demo")
    folder = str(FOLDER / "export")
    run("Export it for trainers", address, "export", "training_data", "-o", folder, "--tenant", "demo")
    run("See what there is", address, "tables", "--tenant", "demo")
    for table in ("interactions", "rejects", "user_features", "item_features", "training_data"):
        run(f"A few rows of {table}", address, "read", table, "--tenant", "demo", "--limit", "2")


def run(title: str, address: str, *command: str) -> None:
    """Shows and runs one `headrace` command."""
    console.rule(f"[bold]{title}", align="left", style="dim")
    console.print(f"[green]$[/] headrace {' '.join(command)}\n")
    environment = {**os.environ, "HEADRACE_GRPC_ADDRESS": address}
    finished = subprocess.run([BIN / "headrace", *command], env=environment, check=False)
    console.print()
    if finished.returncode != 0:
        raise SystemExit(f"'headrace {command[0]}' ended with status {finished.returncode}")


def show_events(http_port: int) -> None:
    """How many events each topic has got, once all are published, and where they lie."""
    kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    console.rule("[bold]Events published", align="left", style="dim")
    deadline = time.monotonic() + EVENT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(1.5)  # The relay reports once a second.
        metrics = read_metrics(http_port)
        if metrics.get("headrace_relay_lag_versions") == 0:
            break
    for name, count in sorted(metrics.items()):
        if name.startswith("headrace_events_total"):
            topic = name.split('"')[1]
            console.print(f"{count:>9,.0f}  {topic}")
    console.print(f"\nThey are in {f'Kafka at {kafka}' if kafka else FOLDER / 'data' / 'events'}.\n")


def read_metrics(http_port: int) -> dict[str, float]:
    """The server's metrics by name, labels included."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
    }


def where_to_go_on() -> None:
    """Paths and next steps."""
    console.rule("[bold]Where it lies", align="left", style="dim")
    if endpoint := os.environ.get("S3_ENDPOINT"):
        console.print(f"tables    s3://raw-data/demo/, s3://features/demo/, … at {endpoint}", soft_wrap=True)
        console.print(f"log       {FOLDER / 'server.log'}\n")
        console.print("MinIO and Kafka go on running: [bold]make brokers-stop[/] ends them.")
    else:
        data = (FOLDER / "data").resolve()
        console.print(f"tables    {data}/", soft_wrap=True)
        console.print(f"log       {FOLDER / 'server.log'}\n")
        console.print("Every table is a Delta table. In Python:")
        path = data / "training-data" / "demo" / "datasets" / "training_data"
        console.print(f"  polars.read_delta('{path}')", soft_wrap=True)
    console.print("Your own data: [bold]make serve[/], then [bold]headrace upload --help[/].")


if __name__ == "__main__":
    sys.exit(main())
