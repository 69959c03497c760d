"""A file system with little room, and filling it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(folder: Path, mebibytes: int = 64) -> Iterator[Path]:
    """A file system of so many MiB in a new folder; skips the test where nobody may mount one."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder.mkdir()
    size = f"size={mebibytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "headrace-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """Takes all room of a file system but so much; returns the file to delete."""
    filler, zeros = disk / "filler", bytes(4096)
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(zeros)
        except OSError:
            file.truncate(max(0, file.tell() - leave_bytes))
    return filler
