"""The Ray cluster: joined, or started here for this server alone; and whether it is still there.

Ray is imported through this module, so that it finds the environment as we want it.
"""

import os
import platform
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil

from headrace_compute import __version__
from headrace_compute.private_folder import private_folder


def _set_defaults() -> None:
    # Ray sets these for its own gRPC when it is imported; the server's gRPC shares them.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_POLL_STRATEGY", "epoll1")
    # `uv run` would make Ray rebuild the environment for every worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # Of the results of a stage that fails one is awaited; Ray would log the error of each other one.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # What Ray's core writes, to its log files and at times to standard error of the server, is JSON as ours.
    os.environ.setdefault("RAY_BACKEND_LOG_JSON", "1")


_set_defaults()

import ray  # noqa: E402  (the environment above must be set first)
from ray import _raylet  # noqa: E402
from ray import exceptions as ray_errors  # noqa: E402
from ray._private import parameter, ray_constants, services, utils  # noqa: E402

__all__ = [
    "Cluster",
    "ClusterError",
    "NodeAddress",
    "address_here",
    "clear_sessions",
    "cpus_at",
    "free_cpus",
    "nodes",
    "ray",
    "ray_errors",
    "resources",
    "set_ray_environment",
    "start_local",
    "versions",
]

NodeAddress = tuple[str, int]
"""Host and port of a node's raylet."""

OBJECT_STORE_BYTES = 512 << 20
"""Room for blocks in flight and held results of a local Ray."""

WORKER_NICENESS = 8
"""How far processes of a local Ray stand back behind the server; most then do so further."""

STARTS = 3
"""How often a local Ray is started before that counts as failed. Ray gives its processes 30 s, and a
machine that has just booted, or is busy, may need more."""

LOOPBACK = "127."
"""What addresses begin with that each host has for itself."""

VITAL = ("gcs_server", "raylet")
"""Processes of a local Ray that do not come back, and without which nothing runs."""


class ClusterError(Exception):
    """The cluster cannot be what the server needs; the message says what to change."""


class Cluster:
    """A Ray cluster that this process is part of.

    Must be made on the main thread and before gRPC starts: Ray's processes die with the thread that
    started them.

    Args:
        address: The cluster to join; empty starts a local one.
        cpus: How many a local one has.
        here: The address of the node to join, on this host. Ray would take any whose processes it sees, and
            containers may see those of others.
    """

    def __init__(self, address: str, cpus: int, here: str = "") -> None:
        self.is_local = not address
        _keep_signals()
        self._vital: dict[str, psutil.Process] = {}
        if address:
            ray.init(
                address=address,
                namespace="headrace",
                log_to_driver=False,
                configure_logging=False,
                # Ray would turn an address of loopback into another one.
                _node_ip_address=None if here.startswith(LOOPBACK) else here,
            )
            return
        # Ray opens its folder to everybody, so it gets one inside a folder that nobody else enters.
        # Paths of Unix sockets are limited to 107 bytes: the names must stay short.
        folder = private_folder(f"headrace-ray-{os.getuid()}") / "ray"
        clear_sessions(folder)
        start_local(cpus, OBJECT_STORE_BYTES, folder)
        children = {each.name(): each for each in psutil.Process().children()}
        self._vital = {name: children[name] for name in VITAL}

    def lost(self) -> str:
        """Name of a process that a local Ray has lost; empty while it has them all. Never waits.

        A busy machine makes Ray slow to answer, for minutes if it must be; only the dead do not come back.
        Of a cluster that was joined nothing is known here.
        """
        return next((name for name, process in self._vital.items() if not _runs(process)), "")

    def answers(self) -> bool:
        """Whether Ray answers; blocks until it does, or knows that it cannot."""
        try:
            return bool(resources())
        except (ray_errors.RayError, ConnectionError, RuntimeError):
            return False

    def leave(self) -> None:
        """Ends a local Ray, or leaves the cluster. What is left of a broken one is killed."""
        if not self.lost():
            ray.shutdown()
            return
        for process in psutil.Process().children(recursive=True):
            process.kill()


def set_ray_environment(variables: Mapping[str, str]) -> None:
    """Sets what Ray is to find in the environment, and removes what is empty; before a Cluster is made."""
    for name, value in variables.items():
        # An empty mode would be one to Ray, in which its own cluster asks nobody for a token.
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    # Ray read it when it was imported.
    cast(Any, _raylet).Config.initialize("")


def start_local(cpus: int, object_store_bytes: int, folder: Path) -> None:
    """Starts a Ray of one node, which listens on loopback alone, and joins it.

    Args:
        cpus: How many it has.
        object_store_bytes: Room for objects in shared memory.
        folder: Where its sockets, logs and spilled objects lie; Ray makes it, with mode 0777.

    Raises:
        Exception: Ray has not started, several times; whatever it raises.
    """
    _be_small_and_local()
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=object_store_bytes,
                namespace="headrace",
                log_to_driver=False,
                configure_logging=False,
                _temp_dir=str(folder),
            )
            return
        except Exception:  # Ray raises bare ones when its processes take too long.
            ray.shutdown()
            if not left:
                raise


def clear_sessions(folder: Path) -> None:
    """Deletes what Rays whose starters are gone have left: logs, and blocks that were spilled to the disk."""
    for session in folder.glob("session_*_*"):
        # The name ends with the process id of who started it.
        pid = session.name.rpartition("_")[2]
        if pid.isdigit() and not session.is_symlink() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(session, ignore_errors=True)


def _be_small_and_local() -> None:
    """Makes Ray, in this process, start a node on 127.0.0.1, and of its processes those that are used.

    `ray.init` has no arguments for this: it replaces 127.0.0.1 by the host's own address, and starts
    autoscaler, log monitor and the dashboard's server: 1.3 s of CPU, 300 MiB, two ports for metrics. What is
    set here is private to Ray, and a test looks at what comes of it; Ray is pinned to one version.
    """
    private_parameter, private_services = cast(Any, parameter), cast(Any, services)
    # What RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 sets when Ray is imported, and what Ray does on those systems.
    cast(Any, ray_constants).ENABLE_RAY_CLUSTER = False
    made = private_parameter.RayParams
    private_parameter.RayParams = partial(made, no_monitor=True, include_log_monitor=False)
    # Its result where there is no dashboard: no address, and here no process.
    private_services.start_api_server = lambda *_, **__: ("", None)
    # The agent of each node answers on a port for metrics, to anybody, unless this is off.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    # By default all stand back equally; here the worker of small ingests does so less than others.
    os.environ.setdefault("RAY_worker_niceness", str(WORKER_NICENESS))


def nodes() -> dict[str, NodeAddress]:
    """Where the raylets of living nodes listen, by node id; blocks."""
    return {
        node["NodeID"]: (node["NodeManagerAddress"], node["NodeManagerPort"])
        for node in cast(Any, ray).nodes()
        if node["Alive"]
    }


def cpus_at(address: str) -> dict[str, float]:
    """The CPUs of each living node at an address, or of all nodes if it is empty, by node id; blocks."""
    return {
        node["NodeID"]: node["Resources"].get("CPU", 0.0)
        for node in cast(Any, ray).nodes()
        if node["Alive"] and address in ("", node["NodeManagerAddress"])
    }


def _keep_signals() -> None:
    """Leaves SIGTERM to this process. `ray.init` would make it an exit with status 15, once it has waited."""
    cast(Any, utils).set_sigterm_handler = lambda _: None


def resources() -> dict[str, float]:
    """What the cluster has, by name of the resource; blocks."""
    return dict(cast(Any, ray).cluster_resources())


def free_cpus() -> float:
    """Those of the cluster's CPUs that nobody has taken; blocks."""
    return float(cast(Any, ray).available_resources().get("CPU", 0))


def address_here() -> str:
    """That of the node on which this process runs, for people."""
    return str(cast(Any, ray).util.get_node_ip_address())


def versions() -> dict[str, str]:
    """Of what must be the same wherever workers are."""
    return {"Python": platform.python_version(), "Ray": ray.__version__, "headrace-compute": __version__}


def _runs(process: psutil.Process) -> bool:
    try:
        # A child that has ended stays a zombie: nobody here waits for Ray's processes.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
