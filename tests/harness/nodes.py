"""A Ray cluster of several nodes on this machine, which come and go as a test wants.

Run as a program, it is that cluster: it takes a command a line, and lasts until its standard input ends.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

OBJECT_STORE_BYTES = 256 << 20
HEAD = "head"


class Nodes:
    """A cluster whose head has no CPU; nodes are added and killed.

    Attributes:
        settings: Of servers on it.
    """

    def __init__(self) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
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

    def add(self, cpus: int) -> str:
        """Starts a node; returns its name."""
        return self._ask(["add", cpus])

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
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
    tell(cluster.address)
    nodes: dict[str, Any] = {HEAD: cluster.head_node}
    for line in sys.stdin:
        match json.loads(line):
            case ["add", cpus]:
                name = f"node-{len(nodes)}"
                nodes[name] = cluster.add_node(num_cpus=cpus, **common)
                tell(name)
            case ["kill", name]:
                nodes[name].kill_all_processes(check_alive=False, allow_graceful=False)
                tell("killed")
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
