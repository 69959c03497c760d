"""The stage of attacks: one server, its neighbour, and what both have to show afterwards."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import grpc
from bench.memory import own_bytes
from harness.server import Server, start_server

from attack.machine import Others
from attack.neighbour import Neighbour, Seen
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

MIB = 1 << 20
PEAK_BYTES = 600 * MIB
KEPT_BYTES = 50 * MIB
INGEST_SECONDS = 0.25
UPLOAD_SECONDS = 2.0
RESTART_SECONDS = 15.0
"""The limits: what an attack may cost."""

LEAST_SECONDS = 8.0
"""The neighbour is watched for at least so long: what an attack leaves behind shows after it too."""

REST_SECONDS = 10.0
"""After the attack, until memory and files are counted."""

SWEEP_SECONDS = 20.0
"""What is left behind has so long to be deleted."""

WARM_SECONDS = 4.0
LOG_NAME = re.compile(r"\d{20}(\.checkpoint\.parquet|\.json)|_last_checkpoint")
"""What belongs in the log of a table."""

PART_KEY = re.compile(r'"key": ?"([^"]+)"')
BUCKETS = ("raw-data", "processed-data", "features", "training-data")


@dataclass
class Result:
    """What an attack came to.

    Attributes:
        calls: Made by the attackers.
        before_bytes, after_bytes: The server's own memory.
        seen: What the neighbour saw; None where there was none.
        others_cores: Cores that the rest of the machine kept busy meanwhile.
        orphans: Files that nothing names and nobody deletes.
        missed: Sentences or words for what is not as it must be.
    """

    calls: int = 0
    before_bytes: int = 0
    after_bytes: int = 0
    seen: Seen | None = None
    others_cores: float = 0.0
    orphans: int = 0
    missed: list[str] = field(default_factory=list)


class Stage:
    """A server with default settings on a folder, started with its neighbour.

    Attributes:
        seconds: For how long floods last.
        held: What attackers keep open until memory is counted.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.data = folder / "data"
        self.seconds = seconds
        self.held = ExitStack()
        self.server = self._start()
        self.neighbour = self._meet()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.held.close()
        self.neighbour.__exit__()
        if self.alive:
            self.server.stop()

    @property
    def alive(self) -> bool:
        """Whether the server's process has not ended."""
        return self.server.process.poll() is None

    def restart(self) -> float:
        """Starts the next server on the folder of one that has ended; returns the seconds until it serves."""
        self.neighbour.__exit__()
        started = time.monotonic()
        self.server = self._start()
        seconds = time.monotonic() - started
        self.neighbour = self._meet()
        return seconds

    def stub(self) -> PipelineServiceStub:
        """A client with a connection of its own, closed once memory is counted."""
        # Else channels of one process share a connection, and its limit on streams.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        return PipelineServiceStub(self.held.enter_context(self.channel(options)))

    def channel(self, options: list[tuple[str, int]] | None = None) -> grpc.Channel:
        """A connection; close it."""
        return grpc.insecure_channel(self.server.address, options)

    def suffer(self, attack: Callable[["Stage"], int]) -> Result:
        """Has an attack done while the neighbour goes on."""
        result = Result(before_bytes=own_bytes(self.server.process.pid))
        started, others = time.monotonic(), Others()
        self.neighbour.begin()
        try:
            result.calls = attack(self)
        finally:
            time.sleep(max(0.0, LEAST_SECONDS - (time.monotonic() - started)))
            result.seen, result.others_cores = self.neighbour.end(), others.cores()
            if self.alive:
                time.sleep(REST_SECONDS)
                result.after_bytes = own_bytes(self.server.process.pid)
            self.held.close()
        result.orphans = self.orphans_left()
        result.missed = list(self._missed(result, result.seen))
        return result

    def orphans_left(self) -> int:
        """Orphans that are still there after a while."""
        deadline = time.monotonic() + SWEEP_SECONDS
        while (found := len(orphans(self.data))) and time.monotonic() < deadline:
            time.sleep(1)
        return found

    def _missed(self, result: Result, seen: Seen) -> Iterator[str]:
        if not self.alive:
            yield f"the server ended with {self.server.process.returncode}"
        if seen.peak_bytes >= PEAK_BYTES:
            yield f"peak {seen.peak_bytes // MIB} MiB"
        if result.after_bytes - result.before_bytes >= KEPT_BYTES:
            yield f"kept {(result.after_bytes - result.before_bytes) // MIB} MiB"
        if seen.ingest_p99_seconds >= INGEST_SECONDS:
            yield f"ingest p99 {seen.ingest_p99_seconds * 1000:.0f} ms"
        for name, seconds in (("upload", seen.upload_seconds), ("read", seen.read_seconds)):
            if max(seconds, default=0.0) >= UPLOAD_SECONDS:
                yield f"{name} {max(seconds):.1f} s"
        yield from (f"{count} {what}" for what, count in seen.failures.items())
        if seen.unhealthy:
            yield f"{len(seen.unhealthy)} s {seen.unhealthy[0]}"
        if result.orphans:
            yield f"{result.orphans} orphans"

    def _meet(self) -> Neighbour:
        """A neighbour, and the server warm from its calls."""
        neighbour = Neighbour(self.server.address, self.server.http_port, self.server.process.pid)
        neighbour.begin()
        time.sleep(WARM_SECONDS)
        neighbour.end()
        return neighbour

    def _start(self) -> Server:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        return start_server(self.data)


def orphans(data: Path) -> list[Path]:
    """Files that no version of a table and no record of an upload names; entries of runs; scratch.

    Records name parts of rejects that ListRejects reads. Open uploads may still need what bears their names.
    """
    index = data / "raw-data/_headrace/open"
    living = {name for _, _, names in os.walk(index) for name in names}
    named, files = set[str](), list[Path]()
    for bucket in BUCKETS:
        for where, folders, names in os.walk(data / bucket):
            if os.path.basename(where) == "_delta_log":
                named.update(_named(Path(where)))
                files += [Path(where, name) for name in names if not LOG_NAME.fullmatch(name)]
                continue
            if "_headrace" in folders:
                folders.remove("_headrace")
            files += [Path(where, name) for name in names]
    uploads = data / "raw-data/_headrace/uploads"
    for where, _, names in os.walk(uploads):
        session = Path(where).relative_to(uploads).parts[1:2]
        if session and session[0] not in living:
            files += [Path(where, name) for name in names if not name.isdigit()]
        for name in filter(str.isdigit, names):
            named.update(str(data / key) for key in PART_KEY.findall(Path(where, name).read_text()))
    found = [each for each in files if str(each) not in named and not any(one in each.name for one in living)]
    for folder in (data / "raw-data/_headrace/runs", data / ".scratch"):
        found += [Path(where, name) for where, _, names in os.walk(folder) for name in names]
    return found


_read: dict[Path, frozenset[str]] = {}


def _named(log: Path) -> Iterator[str]:
    """Paths of all files that any version of a table has added."""
    for entry in log.glob("*.json"):
        if entry not in _read:
            added = (json.loads(line).get("add") for line in entry.read_text().splitlines() if line)
            _read[entry] = frozenset(str(log.parent / unquote(add["path"])) for add in added if add)
        yield from _read[entry]
