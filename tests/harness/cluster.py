"""A Ray cluster of one node for all servers of a test run: a start on it takes a third of the time.

Run as a program, it is that cluster: it prints the address and lasts until its standard input ends.
"""

import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

CPUS = 64
"""More than there are: they only say how many workers may exist, and idle ones take nothing."""

OBJECT_STORE_BYTES = 1 << 30


class Cluster:
    """A running cluster.

    Args:
        environment: What its processes, workers too, have in theirs besides.
    """

    def __init__(self, **environment: str) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            env={**os.environ, **token, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        address = self._process.stdout.readline().strip()
        assert address, f"Ray did not start: exit status {self._process.wait()}"
        # It listens on loopback alone. Ray would look for it at the host's own address.
        local = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        self.settings = {"RAY_ADDRESS": address, "HEADRACE_WORKERS": "2", **local, **token}

    def processes(self, name: str) -> list[psutil.Process]:
        """Its processes of a name."""
        family = psutil.Process(self._process.pid).children(recursive=True)
        return [process for process in family if process.name() == name]

    def at_work(self, stage: str) -> list[psutil.Process]:
        """Its workers that run a stage at this moment: Ray puts that into their titles."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(f"ray::{stage} "):
                    found.append(process)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def main() -> None:
    """Is the cluster."""
    from headrace_compute.workers.cluster import ray, start_local

    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        start_local(CPUS, OBJECT_STORE_BYTES, Path(folder))
        sys.stdout.write(f"{ray.get_runtime_context().gcs_address}\n")
        sys.stdout.flush()
        sys.stdin.read()
        ray.shutdown()


if __name__ == "__main__":
    main()
