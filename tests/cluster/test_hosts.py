"""Clusters whose nodes are on several hosts, each with an address of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.network import WHY_NOT, Machine, Network, is_possible
from harness.nodes import Nodes
from harness.server import SERVER, Server, start_server
from harness.watch import eventually

from headrace import Client

ROW = {"user_id": "u", "interaction_type": "view", "timestamp": "2026-01-01"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_possible(), reason=WHY_NOT),
]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as made:
        yield made


def start_on(machine: Machine, folder: Path, **settings: str) -> Server:
    address = f"{machine.address}:0"
    return start_server(folder / "data", machine.command(*SERVER), HEADRACE_GRPC_ADDRESS=address, **settings)


def test_a_node_that_joins_on_another_host_gets_no_work_where_tables_lie_in_a_folder(
    network: Network, tmp_path: Path
) -> None:
    host, other = network.add(), network.add()
    with Nodes(host) as nodes:
        nodes.add(1, host)
        server = start_on(host, tmp_path, **nodes.settings)
        nodes.add(1, other)
        said = "1 of the cluster's nodes are on other hosts and get no work: tables lie in HEADRACE_DATA_DIR"
        eventually(lambda: any(said in str(line.get("event")) for line in server.log), 60)
        with Client(server.address) as client:
            assert client.health().workers_wanted == 1
            client.ingest_interactions("acme", [ROW | {"item_id": "i"}])
            assert client.read_table("acme", "interactions").num_rows == 1
        assert server.stop() == 0
