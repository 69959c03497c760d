"""Progress of long work, on stderr: a bar for a person who looks, else a line now and then."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.cli.console import plain, stderr
from headrace.run import OnRunProgress
from headrace.transfer import OnProgress
from headrace.transfer import Progress as TransferProgress
from headrace.v1 import run_pb2

LINE_SECONDS = 30.0
"""How often a line is written where there is no terminal."""


@contextmanager
def transfer_bar(label: str) -> Iterator[OnProgress]:
    """Shows how far an upload or a validation has come."""
    with _bars() as bars:
        task = bars.add_task(label, total=None, note="")

        def show(progress: TransferProgress) -> None:
            rows = progress.rows_accepted + progress.rows_rejected
            note = f"{rows:,} rows, {progress.rows_rejected:,} rejected"
            if progress.interruption:
                note += ", reconnecting"
            bars.update(task, completed=progress.offset, total=progress.total or None, note=note)

        yield show


@contextmanager
def run_bar(label: str) -> Iterator[OnRunProgress]:
    """Shows how far a run has come, stage by stage."""
    with _bars() as bars:
        task = bars.add_task(label, total=None, note="")

        def show(progress: run_pb2.RunProgress) -> None:
            note = f"{progress.shards_done}/{progress.shards_total} shards"
            if progress.stage == "queued":
                note = f"place {progress.queue_place}"
            total = progress.shards_total or None
            description = f"{label}: {progress.stage}"
            bars.update(task, description=description, completed=progress.shards_done, total=total, note=note)

        yield show


@contextmanager
def rows_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how many of a known number of rows are done."""
    with _bars() as bars:
        task = bars.add_task(label, total=total, note="")
        yield lambda rows: bars.update(task, completed=rows, note=f"{rows:,} rows")


@contextmanager
def _bars() -> Iterator[Progress]:
    console = stderr()
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    ended = threading.Event()
    lines = threading.Thread(target=_write_lines, args=(bars, ended), daemon=True)
    with bars:
        if not console.is_terminal:
            lines.start()
        try:
            yield bars
        finally:
            ended.set()
    if lines.is_alive():
        lines.join()


def _write_lines(bars: Progress, ended: threading.Event) -> None:
    while not ended.wait(LINE_SECONDS):
        for task in bars.tasks:
            share = f"{task.percentage:.0f} %, " if task.total else ""
            line = f"{task.description}: {share}{task.fields['note'] or 'waiting'}, {task.elapsed or 0:.0f} s"
            stderr().print(plain(line), soft_wrap=True)
