"""`make attack`: every attack, one after the other, and a table of what each cost."""

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.disk import small_file_system

from attack import deaths, disk, messages, reads, runs, uploads
from attack.stage import MIB, Result, Stage

Ordeal = Callable[[Stage], Result]

QUICK_SECONDS, SECONDS = 5.0, 20.0


def nothing(stage: Stage) -> int:
    """Nobody attacks: what the machine itself costs a neighbour."""
    time.sleep(stage.seconds)
    return 0


def _beside(attack: Callable[[Stage], int]) -> Ordeal:
    """An attack that a neighbour lives beside."""
    return lambda stage: stage.suffer(attack)


SHARED: Mapping[str, Ordeal] = {
    "nothing": _beside(nothing),
    "tables": _beside(reads.many_tables),
    "lists": _beside(reads.many_lists),
    "connections": _beside(reads.idle_connections),
    "empty-rows": _beside(messages.empty_rows),
    "empty-chunk": _beside(messages.empty_chunk),
    "objects": _beside(messages.objects),
    "statuses": _beside(messages.statuses),
    "cancelled": _beside(runs.cancelled),
    "encrypted": _beside(uploads.encrypted),
    "dictionary": _beside(uploads.dictionary),
    "groups": _beside(uploads.groups),
    "wide-header": _beside(uploads.wide_header),
    "features": _beside(runs.features),
    "packed": _beside(uploads.packed),
    "headers": _beside(uploads.headers),
    "commas": _beside(reads.commas),
    "unread": _beside(reads.unread),
}
DISK: Mapping[str, Ordeal] = {"overfill": _beside(disk.overfill), "full-disk": disk.full}
DEATHS: Mapping[str, Ordeal] = {
    "killed-amid-run": deaths.server,
    "raylet-killed": deaths.raylet,
    "gcs-killed": deaths.gcs,
}
STAGES = {"shared": SHARED, "disk": DISK, "deaths": DEATHS}
"""Each has a server of its own: the second one's disk is small, the third one dies."""

NAMES = tuple(name for ordeals in STAGES.values() for name in ordeals)
HEADINGS = (
    "calls",
    "peak MiB",
    "before",
    "after",
    "p50 ms",
    "p99 ms",
    "upload s",
    "read s",
    "others",
    "orphans",
)


class Table:
    """Rows of the report, printed as they come."""

    def __init__(self) -> None:
        self.failed = False
        self._print("attack", *HEADINGS, verdict="verdict")

    def add(self, name: str, result: Result) -> None:
        """Adds an attack."""
        seen, cells = result.seen, [f"{result.calls:,}", *[""] * 8, f"{result.orphans}"]
        if seen is not None:
            cells[1:9] = [
                f"{seen.peak_bytes // MIB}",
                f"{result.before_bytes // MIB}",
                f"{result.after_bytes // MIB}",
                f"{seen.ingest_p50_seconds * 1000:.0f}",
                f"{seen.ingest_p99_seconds * 1000:.0f}",
                f"{max(seen.upload_seconds, default=0.0):.2f}",
                f"{max(seen.read_seconds, default=0.0):.2f}",
                f"{result.others_cores:.1f}",
            ]
        self.failed |= bool(result.missed)
        self._print(name, *cells, verdict="; ".join(result.missed) or "ok")

    def _print(self, name: str, *cells: str, verdict: str) -> None:
        print(f"{name:<16}" + "".join(f"{cell:>9}" for cell in cells) + f"  {verdict}", flush=True)


def main() -> int:
    """Makes the attacks that were asked for; 1 if one cost more than it may."""
    parser = argparse.ArgumentParser(prog="attack", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--quick", action="store_true", help=f"floods last {QUICK_SECONDS:.0f} s")
    given = parser.parse_args()
    table, seconds = Table(), QUICK_SECONDS if given.quick else SECONDS
    with tempfile.TemporaryDirectory(prefix="headrace-attack-") as folder:
        for kind, ordeals in STAGES.items():
            wanted = {name: ordeal for name, ordeal in ordeals.items() if name in given.only}
            if wanted and kind == "disk" and os.geteuid() != 0:
                print(f"{', '.join(wanted)}: skipped, only root may mount a small disk")
            elif wanted:
                with _folder(kind, Path(folder) / kind) as place, Stage(place, seconds) as stage:
                    for name, ordeal in wanted.items():
                        table.add(name, _result(ordeal, stage))
    return int(table.failed)


@contextmanager
def _folder(kind: str, path: Path) -> Iterator[Path]:
    if kind != "disk":
        yield path
        return
    with small_file_system(path, disk.DISK_MIB) as mounted:
        yield mounted


def _result(ordeal: Ordeal, stage: Stage) -> Result:
    """What an attack came to, even if it failed itself."""
    try:
        return ordeal(stage)
    except Exception as error:
        traceback.print_exc()
        stage.held.close()
        return Result(missed=[f"{type(error).__name__}: {error}".splitlines()[0][:200]])


if __name__ == "__main__":
    sys.exit(main())
