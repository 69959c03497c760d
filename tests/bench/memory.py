"""Peak memory of a server process and of everything it started, sampled while it works."""

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

INTERVAL_SECONDS = 0.2


class Watch:
    """Samples until left. The server's own memory is RssAnon + RssFile: without Ray's shared store."""

    def __init__(self, pid: int) -> None:
        self._server = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.own_bytes = 0
        self.all_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __str__(self) -> str:
        return f"server {self.own_bytes >> 20} MiB, all {self.all_bytes >> 20} MiB PSS"

    def _sample(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            # Processes come and go while they are being read.
            with suppress(psutil.Error, OSError):
                self.own_bytes = max(self.own_bytes, own_bytes(self._server.pid))
                family = [self._server, *self._server.children(recursive=True)]
                self.all_bytes = max(self.all_bytes, sum(map(_pss_bytes, family)))


def own_bytes(pid: int) -> int:
    """RssAnon + RssFile of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssFile"))


def _pss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
