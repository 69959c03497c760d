"""`make bench-loader`: what reading a training set costs a trainer, beside PyArrow on the same rows in files.

A server of its own, a training set without features and histories, written part by part. The peer reads the
exported shards in this process, in their order, without a server.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from harness.server import Server, start_server

from bench.memory import Watch
from headrace import Client
from headrace_compute.delta import tables
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part

TENANT, DATASET = "bench", "training_data"
PART_ROWS = 1_000_000
GROUP = 5
BATCH_ROWS = 4_000
FEW = ["user_id", "item_id", "label"]


def main() -> None:
    """Prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--millions", type=int, default=10)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(Path(folder) / "data")
        try:
            lay(server, given.millions)
            measure(server, Path(folder), given.millions * PART_ROWS)
        finally:
            server.stop()


def lay(server: Server, parts: int) -> None:
    """Commits a training set of one split."""
    config = StoreConfig(str(server.data_dir))
    key = tables.dataset_key(config, TENANT, DATASET)
    written = [
        write_part(open_store(config), f"{key}/{part:04}.parquet", rows_of(part), stats=("split",))
        for part in range(parts)
    ]
    tables.commit(
        config,
        key,
        kind="training_data",
        schema=rows_of(0).schema,
        parts=written,
        transaction="bench",
        metadata={},
    )


def rows_of(part: int) -> pa.Table:
    """A million rows: twenty thousand users with ten positives each, and their negatives."""
    dice, users = np.random.default_rng(part), PART_ROWS // 50
    positive = np.arange(PART_ROWS) % GROUP == 0
    times = np.repeat(dice.integers(0, 2**50, PART_ROWS // GROUP), GROUP)
    names = pa.array([f"user{part:03}{user:06}" for user in range(users)])
    items = pa.array([f"item{item:06}" for item in range(100_000)])
    return pa.table(
        {
            "user_id": names.take(pa.array(np.repeat(np.arange(users), 50))),
            "item_id": items.take(pa.array(dice.zipf(1.3, PART_ROWS) % len(items))),
            "label": positive.astype(np.float64),
            "group_id": np.repeat(dice.integers(-(2**62), 2**62, PART_ROWS // GROUP), GROUP),
            "negative_source": pa.array(np.full(PART_ROWS, "popularity"), mask=positive),
            "sampling_prob": pa.array(dice.random(PART_ROWS), mask=positive),
            "timestamp": pa.array(times).cast(pa.timestamp("us", "UTC")),
            "split": np.full(PART_ROWS, "train"),
        }
    )


def measure(server: Server, folder: Path, rows: int) -> None:
    """Each way to read, and the export, one after another."""
    shards = folder / "shards"
    command: list[str | Path] = [Path(sys.executable).with_name("headrace"), "export", DATASET]
    command += ["--tenant", TENANT, "--address", server.address, "-o", shards]
    began = time.perf_counter()
    exporting = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with Watch(exporting.pid) as memory:
        assert exporting.wait() == 0
    elapsed_s = time.perf_counter() - began
    print(
        f"export to Parquet          {rows / elapsed_s:>12,.0f} rows/s, at most {memory.own_bytes >> 20} MiB"
    )
    with Client(server.address) as client:
        for name, columns in (("all columns", None), (", ".join(FEW), FEW)):
            print(name)
            tell("read_batches", client.read_batches(TENANT, DATASET, columns=columns or []))
            for title, seed in (("in order", None), ("shuffled", 1)):
                data = client.training_data(
                    TENANT, DATASET, columns=columns, shuffle_seed=seed, batch_rows=BATCH_ROWS
                )
                tell(f"training_data, {title}", data)
            scanner = ds.dataset(shards / "data").scanner(columns=columns, batch_size=BATCH_ROWS)
            tell("PyArrow, local shards", scanner.to_batches())


def tell(name: str, batches: Iterable[pa.RecordBatch]) -> None:
    """Prints how fast batches come."""
    began = time.perf_counter()
    rows = sum(batch.num_rows for batch in batches)
    print(f"  {name:24} {rows / (time.perf_counter() - began):>12,.0f} rows/s")


if __name__ == "__main__":
    main()
