"""What a block of CSV or JSON lines costs one worker, clean and dirty, beside pyarrow's plain parse of it.

`PYTHONPATH=tests python -m bench.dirty`. Ours is everything between a block's arrival and its record: parse,
validate, order, hash, report, and its parts in the store; pyarrow parses and keeps nothing. CPU
time, not wall time: a worker has one core, and the machine may have other work.
"""

import csv
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.json as pj
from rich.console import Console
from rich.table import Table

from headrace.sample import Sample, generate
from headrace_compute.heap import keep_heap
from headrace_compute.ingest.block import ingest_block
from headrace_compute.kernels.framing import CsvFramer, LineFramer
from headrace_compute.model import Block, StoreConfig, UploadSpec

SHARES = (0.0, 0.01, 0.5)
ROWS = 300_000
BLOCK_BYTES = 8 << 20
RUNS = 9
STARTED_US, LATEST_US = 1_767_225_600_000_000, 1_767_312_000_000_000


@dataclass(frozen=True)
class Cost:
    """CPU seconds for one block with a share of dirty records, ours and pyarrow's."""

    format: str
    dirty: float
    rows: int
    nbytes: int
    ours_s: float
    peer_s: float


def main() -> None:
    """Measures and prints."""
    Console(width=110).print(table(costs()))


def costs() -> list[Cost]:
    """The cost of a block at each share of dirty records."""
    return [cost_of(format, share) for format in ("csv", "json_lines") for share in SHARES]


def cost_of(format: str, dirty: float) -> Cost:
    """The cost of the first block of a sample."""
    keep_heap()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = Sample(users=ROWS // 3, items=ROWS // 30, interactions=ROWS, dirty=dirty)
        path = generate(sample, folder).interactions
        spec, block, payload = first_block(path) if format == "csv" else first_lines(path)
        attempts = iter(range(RUNS))

        def ours() -> None:
            ingest_block(StoreConfig(root=name), spec, block, payload, f"attempt{next(attempts)}")

        peer = plain_parse if format == "csv" else plain_json_parse
        has_peer = format == "csv" or not dirty
        peer_s = cpu_s(lambda: peer(spec, payload)) if has_peer else math.nan
        return Cost(format, dirty, block.rows, payload.size, cpu_s(ours), peer_s)


def first_block(path: Path) -> tuple[UploadSpec, Block, np.ndarray]:
    """The first block of a file, as the server cuts it."""
    framer = CsvFramer()
    framer.feed(path.read_bytes())
    payload, shape = framer.finish(BLOCK_BYTES)[0]
    columns = tuple((framer.header or b"").decode().split(","))
    return spec_of(columns), shape.block(0), payload


def first_lines(path: Path) -> tuple[UploadSpec, Block, np.ndarray]:
    """The first block of the same records as JSON lines; fields too many are left out."""
    framer = LineFramer()
    with path.open(newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            framer.feed(json.dumps({key: plain(key, row[key]) for key in row if key}).encode() + b"\n")
    payload, shape = framer.finish(BLOCK_BYTES)[0]
    return spec_of(()), shape.block(0), payload


def plain(key: str, text: str | None) -> float | str | None:
    """A field as JSON has it."""
    try:
        number = float(text or "nan") if key == "rating" else math.nan
    except ValueError:
        number = math.nan
    return number if math.isfinite(number) else text or None


def spec_of(columns: tuple[str, ...]) -> UploadSpec:
    """What the block's upload shares."""
    return UploadSpec(
        upload_id="bench",
        data_type="interactions",
        part_prefix="raw-data/bench/interactions/",
        rejects_prefix="processed-data/bench/rejects/",
        sidecar_prefix="raw-data/_headrace/bench/",
        started_us=STARTED_US,
        latest_us=LATEST_US,
        columns=columns,
    )


def plain_parse(spec: UploadSpec, payload: np.ndarray) -> pa.Table:
    """The peer: columns of text, records with a wrong number of fields skipped, nothing looked at."""
    return pc.read_csv(
        pa.BufferReader(payload.tobytes()),
        pc.ReadOptions(column_names=list(spec.columns), use_threads=False, block_size=2 * BLOCK_BYTES),
        pc.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip"),
        pc.ConvertOptions(check_utf8=False, column_types=dict.fromkeys(spec.columns, pa.binary())),
    )


def plain_json_parse(spec: UploadSpec, payload: np.ndarray) -> pa.Table:
    """The peer, of clean lines alone: it takes no column in which types change."""
    return pj.read_json(
        pa.BufferReader(payload.tobytes()), pj.ReadOptions(use_threads=False, block_size=2 * BLOCK_BYTES)
    )


def cpu_s(run: Callable[[], Any]) -> float:
    """CPU seconds of the cheapest of some runs."""
    seconds = []
    for _ in range(RUNS):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds)


def table(measured: list[Cost]) -> Table:
    """The costs for people."""
    shown = Table(
        "format",
        "dirty",
        "rows",
        "CPU ms a block",
        "rows/s a core",
        "pyarrow parse, ms",
        "ratio",
        "of clean CSV",
    )
    for cost in measured:
        shown.add_row(
            cost.format,
            f"{cost.dirty:.0%}",
            f"{cost.rows:,}",
            f"{1e3 * cost.ours_s:.0f}",
            f"{cost.rows / cost.ours_s:,.0f}",
            f"{1e3 * cost.peer_s:.0f}",
            f"{cost.peer_s / cost.ours_s:.2f}x",
            f"{(measured[0].ours_s / measured[0].rows) / (cost.ours_s / cost.rows):.2f}x",
        )
    return shown


if __name__ == "__main__":
    main()
