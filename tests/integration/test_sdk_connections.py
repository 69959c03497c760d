"""Clients that prove who they are, over encrypted connections: a gRPC server of this process asks them to."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from brokers.certificate import write_certificate

import headrace
from headrace import aio
from headrace.v1 import health_pb2

if TYPE_CHECKING:
    # Generic in its stubs alone.
    Interceptor = grpc.UnaryUnaryClientInterceptor[Any, Any]
else:
    Interceptor = grpc.UnaryUnaryClientInterceptor

TOKEN = "a-token"


class Gate:
    """Lets nobody in without the token, and keeps what callers send along."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.failures = 0

    def check_health(self, _: Any, context: grpc.ServicerContext) -> health_pb2.CheckHealthResponse:
        """Answers those who have it; the first `failures` of them in vain."""
        self.seen.append(dict(context.invocation_metadata()))
        if self.seen[-1].get("authorization") != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Who are you?")
        if self.failures:
            self.failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "Come again.")
        return health_pb2.CheckHealthResponse(status="healthy")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate, its key, and the authority that signed it."""
    folder = tmp_path_factory.mktemp("tls")
    named = {name: folder / f"{name}.pem" for name in ("cert_file", "key_file", "ca_file")}
    write_certificate(named["cert_file"], named["key_file"], named["ca_file"])
    return named


Serve = Callable[..., tuple[str, Gate]]


@pytest.fixture
def serve(files: dict[str, Path]) -> Iterator[Serve]:
    """Starts servers with TLS."""
    started = []

    def start(*, asks_for_certificate: bool = False) -> tuple[str, Gate]:
        server, gate = grpc.server(ThreadPoolExecutor(2)), Gate()
        method = grpc.unary_unary_rpc_method_handler(
            gate.check_health,
            health_pb2.CheckHealthRequest.FromString,
            health_pb2.CheckHealthResponse.SerializeToString,
        )
        name, methods = "headrace.v1.PipelineService", {"CheckHealth": method}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        pair = (files["key_file"].read_bytes(), files["cert_file"].read_bytes())
        authority = files["ca_file"].read_bytes() if asks_for_certificate else None
        proof = grpc.ssl_server_credentials([pair], authority, asks_for_certificate)
        port = server.add_secure_port("127.0.0.1:0", proof)
        server.start()
        started.append(server)
        return f"127.0.0.1:{port}", gate

    yield start
    for server in started:
        server.stop(None)


def test_a_token_goes_over_tls_with_the_version_of_the_sdk(serve: Serve, files: dict[str, Path]) -> None:
    address, gate = serve()
    with headrace.Client(address, credentials=headrace.Tls(files["ca_file"]), token=TOKEN) as client:
        assert client.health().status == "healthy"

    async def ask() -> str:
        tls = headrace.Tls(files["ca_file"])
        async with aio.AsyncClient(address, credentials=tls, token=TOKEN) as client:
            return (await client.health()).status

    assert asyncio.run(ask()) == "healthy"
    assert len(gate.seen) == 2
    for seen in gate.seen:
        assert seen["user-agent"].startswith(f"headrace-python/{headrace.__version__} ")


def test_the_environment_says_it_as_well(
    serve: Serve, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = serve()
    monkeypatch.setenv("HEADRACE_ADDRESS", address)
    monkeypatch.setenv("HEADRACE_TOKEN", TOKEN)
    monkeypatch.setenv("HEADRACE_CA_FILE", str(files["ca_file"]))
    with headrace.Client() as client:
        assert client.health().status == "healthy"


def test_a_server_of_another_authority_is_not_told_the_token(serve: Serve) -> None:
    address, gate = serve()
    with (
        headrace.Client(address, credentials=headrace.Tls(), token=TOKEN, timeout=5) as client,
        pytest.raises(headrace.UnavailableError),
    ):
        client.health()
    assert gate.seen == []


def test_no_token_or_another_one_is_an_error_of_its_own(serve: Serve, files: dict[str, Path]) -> None:
    address, _ = serve()
    for token in (None, "another"):
        with (
            headrace.Client(address, credentials=headrace.Tls(files["ca_file"]), token=token) as client,
            pytest.raises(headrace.UnauthenticatedError) as raised,
        ):
            client.health()
        assert TOKEN not in str(raised.value)


def test_a_server_that_asks_for_a_certificate_gets_it(serve: Serve, files: dict[str, Path]) -> None:
    address, gate = serve(asks_for_certificate=True)
    with headrace.Client(address, credentials=headrace.Tls(**files), token=TOKEN) as client:
        assert client.health().status == "healthy"
    without = headrace.Tls(files["ca_file"])
    with (
        headrace.Client(address, credentials=without, token=TOKEN, timeout=5) as client,
        pytest.raises(headrace.UnavailableError),
    ):
        client.health()
    assert len(gate.seen) == 1


def test_a_unary_call_is_tried_again_as_its_policy_says(serve: Serve, files: dict[str, Path]) -> None:
    address, gate = serve()
    how: dict[str, Any] = {"credentials": headrace.Tls(files["ca_file"]), "token": TOKEN}
    gate.failures = 2
    with headrace.Client(address, **how) as client:
        assert client.health().status == "healthy"
    assert len(gate.seen) == 3
    gate.failures = 1
    with (
        headrace.Client(address, **how, retry=headrace.Retry(attempts=1)) as client,
        pytest.raises(headrace.UnavailableError),
    ):
        client.health()
    assert len(gate.seen) == 4


class Stamp(Interceptor):
    """Adds to what calls carry."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Adds a request id."""
        metadata = (*(client_call_details.metadata or ()), ("x-request-id", "r-1"))
        return continuation(client_call_details._replace(metadata=metadata), request)


def test_interceptors_see_every_call(serve: Serve, files: dict[str, Path]) -> None:
    address, gate = serve()
    tls = headrace.Tls(files["ca_file"])
    with headrace.Client(address, credentials=tls, token=TOKEN, interceptors=[Stamp()]) as client:
        client.health()
    assert gate.seen[0]["x-request-id"] == "r-1"
