"""The start of a server: bounded, explained, and stopped at any moment; on clusters that cannot have it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from harness.cluster import Cluster
from harness.refused import refused
from harness.server import SERVER, Server, environment
from harness.watch import eventually

END_SECONDS = 60

TAKE_ALL = """
import sys, ray
ray.init(address="auto", log_to_driver=False, configure_logging=False)
@ray.remote
class Taker: pass
taker = Taker.options(num_cpus=ray.available_resources()["CPU"]).remote()
ray.get(taker.__ray_ready__.remote())
print("taken", flush=True)
sys.stdin.read()
"""

OTHER_PACKAGES = """
import importlib.metadata as metadata
found = metadata.version
metadata.version = lambda name: "0.0.1" if name == "headrace-compute" else found(name)
"""
"""The sitecustomize of nodes on which another version of ours is installed."""

NODE = """
import os, subprocess, sys
from ray._private import services
from ray.scripts.scripts import cli
# It would replace loopback by the host's own address, where the cluster does not listen.
services.resolve_ip_for_localhost = lambda host: host
node = ["--address", os.environ["RAY_ADDRESS"], "--node-ip-address", "127.0.0.1", "--num-cpus", "0"]
cli(["start", *node], standalone_mode=False)
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Joins a cluster as `ray start` does, then becomes a server."""

OLD_RAY = """
import json
from ray._raylet import GcsClient
import os
told = json.dumps({"ray_version": "2.9.0", "python_version": "3.9.1"}).encode()
GcsClient(address=os.environ["RAY_ADDRESS"]).internal_kv_put(b"CLUSTER_METADATA", told, True, b"cluster")
"""

OTHER_HOST = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""Runs a command where it sees no process but its own, as on another host."""


class Starting:
    """A server that has not come to serve."""

    def __init__(self, folder: Path, *before: str, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._http = f"127.0.0.1:{free.getsockname()[1]}"
        self.process = subprocess.Popen(
            [*before, *SERVER],
            env=environment(folder / "data", HEADRACE_HTTP_ADDRESS=self._http, **settings),
            cwd=folder,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def page(self, name: str) -> tuple[int, dict[str, str]]:
        """Status and body of a page; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://{self._http}/{name}", timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    def awaited(self, words: str) -> None:
        """Waits until /health says that it waits for something, with these words."""
        eventually(lambda: words in self.page("health")[1].get("waiting_for", ""), END_SECONDS)

    def ended(self) -> tuple[int, str]:
        """Its exit status, and what it said."""
        _, said = self.process.communicate(timeout=END_SECONDS)
        return self.process.returncode, said

    def stopped(self, number: int) -> tuple[int, str]:
        """The same, after a signal."""
        self.process.send_signal(number)
        return self.ended()


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Callable[..., Starting]]:
    """Starts a server of a test's own and waits for nothing."""
    started: list[Starting] = []

    def start(*before: str, **settings: str) -> Starting:
        started.append(Starting(tmp_path, *before, **settings))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def _without_free_cpus(cluster: Cluster) -> Iterator[None]:
    taker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TAKE_ALL],
        env={**os.environ, **cluster.settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert taker.stdin is not None
    assert taker.stdout is not None
    assert taker.stdout.readline() == "taken\n"
    try:
        yield
    finally:
        taker.stdin.close()
        taker.wait(END_SECONDS)


def _other_host() -> tuple[str, ...]:
    if shutil.which("unshare") is None or subprocess.run([*OTHER_HOST, "true"], check=False).returncode:
        pytest.skip("this user may not make a PID namespace, which is another host to Ray")
    return OTHER_HOST


def test_a_start_whose_workers_find_no_room_is_alive_says_what_it_waits_for_and_ends_by_a_signal(
    starting: Callable[..., Starting],
) -> None:
    server = starting(HEADRACE_WORKERS="2", HEADRACE_WORKER_CPUS="64")
    server.awaited("workers to be ready")
    status, health = server.page("health")
    assert (status, health["status"], health["service"]) == (503, "starting", "data-pipeline")
    assert server.page("live")[0] == 200
    status, said = server.stopped(signal.SIGTERM)
    assert status == 0
    assert '"waiting_for": "workers to be ready"' in said


@pytest.mark.slow
def test_a_server_on_a_cluster_without_free_cpus_serves_with_one_worker_and_says_why(
    cluster: Cluster, own_server: Callable[..., Server]
) -> None:
    with _without_free_cpus(cluster):
        told = own_server().logged(event="workers are missing")
    assert told["cause"] == (
        "1 of 2 workers ready: the cluster has 0 of 64 CPUs free, and a worker takes 1; lower "
        "HEADRACE_WORKERS or HEADRACE_WORKER_CPUS, or add a node."
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_while_ray_starts_ends_the_server_and_its_ray(
    starting: Callable[..., Starting], number: int
) -> None:
    server = starting()
    server.awaited("a Ray of its own to start")
    process = psutil.Process(server.process.pid)
    eventually(lambda: bool(process.children()))
    children = process.children()
    status, said = server.stopped(number)
    assert status == 0
    assert '"waiting_for": "a Ray of its own to start"' in said
    assert psutil.wait_procs(children, END_SECONDS)[1] == []


def test_a_store_that_says_nothing_is_waited_for_no_longer_than_is_set(tmp_path: Path, silent: str) -> None:
    store = {"S3_ENDPOINT": f"http://{silent}", "S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret"}
    ended = refused(tmp_path, HEADRACE_START_SECONDS="1", **store)
    assert ended.status == 2
    assert f"Waited 1 s for the store at http://{silent}, in vain." in ended.stderr


def test_an_http_address_that_is_taken_is_told_at_once(tmp_path: Path, silent: str) -> None:
    ended = refused(tmp_path, HEADRACE_HTTP_ADDRESS=silent)
    assert ended.status == 2
    assert f"HEADRACE_HTTP_ADDRESS '{silent}' cannot be bound: Address already in use" in ended.stderr


def test_an_address_where_nothing_listens_is_told(tmp_path: Path) -> None:
    ended = refused(tmp_path, RAY_ADDRESS="127.0.0.1:1")
    assert ended.status == 2
    assert "No Ray answers at " in ended.stderr
    assert "is the cluster's head running" in ended.stderr


def test_an_address_where_something_else_listens_is_told(tmp_path: Path) -> None:
    # Ray would turn 127.0.0.1 into another address of this host.
    with socket.create_server(("127.0.0.2", 0)) as silent:
        address = f"127.0.0.2:{silent.getsockname()[1]}"
        ended = refused(tmp_path, RAY_ADDRESS=address)
    assert ended.status == 2
    assert (
        f"What listens at {address} is not the head of a Ray cluster; is RAY_ADDRESS right?" in ended.stderr
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 32}, "refuses this server's token; set RAY_AUTH_TOKEN to the cluster's"),
        pytest.param(
            {"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": ""},
            "asks for a token; set RAY_AUTH_MODE=token",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_cluster_whose_token_is_another_says_so(
    cluster: Cluster, starting: Callable[..., Starting], changed: dict[str, str], says: str
) -> None:
    status, said = starting(**{**cluster.settings, **changed}).ended()
    assert status == 2
    assert says in said


def test_a_server_is_told_that_no_node_of_the_cluster_is_on_its_host(
    cluster: Cluster, starting: Callable[..., Starting]
) -> None:
    status, said = starting(*_other_host(), **cluster.settings).ended()
    assert status == 2
    address = cluster.settings["RAY_ADDRESS"]
    assert f"No node of the Ray cluster at {address} runs on this host" in said
    assert f"run `ray start --address={address} --num-cpus=0` on it first" in said


@pytest.mark.slow
def test_a_local_folder_is_refused_to_a_cluster_with_nodes_on_other_hosts(
    starting: Callable[..., Starting],
) -> None:
    # Its own cluster: for half a minute after this, Ray goes on to count the node that was killed.
    with Cluster() as cluster:
        settings = {**cluster.settings, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
        status, said = starting(*_other_host(), sys.executable, "-c", NODE, **settings).ended()
    assert status == 2, said
    assert "RAY_ADDRESS leads to a cluster with nodes on other hosts (127.0.0.1)" in said
    assert "set S3_ENDPOINT" in said


@pytest.mark.slow
def test_a_cluster_of_other_versions_is_refused(tmp_path: Path, starting: Callable[..., Starting]) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(OTHER_PACKAGES)
    with Cluster(PYTHONPATH=str(tmp_path / "site")) as other:
        status, said = starting(**other.settings).ended()
        assert status == 2
        assert "The Ray node 127.0.0.1 has headrace-compute 0.0.1, this server headrace-compute " in said

        subprocess.run([sys.executable, "-c", OLD_RAY], env={**os.environ, **other.settings}, check=True)
        status, said = starting(**other.settings).ended()
        assert status == 2
        assert "runs Ray 2.9.0 on Python 3.9.1, this server Ray " in said
