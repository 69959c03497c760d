"""What a block of CSV costs one worker, clean and dirty, beside pyarrow's plain CSV parse of its bytes.

`PYTHONPATH=tests python -m bench.dirty`. Ours is everything between a block's arrival and its record: parse,
validate, order, hash, report, and its parts in the store; pyarrow parses and keeps nothing. CPU
time, not wall time: a worker has one core, and the machine may have other work.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from rich.console import Console
from rich.table import Table

from headrace.sample import Sample, generate
from headrace_compute.heap import keep_heap
from headrace_compute.kernels.framing import Framer
from headrace_compute.model import Block, StoreConfig, UploadSpec
from headrace_compute.stages.ingest import ingest_block

SHARES = (0.0, 0.01, 0.5)
ROWS = 300_000
BLOCK_BYTES = 8 << 20
RUNS = 9
STARTED_US, LATEST_US = 1_767_225_600_000_000, 1_767_312_000_000_000


@dataclass(frozen=True)
class Cost:
    """CPU seconds for one block with a share of dirty records, ours and pyarrow's."""

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
    return [cost_of(share) for share in SHARES]


def cost_of(dirty: float) -> Cost:
    """The cost of the first block of a sample."""
    keep_heap()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = Sample(users=ROWS // 3, items=ROWS // 30, interactions=ROWS, dirty=dirty)
        spec, block, payload = first_block(generate(sample, folder).interactions)
        attempts = iter(range(RUNS))

        def ours() -> None:
            ingest_block(StoreConfig(root=name), spec, block, payload, f"attempt{next(attempts)}")

        return Cost(dirty, block.rows, payload.size, cpu_s(ours), cpu_s(lambda: plain_parse(spec, payload)))


def first_block(path: Path) -> tuple[UploadSpec, Block, np.ndarray]:
    """The first block of a file, as the server cuts it."""
    framer = Framer()
    framer.feed(path.read_bytes())
    payload, shape = framer.finish(BLOCK_BYTES)[0]
    spec = UploadSpec(
        upload_id="bench",
        data_type="interactions",
        part_prefix="raw-data/bench/interactions/",
        rejects_prefix="processed-data/bench/rejects/",
        sidecar_prefix="raw-data/_headrace/bench/",
        started_us=STARTED_US,
        latest_us=LATEST_US,
        columns=tuple((framer.header or b"").decode().split(",")),
    )
    return spec, shape.block(0), payload


def plain_parse(spec: UploadSpec, payload: np.ndarray) -> pa.Table:
    """The peer: columns of text, records with a wrong number of fields skipped, nothing looked at."""
    return pc.read_csv(
        pa.BufferReader(payload.tobytes()),
        pc.ReadOptions(column_names=list(spec.columns), use_threads=False, block_size=2 * BLOCK_BYTES),
        pc.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip"),
        pc.ConvertOptions(check_utf8=False, column_types=dict.fromkeys(spec.columns, pa.binary())),
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
        "dirty", "rows", "CPU ms a block", "rows/s a core", "pyarrow parse, ms", "ratio", "of clean"
    )
    for cost in measured:
        shown.add_row(
            f"{cost.dirty:.0%}",
            f"{cost.rows:,}",
            f"{1e3 * cost.ours_s:.0f}",
            f"{cost.rows / cost.ours_s:,.0f}",
            f"{1e3 * cost.peer_s:.0f}",
            f"{cost.peer_s / cost.ours_s:.2f}x",
            f"{(measured[0].ours_s / measured[0].nbytes) / (cost.ours_s / cost.nbytes):.2f}x",
        )
    return shown


if __name__ == "__main__":
    main()
