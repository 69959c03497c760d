"""What may stand between a gateway and its server: one that ends TLS, one that asks who calls."""

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from headrace.v1 import health_pb2


class TlsFront:
    """Ends TLS before a server that speaks none, as a proxy beside it would."""

    def __init__(self, server: str, certificate: Path, key: Path) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)
        self._context.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return  # Closed.
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            client = self._context.wrap_socket(plain, server_side=True)
        except OSError:
            return  # It does not trust us.
        server = socket.create_connection(self._server)
        threading.Thread(target=_copy, args=(client, server), daemon=True).start()
        _copy(server, client)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    except OSError:
        pass
    finally:
        for each in (source, target):
            each.close()


@dataclass
class AuthFront:
    """Where calls are let in by their token; it notes what they said of themselves."""

    address: str = ""
    seen: list[Mapping[str, str | bytes]] = field(default_factory=list)


@contextmanager
def auth_front(token: str) -> Iterator[AuthFront]:
    """Lets calls in whose `authorization` is the token, and answers that all is well."""
    front = AuthFront()

    def check(
        _: health_pb2.CheckHealthRequest, context: grpc.ServicerContext
    ) -> health_pb2.CheckHealthResponse:
        front.seen.append(dict(context.invocation_metadata()))
        if front.seen[-1].get("authorization") != token:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Give a token.")
        return health_pb2.CheckHealthResponse(status="healthy")

    handler = grpc.unary_unary_rpc_method_handler(
        check, health_pb2.CheckHealthRequest.FromString, health_pb2.CheckHealthResponse.SerializeToString
    )
    service = grpc.method_handlers_generic_handler("headrace.v1.PipelineService", {"CheckHealth": handler})
    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((service,))
        front.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield front
        finally:
            server.stop(None).wait()
