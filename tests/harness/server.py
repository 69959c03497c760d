"""A real server as a process, started as a user would, on free loopback ports."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 120
LOG_SECONDS = 30
SERVER = (sys.executable, "-m", "headrace_server.main")


@dataclass
class Server:
    """A running server process.

    Attributes:
        host: The address of its ports.
    """

    process: subprocess.Popen[str]
    data_dir: Path
    host: str = "127.0.0.1"
    address: str = ""
    http_port: int = 0
    log: list[dict[str, object]] = field(default_factory=list)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Sends a signal and waits for the end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def follow(self, until: str) -> None:
        """Reads log lines until one has the event `until`, and goes on reading in the background."""
        deadline = time.monotonic() + START_SECONDS
        lines = iter(self.process.stderr)  # type: ignore[arg-type]
        for line in lines:
            self._keep(line)
            if self.log and self.log[-1].get("event") == until:
                self.address = f"{self.host}:{self.log[-1]['grpc_port']}"
                self.http_port = int(str(self.log[-1]["http_port"]))
                threading.Thread(target=lambda: deque(map(self._keep, lines), maxlen=0), daemon=True).start()
                return
            assert time.monotonic() < deadline, "the server did not start in time"
        raise AssertionError(f"the server ended with {self.process.wait()}: {self.log[-5:]}")

    def logged(self, **fields: object) -> dict[str, object]:
        """The first log line with these fields; waits for it, since the log is read beside the test."""
        deadline = time.monotonic() + LOG_SECONDS
        while True:
            for line in list(self.log):
                if fields.items() <= line.items():
                    return line
            assert time.monotonic() < deadline, (fields, self.log[-5:])
            time.sleep(0.05)

    def _keep(self, line: str) -> None:
        try:
            self.log.append(json.loads(line))
        except ValueError:
            self.log.append({"text": line})


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """What a server is started with: these settings, free ports, and none of this process's own."""
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HEADRACE_", "RAY_", "S3_", "KAFKA_"))
    }
    return {
        **others,
        "HEADRACE_DATA_DIR": str(data_dir),
        "HEADRACE_GRPC_ADDRESS": "127.0.0.1:0",
        "HEADRACE_HTTP_ADDRESS": "127.0.0.1:0",
        **settings,
    }


def start_server(data_dir: Path, command: Sequence[str] = SERVER, **settings: str) -> Server:
    """Starts a server, by default this environment's, on free ports; returns once it serves."""
    variables = environment(data_dir, **settings)
    process = subprocess.Popen(
        command,
        env=variables,
        cwd=data_dir.parent,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    server = Server(process, data_dir, variables["HEADRACE_GRPC_ADDRESS"].rpartition(":")[0])
    try:
        server.follow("serving")
    except BaseException:
        process.kill()
        raise
    return server
