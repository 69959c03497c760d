"""The HTTP port: /metrics for Prometheus, /health and /live for probes."""

import json
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds; their lines would drown the log."""


class HttpPort:
    """Serves probes and metrics from a thread of its own, whatever the event loop does.

    Args:
        address: host:port; port 0 takes a free one.
        health: The body of /health; its `status` decides between 200 and 503.
    """

    def __init__(self, address: str, health: Callable[[], dict[str, Any]]) -> None:
        host, _, port = address.rpartition(":")
        self._health = health
        self._metrics = make_wsgi_app()
        self._server = make_server(
            host.strip("[]"), int(port), self._respond, server_class=_Server, handler_class=_QuietHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                response: Iterable[bytes] = self._metrics(environ, start_response)
                return response
            case "/health":
                body = self._health()
                status = "503 Service Unavailable" if body["status"] == "unhealthy" else "200 OK"
                return _json(start_response, status, body)
            case "/live":
                return _json(start_response, "200 OK", {"status": "live"})
            case path:
                text = f"no page {path[:80]!r}; there are /health, /live and /metrics"
                return _json(start_response, "404 Not Found", {"error": text})


def _json(start_response: StartResponse, status: str, body: dict[str, Any]) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]
