"""Fixtures of the integration tests: real servers, the generated client, the SDK.

A server takes seconds of both cores to start, so a test takes the first of these that will do,
and keeps apart from the others by its tenant:

- `server`, with `stub` and `client`: leaves it as it was. Its blocks have 64 KiB.
- `server_with(**settings)`: the same with other settings, or none; one server per set of settings.
- `phoenix`: kills or stops the server, and goes on with the next one on the same port and data.
- `own_server(**settings)`: has needs of its own, such as a disk, or counts the server's memory.

All of them share one Ray, on which a start takes a third of the time. Who looks for a server's workers among
its children gives it a Ray of its own, which is the default of users: `RAY_ADDRESS=""`. So have all servers
of tests/chaos.

`harness.refused` is for servers that must not start, which cost next to nothing.
"""

import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from harness.cluster import Cluster
from harness.phoenix import Phoenix
from harness.server import Server, start_server

from headrace import Client
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The Ray of all servers that do not have their own."""
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def server_with(
    tmp_path_factory: pytest.TempPathFactory, cluster: Cluster
) -> Iterator[Callable[..., Server]]:
    """The server that has exactly these settings; started when it is first asked for."""
    started: dict[frozenset[tuple[str, str]], Server] = {}

    def find(**settings: str) -> Server:
        key = frozenset(settings.items())
        if key not in started:
            started[key] = start_server(
                tmp_path_factory.mktemp("server") / "data", **{**cluster.settings, **settings}
            )
        return started[key]

    yield find
    for each in started.values():
        each.process.send_signal(signal.SIGTERM)
    assert {each.process.wait(60) for each in started.values()} <= {0}


@pytest.fixture(scope="session")
def server(server_with: Callable[..., Server]) -> Server:
    """The server for all tests that leave it as it was; tests keep apart by tenant."""
    return server_with(HEADRACE_BLOCK_BYTES="65536")


@pytest.fixture(scope="session")
def reborn(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Phoenix]:
    """What `phoenix` hands out."""
    made = Phoenix(tmp_path_factory.mktemp("phoenix"), **cluster.settings)
    yield made
    assert made.rest().stop() == 0


@pytest.fixture
def phoenix(reborn: Phoenix) -> Phoenix:
    """A server that tests may kill, and which is up when a test begins."""
    reborn.rest()
    return reborn


@pytest.fixture
def own_server(tmp_path: Path, cluster: Cluster) -> Iterator[Callable[..., Server]]:
    """Starts servers of a test's own; `own_server(data_dir=..., **settings)`."""
    started: list[Server] = []

    def start(data_dir: Path | None = None, **settings: str) -> Server:
        started.append(start_server(data_dir or tmp_path / "data", **{**cluster.settings, **settings}))
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
