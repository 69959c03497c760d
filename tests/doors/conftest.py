"""Servers for the tests of what stands before them; `tests/integration/conftest.py` tells of the kinds."""

import uuid
from collections.abc import Iterator

import pytest
from harness.cluster import Cluster
from harness.phoenix import Phoenix
from harness.server import Server, start_server


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Server]:
    """One with blocks of 8 MiB, the default: it acknowledges nothing sooner by itself."""
    made = start_server(tmp_path_factory.mktemp("server") / "data", **cluster.settings)
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="session")
def reborn(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Phoenix]:
    made = Phoenix(tmp_path_factory.mktemp("phoenix"), **cluster.settings)
    yield made
    assert made.rest().stop() == 0


@pytest.fixture
def phoenix(reborn: Phoenix) -> Phoenix:
    """A server that tests may kill, and which is up when a test begins."""
    reborn.rest()
    return reborn


@pytest.fixture
def tenant() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"
