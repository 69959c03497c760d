"""Which nodes of a cluster are on this host."""

import psutil

from headrace_compute.workers.joining import divided

OWN = next(each.address for each in psutil.net_if_addrs()["lo"])


def test_a_node_whose_process_and_address_are_here_is_here() -> None:
    assert divided({"a": OWN, "b": "127.0.0.7"}, {"a", "b"}) == ([OWN, "127.0.0.7"], [])


def test_nodes_of_other_hosts_containers_and_network_namespaces_are_elsewhere() -> None:
    host, container, namespace = "198.51.100.1", "127.0.0.1", "203.0.113.1"
    nodes = {"here": OWN, "host": host, "container": container, "namespace": namespace}
    assert divided(nodes, {"here", "namespace"}) == ([OWN], [container, host, namespace])
