"""`make chaos`: every scenario, one after the other, and a table of what each cost."""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path

from brokers.errors import BrokerUnavailableError
from brokers.minio import start_minio

from chaos import fuzz, scenarios, small
from chaos.arena import Arena
from chaos.ledger import Audit
from chaos.proxy import random_plan

SHARING = ("replies", "streams", "slow", "line", "workers", "parts", "cancel")
"""Scenarios on one store, one after the other; the last leaves thousands of uploads behind."""

ALONE = ("kills", "ingests", "clock", "store", "big")
"""Scenarios with a store of their own."""

NAMES = (*SHARING, *ALONE)
HEADINGS = ("scenario", "faults", "acked", "found", "lost", "doubled", "stray", "seconds", "")


class Table:
    """Rows of the report, printed as they come."""

    def __init__(self) -> None:
        self.failed = False
        self.totals = [0] * 6
        self._print(*HEADINGS)

    def add(self, name: str, faults: int, audit: Audit, seconds: float, remark: str = "") -> None:
        """Adds a scenario."""
        counts = (faults, audit.acked, audit.found, audit.lost, audit.doubled, audit.stray)
        self.totals = [a + b for a, b in zip(self.totals, counts, strict=True)]
        bad = not audit.clean or audit.acked != audit.found or bool(remark)
        self.failed |= bad
        self._print(
            name, *map("{:,}".format, counts), f"{seconds:.0f}", remark or ("FAILED" if bad else "ok")
        )

    def end(self) -> None:
        """Prints the sums."""
        self._print("all", *map("{:,}".format, self.totals), "", "FAILED" if self.failed else "ok")

    def _print(self, name: str, *cells: str) -> None:
        print(f"{name:<44}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


class Run:
    """What was asked for, and the table of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self.table = Table()
        self.shared = Arena(self.folder())

    def folder(self) -> Path:
        """A new folder."""
        self._number += 1
        return self._folder / f"{self._number}"

    def local(self, name: str, scenario: Callable[[Arena], object], arena: Arena | None = None) -> None:
        """Runs a scenario on a local folder; what it returns, if it is a number, are faults not of orders.

        Args:
            arena: Where; else the one that most scenarios share.
        """
        started, arena = time.monotonic(), arena or self.shared
        hits, kills, remark, faults = arena.hits(), arena.kills, "", None
        before = arena.audit()
        try:
            faults = scenario(arena)
        except Exception as error:
            traceback.print_exc()
            remark = f"{type(error).__name__}"
        if missed := arena.drop_orders():
            remark = remark or f"{', '.join(missed)} not reached"
        now, count = arena.audit(), arena.hits() - hits + arena.kills - kills
        more = Audit(*(a - b for a, b in zip(astuple(now), astuple(before), strict=True)))
        self.table.add(
            name, faults if type(faults) is int else count, more, time.monotonic() - started, remark
        )


def main() -> int:
    """Runs what was asked for; 1 if anything was lost, doubled, or went otherwise than it must."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=[*NAMES, "fuzz"], default=[*NAMES, "fuzz"])
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the upload that is interrupted")
    parser.add_argument("--calls", type=int, default=10_000, help="that are cancelled")
    parser.add_argument("--slow-seconds", type=float, default=30)
    parser.add_argument("--fuzz-seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        run = Run(Path(folder))
        with run.shared:
            for name in given.only:
                if name not in ("fuzz", *ALONE):
                    globals()[f"_{name}"](run, given)
        for name in given.only:
            if name in ALONE:
                globals()[f"_{name}"](run, given)
        run.table.end()
    fuzzed = fuzz.run(given.seed, given.fuzz_seconds) if "fuzz" in given.only else 0
    return int(run.table.failed or bool(fuzzed))


def _kills(run: Run, _: argparse.Namespace) -> None:
    with Arena(run.folder()) as arena:
        for order in scenarios.all_kills():
            run.local(str(order), partial(scenarios.kill, order=order), arena)


def _ingests(run: Run, _: argparse.Namespace) -> None:
    with Arena(run.folder()) as arena:
        for order in small.all_kills():
            run.local(f"{order}, small ingests", partial(small.kill, order=order), arena)


def _workers(run: Run, _: argparse.Namespace) -> None:
    def workers(arena: Arena) -> int:
        scenarios.killed_workers(arena, 5)
        return 5

    run.local("workers killed at any moment", workers)


def _replies(run: Run, _: argparse.Namespace) -> None:
    run.local("replies of the store lost", scenarios.lost_replies)


def _streams(run: Run, _: argparse.Namespace) -> None:
    def streams(arena: Arena) -> int:
        scenarios.two_streams(arena)
        scenarios.two_finishes(arena)
        return 2

    run.local("two coordinators, one server", streams)


def _parts(run: Run, _: argparse.Namespace) -> None:
    for point in ("block-record.after", "duplicates.after", "finish-record.after"):
        for what, spoil in (("deleted", scenarios.delete_part), ("cut", scenarios.cut_part)):
            run.local(f"part {what} at {point}", partial(scenarios.spoil_part, point=point, spoil=spoil))


def _clock(run: Run, _: argparse.Namespace) -> None:
    with Arena(run.folder()) as arena:
        run.local("clock a day ahead, behind, ahead", scenarios.wrong_clock, arena)


def _slow(run: Run, given: argparse.Namespace) -> None:
    run.local("one byte a second", partial(scenarios.slow_client, seconds=given.slow_seconds))


def _line(run: Run, given: argparse.Namespace) -> None:
    plan = random_plan(given.seed, share=0.7, most_bytes=400_000)
    run.local("line to the server broken", partial(scenarios.bad_line, plan=plan, uploads=10))


def _store(run: Run, given: argparse.Namespace) -> None:
    try:
        minio = start_minio(run.folder())
    except BrokerUnavailableError as error:
        print(f"no MinIO here, so no faults before it: {error}")
        return
    try:
        started = time.monotonic()
        plan = random_plan(given.seed, share=0.2, most_bytes=20_000)
        arena, faults = scenarios.bad_store_line(run.folder(), minio, plan, uploads=15)
        run.table.add("line to the store broken", faults, arena.audit(), time.monotonic() - started)
        started = time.monotonic()
        with Arena(run.folder(), minio=minio) as one, one.twin() as two:
            scenarios.two_streams(one, two)
            scenarios.other_replica(one, two)
        run.table.add("two servers on one store, one killed", 2, one.audit(), time.monotonic() - started)
    finally:
        minio.kill()


def _cancel(run: Run, given: argparse.Namespace) -> None:
    def cancel(arena: Arena) -> int:
        before, after = scenarios.cancelled_calls(arena, given.calls)
        sizes = f"{before >> 20} MiB before and {after >> 20} MiB after"
        print(f"{given.calls:,} cancelled calls: the server had {sizes}")
        return int(given.calls)

    run.local("cancelled calls", cancel)


def _big(run: Run, given: argparse.Namespace) -> None:
    def big(arena: Arena) -> None:
        arena.settings["HEADRACE_BLOCK_BYTES"] = str(8 << 20)
        scenarios.big_upload(arena, given.rows)

    with Arena(run.folder()) as arena:
        run.local(f"{given.rows:,} rows, server killed three times", big, arena)


if __name__ == "__main__":
    sys.exit(main())
