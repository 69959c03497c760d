"""Machines whose lines are cut: packets disappear, and nobody is told."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from brokers.minio import start_minio
from harness.network import WHY_NOT, Machine, Network, is_possible
from harness.nodes import Nodes
from harness.server import SERVER, Server, start_server
from harness.watch import eventually

from headrace import Client
from headrace.errors import UnavailableError
from headrace.sample import Sample, generate

T = TypeVar("T")

CUT_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
ROW = {"user_id": "u", "interaction_type": "view", "timestamp": "2026-01-01"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_possible(), reason=WHY_NOT),
]


class Place:
    """A server, two nodes of one CPU, MinIO and the head of the cluster, each on a machine of its own."""

    def __init__(self, network: Network, folder: Path) -> None:
        head, self.store, self.host, *self.workers = (network.add() for _ in range(5))
        self.minio = start_minio(folder / "minio", host=self.store.address, within=self.store.command())
        self.nodes = Nodes(head)
        self.nodes.add(0, self.host)
        for machine in self.workers:
            self.nodes.add(1, machine)
        self.server = start_on(
            self.host,
            folder,
            **self.nodes.settings,
            S3_ENDPOINT=self.minio.endpoint,
            S3_ACCESS_KEY=self.minio.access_key,
            S3_SECRET_KEY=self.minio.secret_key,
        )

    def close(self) -> None:
        """Ends everything."""
        assert self.server.stop() == 0
        self.nodes.__exit__()
        self.minio.kill()

    def live(self) -> int:
        """Workers in rotation."""
        with Client(self.server.address) as client:
            return client.health().workers_live

    def work(self, tenant: str, file: Path) -> tuple[int, int, int]:
        """An upload and both runs on it, tried again where they end UNAVAILABLE."""
        with Client(self.server.address) as client:
            accepted = client.upload(tenant, "interactions", file, patience_s=PATIENCE_SECONDS).rows_accepted
            features = _insist(lambda: client.compute_features(tenant).interactions)
            return accepted, features, _insist(lambda: client.sample_negatives(tenant).positives)

    def ingest(self, tenant: str, rows: int) -> int:
        """One row after the other, each until it is stored; how many the table has then."""
        with Client(self.server.address) as client:
            for number in range(rows):
                row = ROW | {"item_id": f"i{number}"}
                request_id = str(uuid.uuid4())
                _insist(partial(client.ingest_interactions, tenant, [row], request_id=request_id))
            return int(_insist(lambda: client.read_table(tenant, "interactions").num_rows))


def _insist(call: Callable[[], T]) -> T:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except UnavailableError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as made:
        yield made


@pytest.fixture(scope="module")
def place(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(network, tmp_path_factory.mktemp("lines"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = Sample(users=2_000, items=500, interactions=30_000, seed=5)
    return generate(sample, tmp_path_factory.mktemp("sample")).interactions


def start_on(machine: Machine, folder: Path, **settings: str) -> Server:
    return start_server(
        folder / "data",
        machine.command(*SERVER),
        HEADRACE_GRPC_ADDRESS=f"{machine.address}:0",
        HEADRACE_BLOCK_BYTES="65536",
        **settings,
    )


def test_work_goes_on_while_the_line_of_a_node_is_cut(network: Network, place: Place, file: Path) -> None:
    eventually(lambda: place.live() == 2, 60)
    calm = place.work("calm", file)
    with ThreadPoolExecutor() as pool:
        disturbed = [pool.submit(place.work, f"t{number}", file) for number in range(3)]
        eventually(lambda: _has_table(place, "t2"), 60)
        place.workers[1].cut()
        assert pool.submit(place.ingest, "small", 20).result(PATIENCE_SECONDS) == 20
        # The line is still cut.
        assert [each.result(PATIENCE_SECONDS) for each in disturbed] == [calm] * 3
    place.nodes.add(1, network.add())
    eventually(lambda: place.live() == 2, 60)


def test_a_server_goes_on_that_loses_its_store_for_a_while(place: Place, file: Path) -> None:
    calm = place.work("undisturbed", file)
    with ThreadPoolExecutor() as pool:
        disturbed = [pool.submit(place.work, f"s{number}", file) for number in range(2)]
        ingested = pool.submit(place.ingest, "ones", 50)
        place.host.lose(place.store)
        time.sleep(CUT_SECONDS)
        place.host.find(place.store)
        assert [each.result(PATIENCE_SECONDS) for each in disturbed] == [calm] * 2
        assert ingested.result(PATIENCE_SECONDS) == 50


def _has_table(place: Place, tenant: str) -> bool:
    with Client(place.server.address) as client:
        return bool(client.list_tables(tenant))
