"""An HTTP relay on loopback: shows what is on the wire to a server, and can meddle with it."""

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Request:
    """A request as it came; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def object_path(self) -> str:
        """The path, without what follows a question mark."""
        return self.path.partition("?")[0]

    def asked_bytes(self, size: int) -> int:
        """How much of an object of so many bytes a GET asks for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return int(found[2]) - int(found[1]) + 1 if found else size


@dataclass(frozen=True)
class Answer:
    """An answer the server was not asked for."""

    status: int
    body: bytes = b""


class Lost:
    """The server is asked, and the connection is closed before its answer comes."""


Meddler = Callable[[Request], Answer | Lost | None]


def refusal(status: int, code: str, more: str = "") -> Answer:
    """An S3 error."""
    return Answer(status, f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>".encode())


@dataclass
class Relay:
    """What the relay has seen, and what it is to do."""

    endpoint: str
    seen: list[Request] = field(default_factory=list)
    meddle: Meddler = field(default=lambda request: None)
    pause_seconds: float = 0.0
    """A pause after each MiB of a body."""

    def puts(self, path: str) -> list[Request]:
        """The PUTs of one object, oldest first."""
        return [each for each in self.seen if each.method == "PUT" and each.path == path]


@contextmanager
def relay_to(target: str) -> Iterator[Relay]:
    """A relay to `http://host:port` while the context lasts."""
    host = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            request = Request(self.command, self.path, {name.lower(): v for name, v in self.headers.items()})
            relay.seen.append(request)
            body = self.read_body()
            answer = relay.meddle(request)
            if isinstance(answer, Answer):
                self.reply(answer.status, {"Content-Type": "application/xml"}, answer.body)
                return
            status, headers, content = self.ask(body)
            if isinstance(answer, Lost):
                self.close_connection = True
                self.connection.close()
                return
            self.reply(status, headers, content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any

        def read_body(self) -> bytes:
            left, pieces = int(self.headers.get("Content-Length", 0)), []
            while left:
                pieces.append(self.rfile.read(min(left, PIECE_BYTES)))
                left -= len(pieces[-1])
                time.sleep(relay.pause_seconds)
            return b"".join(pieces)

        def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(host, timeout=20)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body or None)
                response = connection.getresponse()
                return response.status, dict(response.getheaders()), response.read()
            finally:
                connection.close()

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients that give up are what these tests are about

    with Server(("127.0.0.1", 0), Handler) as server:
        relay = Relay(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield relay
        finally:
            server.shutdown()
