"""Progress bars for long work, on stderr, and only when a person looks at it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.cli.console import stderr
from headrace.run import OnRunProgress
from headrace.transfer import OnProgress
from headrace.transfer import Progress as TransferProgress
from headrace.v1 import run_pb2


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


def _bars() -> Progress:
    console = stderr()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
