"""A Ray cluster of several nodes on this machine, which come and go as a test wants.

Run as a program, it is that cluster: it takes a command a line, and lasts until its standard input ends.
Nodes are processes on this host's own addresses, or each on a machine of a `network`.
"""

import ctypes
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # Run as a program, this is no part of the package.
    from harness.network import Machine

OBJECT_STORE_BYTES = 256 << 20
HEAD = "head"
STARTS = 3
CLONE_NEWNET = 0x40000000


class Nodes:
    """A cluster whose head has no CPU; nodes are added and killed.

    Args:
        head: The machine on which the head runs; this host's own addresses without.

    Attributes:
        settings: Of servers on it.
    """

    def __init__(self, head: "Machine | None" = None) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        program = [sys.executable, "-W", "ignore", __file__]
        self._process = subprocess.Popen(
            head.command(*program) if head else program,
            env={**os.environ, **token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.settings = {"RAY_ADDRESS": self._answer(), **token}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    @property
    def pid(self) -> int:
        """Of the process below which all nodes are."""
        return self._process.pid

    def add(self, cpus: int, machine: "Machine | None" = None) -> str:
        """Starts a node, on a machine if one is given; returns its name."""
        return self._ask(["add", cpus, *([machine.name, machine.address] if machine else [])])

    def kill(self, name: str) -> None:
        """Ends all processes of a node, as a power cut would."""
        self._ask(["kill", name])

    def kill_head(self) -> None:
        """Ends all processes of the head, and with it the cluster."""
        self._ask(["kill", HEAD])

    def _ask(self, command: list[Any]) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        assert answer, f"the cluster has ended: exit status {self._process.wait()}"
        return answer


def _patiently(start: Callable[[], Any]) -> Any:
    """Starts a node. Ray gives its processes 30 s, which a busy machine may not."""
    for left in reversed(range(STARTS)):
        try:
            return start()
        except Exception:  # Ray raises bare ones.
            if not left:
                raise
    return None


@contextmanager
def _on(namespace: str = "", address: str = "") -> Iterator[dict[str, str]]:
    """Has what this thread starts run in a network namespace; gives the arguments that tell Ray of it."""
    if not namespace:
        yield {}
        return
    with open("/proc/thread-self/ns/net") as own:
        with open(f"/run/netns/{namespace}") as other:
            _enter(other.fileno())
        try:
            yield {"node_ip_address": address}
        finally:
            _enter(own.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def main() -> None:
    """Is the cluster."""
    folder = tempfile.mkdtemp(prefix="r-")
    # Sockets lie below it, and the note of where the cluster is, which is for nobody else.
    os.environ["RAY_TMPDIR"] = folder
    Path(folder, "ray").mkdir()
    from ray.cluster_utils import Cluster

    def tell(answer: str) -> None:
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()

    common = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster: Any = Cluster()
    _patiently(lambda: cluster.add_node(num_cpus=0, **common))
    tell(cluster.address)
    nodes: dict[str, Any] = {HEAD: cluster.head_node}
    for line in sys.stdin:
        match json.loads(line):
            case ["add", cpus, *machine]:
                name = f"node-{len(nodes)}"
                with _on(*machine) as place:
                    add = partial(cluster.add_node, num_cpus=cpus, **place, **common)
                    nodes[name] = _patiently(add)
                tell(name)
            case ["kill", name]:
                nodes[name].kill_all_processes(check_alive=False, allow_graceful=False)
                tell("killed")
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
