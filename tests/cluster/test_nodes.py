"""Servers on a Ray cluster of several nodes, one of which is killed, and one of which is added."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.nodes import Nodes
from harness.phoenix import Phoenix
from harness.server import Server, start_server
from harness.watch import eventually

from headrace import Client
from headrace.sample import Sample, generate
from headrace.v1 import run_pb2

ROW = {"user_id": "u", "interaction_type": "view", "timestamp": "2026-01-01"}

RUN = "6f1e9a51-6a0c-4c37-8a53-8a5f5d1f6f4e"

PATIENCE_SECONDS = 240.0
"""Of a client whose server notices that its cluster has died, ends, and is started on another one."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes() as running:
        yield running


@pytest.fixture
def serve(nodes: Nodes, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers on the cluster, each with a store of its own."""
    started: list[Server] = []

    def start(**settings: str) -> Server:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(
            start_server(folder / "data", **nodes.settings, HEADRACE_BLOCK_BYTES="65536", **settings)
        )
        return started[-1]

    yield start
    running = [each for each in started if each.process.poll() is None]
    assert [each.stop() for each in running] == [0] * len(running)


def live(server: Server) -> int:
    with Client(server.address) as client:
        return client.health().workers_live


def test_work_goes_on_where_a_node_is_killed_and_another_one_added(
    nodes: Nodes, serve: Callable[..., Server], tmp_path: Path
) -> None:
    first, second = nodes.add(1), nodes.add(1)
    server = serve()
    eventually(lambda: live(server) == 2)
    file = generate(Sample(users=2_000, items=500, interactions=150_000, seed=5), tmp_path).interactions
    over = threading.Event()

    def ingest() -> int:
        """One row after the other, until the rest is over."""
        count = 0
        with Client(server.address) as client:
            while not over.is_set():
                row = {
                    "user_id": "u",
                    "item_id": f"i{count}",
                    "interaction_type": "view",
                    "timestamp": "2026-01-01",
                }
                client.ingest_interactions("small", [row])
                count += 1
        return count

    def work(tenant: str) -> tuple[int, int, int]:
        """An upload and both runs on it."""
        with Client(server.address) as client:
            accepted = client.upload(tenant, "interactions", file).rows_accepted
            features = client.compute_features(tenant).interactions
            return accepted, features, client.sample_negatives(tenant).positives

    with ThreadPoolExecutor() as pool, ExitStack() as ending:
        ending.callback(over.set)
        ingested = pool.submit(ingest)
        undisturbed = pool.submit(work, "calm").result(120)
        disturbed = [pool.submit(work, f"t{number}") for number in range(3)]
        eventually(lambda: _has_blocks(server, "t2"))
        nodes.kill(second)
        assert [each.result(120) for each in disturbed] == [undisturbed] * 3
        nodes.add(2)
        eventually(lambda: live(server) == 3, 60)
        assert pool.submit(work, "late").result(120) == undisturbed
        over.set()
        with Client(server.address) as client:
            ones = ingested.result(30)
            assert client.read_table("small", "interactions").num_rows == ones
            health = client.health()
    assert (health.status, health.workers_wanted, health.workers_lost) == ("healthy", 3, 0)
    assert first


@pytest.mark.slow
def test_servers_that_join_a_restarted_head_roll_everything_forward(tmp_path: Path) -> None:
    file = generate(Sample(users=2_000, items=500, interactions=150_000, seed=5), tmp_path).interactions
    with ThreadPoolExecutor() as pool, ExitStack() as ending:
        with Nodes() as nodes:
            only = nodes.add(1)
            server = Phoenix(tmp_path, **nodes.settings)
            with Client(server.address) as client:
                undisturbed = client.upload("calm", "interactions", file).rows_accepted
                features = client.compute_features("calm").interactions

                def compute() -> int:
                    """A run that is followed for so long."""
                    result = client.compute_features("calm", request_id=RUN, patience_s=PATIENCE_SECONDS)
                    return result.interactions

                def upload(tenant: str) -> int:
                    """An upload that waits for its server for so long."""
                    return client.upload(
                        tenant, "interactions", file, patience_s=PATIENCE_SECONDS
                    ).rows_accepted

                computed = pool.submit(compute)
                eventually(lambda: any(run.request_id for run in client.runs("calm")))
                uploaded = [pool.submit(upload, f"t{number}") for number in range(3)]
                eventually(lambda: _has_blocks(server.server, "t2"))
                # Without a head alone its nodes go on: what is under way ends well.
                nodes.kill(only)
                nodes.kill_head()
                assert server.server.process.wait(120) == 1
                assert not all(each.done() for each in uploaded)
                restarted = ending.enter_context(Nodes())
                restarted.add(1)
                back = server.start(**restarted.settings)
                assert [each.result(120) for each in uploaded] == [undisturbed] * 3
                assert computed.result(120) == features
                runs = [run for run in client.runs("calm") if run.request_id]
                health = client.health()
        assert health.status == "healthy"
        assert [run.state for run in runs] == [run_pb2.RUN_STATE_DONE]
        assert back.stop() == 0


@pytest.mark.slow
def test_servers_end_when_the_head_of_the_cluster_has_died(
    nodes: Nodes, serve: Callable[..., Server]
) -> None:
    nodes.add(1)
    server = serve()
    with Client(server.address) as client:
        nodes.kill_head()
        eventually(lambda: client.health().status == "unhealthy")
    assert server.process.wait(120) == 1
    assert "Ray has not answered" in str(server.logged(event="stopping"))
    # Whatever Ray has to say to it.
    assert [line["text"] for line in server.log if "text" in line] == []


@pytest.mark.slow
def test_servers_share_a_cluster_that_one_of_them_fills(nodes: Nodes, serve: Callable[..., Server]) -> None:
    nodes.add(2)
    servers = [serve() for _ in range(3)]
    for number, server in enumerate(servers):
        with Client(server.address) as client:
            rows = [{"item_id": f"i{n}", "title": "x"} for n in range(10 + number)]
            assert client.upload_rows("acme", "items", rows).rows_accepted == 10 + number


def _has_blocks(server: Server, tenant: str) -> bool:
    folder = server.data_dir / "raw-data" / tenant
    return any(folder.rglob("*.parquet"))
