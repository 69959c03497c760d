"""The local event log: one append-only JSON-lines file a topic.

A line counts once its newline is on the disk. A torn last line, left by a crash
in the middle of an append, is cut when the log is opened; the relay then writes
that event again.
"""

import json
import os
from pathlib import Path


class EventLog:
    """Appends events to `{folder}/{topic}.jsonl`. Its methods block: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.jsonl"):
            _cut_torn_line(path)

    def append(self, topic: str, line: str) -> None:
        """Appends one event; it is on the disk when this returns."""
        path = self._folder / f"{topic}.jsonl"
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self._folder)

    def published(self) -> dict[tuple[str, str], int]:
        """Newest version published for each (tenant, table): where the relay goes on."""
        newest: dict[tuple[str, str], int] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                for line in file:
                    event = json.loads(line)
                    key = (event["tenantid"], event["data"]["table"])
                    newest[key] = max(newest.get(key, -1), event["data"]["version"])
        return newest


def _cut_torn_line(path: Path) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            step = min(end, 1 << 16)
            file.seek(end - step)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                end = end - step + newline + 1
                break
            end -= step
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
