"""What must hold before a Ray cluster is joined, asked in a tenth of a second.

`ray.init` waits a minute and more for addresses at which nothing answers and for nodes that are not there,
and then says that it failed to connect.
"""

import json
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import psutil

from headrace_compute.workers.cluster import LOOPBACK, ClusterError, ray_errors

PROBE_SECONDS = 2.0
"""How long the head may take to accept a connection, and then to greet as servers of gRPC do."""

ANSWER_SECONDS = 10.0
"""How long it may take to answer; it may be busy."""

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""A frame of no settings: its length in three bytes, type, flags, and stream. RFC 9113, 6.5."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
"""What clients of gRPC begin with."""

_JOIN = "run `ray start --address={} --num-cpus=0` on it first, which takes no work"


@dataclass
class _Answers:
    """What the head tells of its cluster: its versions, and addresses of living nodes by their ids."""

    metadata: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None


def check_cluster(address: str, *, store_is_shared: bool) -> str:
    """Finds out whether this process can join a cluster, and as part of which node.

    Args:
        address: host:port of its head, or `auto`.
        store_is_shared: Whether tables lie where every host finds them, and not in a folder of this one.

    Returns:
        The address of that node.

    Raises:
        ClusterError: It cannot, or must not; the message says what to change.
    """
    address = _resolved(address)
    _probe(address)
    answers = _asked(address)
    if answers.error is not None:
        raise ClusterError(_explained(address, answers.error)) from answers.error
    _check_versions(address, answers.metadata)
    here, others = divided(answers.nodes, set(_services().find_node_ids()))
    if not here:
        raise ClusterError(
            f"No node of the Ray cluster at {address} runs on this host, and the server needs one: "
            f"{_JOIN.format(address)}."
        )
    if not store_is_shared and others:
        raise ClusterError(
            f"RAY_ADDRESS leads to a cluster with nodes on other hosts ({', '.join(others)}), whose workers "
            "cannot write to HEADRACE_DATA_DIR on this one; set S3_ENDPOINT, S3_ACCESS_KEY and "
            "S3_SECRET_KEY, or leave RAY_ADDRESS empty."
        )
    return here[0]


def divided(nodes: dict[str, str], running: set[str]) -> tuple[list[str], list[str]]:
    """Addresses of the nodes that are on this host, and of the others.

    A node is on this host if its process runs here and its address is one of this host's: containers and
    network namespaces of one machine count as hosts of their own.

    Args:
        nodes: Addresses of the cluster's nodes, by id.
        running: Ids of nodes whose processes can be seen here.
    """
    own = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
    here = {node for node, ip in nodes.items() if node in running and (ip in own or ip.startswith(LOOPBACK))}
    return sorted(nodes[node] for node in here), sorted(nodes[node] for node in nodes.keys() - here)


def _services() -> Any:
    from ray._private import services

    return services


def _resolved(address: str) -> str:
    """host:port of the cluster's head, which `auto` finds on this host, as `ray.init` does."""
    from ray._private.authentication import authentication_token_setup as authentication

    if address == "auto":
        # As `ray.init` does, for a cluster of this user.
        cast(Any, authentication).maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        return str(_services().canonicalize_bootstrap_address(address))
    except ConnectionError:
        raise ClusterError(
            "RAY_ADDRESS=auto finds no Ray on this host; "
            f"{_JOIN.format('HEAD:6379')}, or leave RAY_ADDRESS empty for a Ray of the server's own."
        ) from None
    except (OSError, ValueError) as error:
        raise ClusterError(f"RAY_ADDRESS {address!r} leads nowhere: {error}.") from error


def _probe(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS)
    except OSError as error:
        raise ClusterError(
            f"No Ray answers at {address}, where RAY_ADDRESS leads ({error}); is the cluster's head running, "
            "and its port, 6379 unless changed, open to this host?"
        ) from error
    with connection:
        # Over TLS nobody greets before the handshake, which is Ray's affair.
        if os.environ.get("RAY_USE_TLS", "0") in ("", "0") and not _greets(connection):
            raise ClusterError(
                f"What listens at {address} is not the head of a Ray cluster; is RAY_ADDRESS right?"
            )


def _greets(connection: socket.socket) -> bool:
    """Whether what listens begins as every server of gRPC does: with its settings."""
    header = b""
    with suppress(OSError):
        connection.sendall(PREFACE)
        while len(header) < len(SETTINGS) and (more := connection.recv(len(SETTINGS) - len(header))):
            header += more
    return header[3:5] == SETTINGS[3:5]


def _asked(address: str) -> _Answers:
    answers = _Answers(error=TimeoutError())

    def ask() -> None:
        from ray import _raylet

        try:
            client = cast(Any, _raylet).GcsClient(address=address)
            answers.metadata = json.loads(client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster"))
            answers.nodes = {
                info.node_id.hex(): info.node_manager_address
                for info in client.get_all_node_info(timeout=ANSWER_SECONDS).values()
                if info.state == info.ALIVE
            }
            answers.error = None
        except Exception as error:  # Whatever it is, it is told.
            answers.error = error

    # What is no Ray keeps it for 40 s. A thread that is stuck there is left behind.
    asking = threading.Thread(target=ask, name="ray-question", daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answers


def _explained(address: str, error: Exception) -> str:
    if isinstance(error, ray_errors.AuthenticationError):
        if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
            return (
                f"The Ray cluster at {address} refuses this server's token; set RAY_AUTH_TOKEN to the "
                "cluster's, or RAY_AUTH_TOKEN_PATH to a file that holds it."
            )
        return (
            f"The Ray cluster at {address} asks for a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to "
            "the cluster's, or RAY_AUTH_TOKEN_PATH to a file that holds it."
        )
    if isinstance(error, TimeoutError | ray_errors.RpcError):
        return (
            f"What listens at {address} does not answer as the head of a Ray cluster within "
            f"{ANSWER_SECONDS:.0f} seconds; is RAY_ADDRESS right?"
        )
    return f"The Ray cluster at {address} cannot be asked: {error}."


def _check_versions(address: str, metadata: dict[str, Any]) -> None:
    from ray._private import utils

    try:
        cast(Any, utils).check_version_info(metadata, address)
    except RuntimeError as error:
        version, python = cast(Any, utils).compute_version_info()
        raise ClusterError(
            f"The Ray cluster at {address} runs Ray {metadata['ray_version']} on Python "
            f"{metadata['python_version']}, this server Ray {version} on Python {python}; they must be the "
            "same: install what the cluster has, or start it again with what is here."
        ) from error
