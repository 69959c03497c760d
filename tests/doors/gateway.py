"""The REST gateway as a process, built with Go and started as a user would."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brokers.tools import find_tool, run_tool

FOLDER = Path(__file__).parents[2] / "clients" / "gateway"
REMEDY = "Install Go 1.26 or newer (https://go.dev/dl) and let it reach a module proxy."
SECONDS = 60
BOUNDARY = "a-boundary-that-no-file-has"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def build(folder: Path) -> Path:
    """Builds the gateway into a folder; raises BrokerUnavailableError without Go."""
    program = folder / "gateway"
    run_tool([find_tool("go", REMEDY), "build", "-trimpath", "-o", str(program), "."], FOLDER, REMEDY)
    return program


@dataclass(frozen=True)
class Answer:
    """What a request was answered with."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def error(self) -> tuple[int, str, str]:
        """HTTP status, code and reason."""
        assert self.json.keys() == {"error"}, self
        assert self.json["error"].keys() == {"code", "reason", "message", "details"}, self
        return self.status, self.json["error"]["code"], self.json["error"]["reason"]


@dataclass
class Gateway:
    """A running gateway."""

    process: subprocess.Popen[str]
    host: str = ""
    port: int = 0
    trust: ssl.SSLContext | None = None
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{'https' if self.trust else 'http'}://{self.host}:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        if self.trust is not None:
            return http.client.HTTPSConnection(self.host, self.port, timeout=SECONDS, context=self.trust)
        return http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends a request; a body that is no bytes is sent as JSON."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = self.connect()
        try:
            connection.request(method, path, content, dict(headers or {}))
            return take(connection)
        finally:
            connection.close()

    def upload(self, content: bytes | Iterable[bytes], size: int = 0, **query: str) -> Answer:
        """Uploads a file; pieces of one of a size are sent as they come."""
        whole = [content] if isinstance(content, bytes) else content
        size = size or len(content)  # type: ignore[arg-type]
        connection = self.connect()
        try:
            head, tail = form_around("file")
            length = str(len(head) + size + len(tail))
            headers = {"Content-Type": FORM, "Content-Length": length}
            connection.request("POST", upload_path(**query), _chain(head, whole, tail), headers)
            return take(connection)
        finally:
            connection.close()

    def memory_bytes(self) -> int:
        """Its largest resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


def take(connection: http.client.HTTPConnection) -> Answer:
    """Reads the answer to what was sent."""
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def upload_path(**query: str) -> str:
    given = {"data_type": "interactions"} | query
    return "/internal/data/upload-csv?" + "&".join(f"{name}={value}" for name, value in given.items())


def form_around(name: str) -> tuple[bytes, bytes]:
    """What stands before and behind the file of a form."""
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="interactions.csv"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: text/csv\r\n\r\n"
    return head.encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


def _chain(head: bytes, content: Iterable[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    yield from content
    yield tail


@contextmanager
def gateway(
    program: Path, server: str, trust: ssl.SSLContext | None = None, **settings: str
) -> Iterator[Gateway]:
    """Runs a gateway on a free port before the server at an address."""
    variables = {"GATEWAY_ADDRESS": "127.0.0.1:0", "GATEWAY_SERVER_ADDRESS": server} | settings
    process = subprocess.Popen(
        [program],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Gateway(process, trust=trust)
    assert process.stderr is not None
    lines = iter(process.stderr)
    try:
        for line in lines:
            running.log.append(json.loads(line))
            if running.log[-1].get("event") == "serving":
                break
        assert process.poll() is None, running.log
        running.host, _, port = running.log[-1]["address"].rpartition(":")
        running.port = int(port)
        # What is not read would fill the pipe and stop it.
        threading.Thread(target=lambda: deque(lines, maxlen=0), daemon=True).start()
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
