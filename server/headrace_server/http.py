"""The HTTP port: /metrics for Prometheus, /health and /live for probes."""

import json
import resource
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import waitress
from prometheus_client import make_wsgi_app

THREADS = 2
"""Answers take milliseconds; more at once would only take the cores from uploads."""

CONNECTIONS = 4_096
"""At once, as far as the limit on open files allows; others wait to be accepted."""

SILENT_SECONDS = 10
"""A connection that says nothing for so long is closed."""

REQUEST_BYTES = 16_384
"""Of a request's head, and of its body, which no page reads."""

NOT_SERVING = ("starting", "unhealthy")
"""In which a balancer must send nothing here."""


class HttpPort:
    """Serves probes and metrics from threads of its own, whatever the event loop does, to the process's end.

    Args:
        address: host:port; port 0 takes a free one.
        health: The body of /health; its `status` decides between 200 and 503.

    Attributes:
        health: The same; what a start tells is replaced once the server serves.
    """

    def __init__(self, address: str, health: Callable[[], dict[str, Any]]) -> None:
        host, _, port = address.rpartition(":")
        self.health = health
        self._metrics = make_wsgi_app()
        self._server = waitress.create_server(
            self._respond,
            host=host.strip("[]"),
            port=int(port),
            threads=THREADS,
            connection_limit=min(CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4),
            channel_timeout=SILENT_SECONDS,
            cleanup_interval=1,
            max_request_header_size=REQUEST_BYTES,
            max_request_body_size=REQUEST_BYTES,
            asyncore_use_poll=True,
            ident=None,
        )
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.effective_port)

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                response: Iterable[bytes] = self._metrics(environ, start_response)
                return response
            case "/health":
                body = self.health()
                status = "503 Service Unavailable" if body["status"] in NOT_SERVING else "200 OK"
                return _json(start_response, status, body)
            case "/live":
                return _json(start_response, "200 OK", {"status": "live"})
            case path:
                text = f"no page {path[:80]!r}; there are /health, /live and /metrics"
                return _json(start_response, "404 Not Found", {"error": text})


def _json(start_response: StartResponse, status: str, body: dict[str, Any]) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]
