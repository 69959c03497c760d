"""What a test sees of a server at work: files that come and go, and what comes to hold."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """The files below a folder; those that come or go meanwhile may be missed, where `rglob` would raise."""
    return [Path(where, name) for where, _, names in os.walk(folder) for name in names]


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for a condition.

    Raises:
        AssertionError: It did not come to hold in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.1)


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """As `eventually`, for tests that run in an event loop themselves."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.01)
