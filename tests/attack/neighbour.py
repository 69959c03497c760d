"""A neighbour of the attacker: another tenant's small calls, in a process of its own, and what health says.

Run as a program it takes `begin` and `end` from its standard input, and answers each `end` with what it saw.
Its calls begin when they are due, whether those before have been answered or not: a server that stands
still for a second delays ten one-row ingests, not one.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import grpc
from bench.memory import own_bytes
from harness.dialogue import HEADER, chunk, finish, header, lines

from headrace.v1 import ingest_pb2, row_pb2, table_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

INGEST_SECONDS = 0.1
UPLOAD_SECONDS = 2.0
HEALTH_SECONDS = 1.0
MEMORY_SECONDS = 0.05

WAIT_SECONDS = 120.0
"""A call that takes longer has failed."""

ROW = row_pb2.Interaction(user_id="u", item_id="i", interaction_type="view", timestamp="2026-01-01")
UPLOAD_ROWS = 100


@dataclass
class Seen:
    """What a neighbour saw between a begin and its end.

    Attributes:
        ingest_seconds: Of one-row ingests, each from when it was due.
        upload_seconds: Of uploads of a hundred rows, from header to result.
        read_seconds: Of reads of one row.
        failures: Calls that failed, by what they ended with.
        unhealthy: What health said instead of healthy, or that it did not answer.
        peak_bytes: The server's own memory at most.
    """

    ingest_seconds: list[float] = field(default_factory=list)
    upload_seconds: list[float] = field(default_factory=list)
    read_seconds: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    unhealthy: list[str] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def calls(self) -> int:
        """How many calls were answered."""
        return len(self.ingest_seconds) + len(self.upload_seconds) + len(self.read_seconds)

    @property
    def ingest_p50_seconds(self) -> float:
        """The median of one-row ingests."""
        return _quantile(self.ingest_seconds, 0.5)

    @property
    def ingest_p99_seconds(self) -> float:
        """What all but one in a hundred one-row ingests stay below."""
        return _quantile(self.ingest_seconds, 0.99)


def _quantile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))] if seconds else 0.0


class Neighbour:
    """The process, seen from the attack."""

    def __init__(self, address: str, http_port: int, pid: int) -> None:
        command = [sys.executable, "-m", "attack.neighbour", address, str(http_port), str(pid)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self) -> None:
        """Begins to call, and to look."""
        self._say("begin")

    def end(self) -> Seen:
        """Ends that, once all calls are answered."""
        return Seen(**json.loads(self._say("end")))

    def _say(self, word: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT_SECONDS)


class _Round:
    """The calls from a begin to its end."""

    def __init__(self, stub: PipelineServiceStub, http_port: int, pid: int) -> None:
        self._stub = stub
        self._health_url = f"http://127.0.0.1:{http_port}/health"
        self._pid = pid
        self._over = threading.Event()
        self._calls: deque[Any] = deque()
        self.seen = Seen()
        jobs = {
            self._ingest: INGEST_SECONDS,
            self._upload: UPLOAD_SECONDS,
            self._read: UPLOAD_SECONDS,
            self._ask_health: HEALTH_SECONDS,
            self._measure: MEMORY_SECONDS,
        }
        self._threads = [threading.Thread(target=self._repeat, args=job) for job in jobs.items()]
        for thread in self._threads:
            thread.start()

    def end(self) -> Seen:
        """What was seen, once everything is answered."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        for call in self._calls:
            call.exception()
        return self.seen

    def _repeat(self, job: Callable[[], None], every_seconds: float) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            job()
            due = max(due + every_seconds, time.monotonic() - 10 * every_seconds)

    def _ingest(self) -> None:
        request = ingest_pb2.IngestInteractionsRequest(tenant_id="neighbour", rows=[ROW])
        call: Any = self._stub.IngestInteractions.future(request, timeout=WAIT_SECONDS)
        started = time.monotonic()

        def answered(ended: Any) -> None:
            if ended.code() is grpc.StatusCode.OK:
                self.seen.ingest_seconds.append(time.monotonic() - started)
            else:
                self._failed("IngestInteractions", ended.code().name)

        call.add_done_callback(answered)
        self._calls.append(call)

    def _upload(self) -> None:
        requests = [header("neighbour"), chunk(HEADER + lines(UPLOAD_ROWS)), finish()]
        self._time(
            "Upload",
            self.seen.upload_seconds,
            lambda: self._stub.Upload(iter(requests), timeout=WAIT_SECONDS),
        )

    def _read(self) -> None:
        request = table_pb2.ReadTableRequest(tenant_id="neighbour", table="interactions", limit=1)
        self._time(
            "ReadTable", self.seen.read_seconds, lambda: self._stub.ReadTable(request, timeout=WAIT_SECONDS)
        )

    def _time(self, name: str, seconds: list[float], call: Callable[[], Any]) -> None:
        started = time.monotonic()
        try:
            for _ in call():
                pass
        except grpc.RpcError as error:
            self._failed(name, error.code().name)
        else:
            seconds.append(time.monotonic() - started)

    def _failed(self, name: str, code: str) -> None:
        key = f"{name} {code}"
        self.seen.failures[key] = self.seen.failures.get(key, 0) + 1

    def _ask_health(self) -> None:
        try:
            with urllib.request.urlopen(self._health_url, timeout=10) as response:
                status = str(json.load(response)["status"])
        except urllib.error.HTTPError as error:
            status = str(json.load(error)["status"])
        except OSError as error:
            status = f"no answer ({error})"
        if status != "healthy":
            self.seen.unhealthy.append(status)

    def _measure(self) -> None:
        try:
            self.seen.peak_bytes = max(self.seen.peak_bytes, own_bytes(self._pid))
        except (OSError, KeyError):
            return  # It has ended, which is told by others.


def main() -> None:
    """Is the neighbour."""
    address, http_port, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with grpc.insecure_channel(address) as channel:
        current: _Round | None = None
        for line in sys.stdin:
            answer = ""
            if line.strip() == "begin":
                current = _Round(PipelineServiceStub(channel), http_port, pid)
            elif current is not None:
                answer = json.dumps(asdict(current.end()))
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
