"""Fixtures of the integration tests: real servers, the generated client, the SDK."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from harness.server import Server, start_server

from headrace import Client
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as it was; tests keep apart by tenant."""
    started = start_server(tmp_path_factory.mktemp("server") / "data", HEADRACE_BLOCK_BYTES="65536")
    yield started
    assert started.stop() == 0


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that a test may kill; `own_server(data_dir=..., **settings)`."""
    started: list[Server] = []

    def start(data_dir: Path | None = None, **settings: str) -> Server:
        started.append(start_server(data_dir or tmp_path / "data", **settings))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.stop()


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def stub(server: Server) -> Iterator[PipelineServiceStub]:
    """The generated client, for tests that speak the protocol themselves."""
    with grpc.insecure_channel(server.address) as channel:
        yield PipelineServiceStub(channel)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The SDK, for tests that want a result."""
    with Client(server.address) as connected:
        yield connected
