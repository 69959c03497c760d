"""What is built or fetched once and kept: `${XDG_CACHE_HOME:-~/.cache}/headrace/brokers/`."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Where built and fetched things are kept; need not exist."""
    # The XDG specification: a relative path is to be ignored.
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "headrace" / "brokers"


def cached(name: str, make: Callable[[Path], Path]) -> Path:
    """Returns the file or folder `name` of the cache, made first if it is not there.

    `make` gets an empty scratch folder and returns the path in it of what it made. That gets its name in one
    rename: a build that dies leaves nothing half done. Of several builders at once one builds, others wait.
    """
    place = cache_folder() / name
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.parent / f".{name}.lock"):
        if not place.exists():
            scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place.parent))
            try:
                make(scratch).rename(place)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return place


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the exclusive lock of a folder, or of a file, made if need be; waits for it without limit."""
    # Network file systems lock files only if they are open for writing; folders cannot be.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
