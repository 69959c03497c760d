"""Secrets in the environment of a process: forgotten, so that nothing that takes it over finds them."""

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path

_SECRET = re.compile(
    r"SECRET|PASSWORD|PASSWD|CREDENTIAL|TOKEN|SASL|(?:ACCESS|API|PRIVATE)_?KEY|DATABASE_URL", re.IGNORECASE
)

_ENV_START, _ENV_END = 49, 50
"""Places in /proc/self/stat, proc(5): from where to where the kernel shows the environment."""


def forget_secrets(keep: str = "") -> None:
    """Removes variables with telling names, and overwrites what the process was started with.

    /proc shows the latter for as long as the process lives, whatever the process unsets.

    Args:
        keep: Prefix of names that are kept; empty keeps none.
    """
    names = [name for name in os.environ if _SECRET.search(name) and not (keep and name.startswith(keep))]
    encoded = set(map(os.fsencode, names))
    for address, shown, value in _started_with():
        if shown in encoded:
            ctypes.memset(address + len(shown) + 1, 0, len(value))
    for name in names:
        del os.environ[name]


def _started_with() -> Iterator[tuple[int, bytes, bytes]]:
    """Address, name and value of the variables that the process was started with."""
    # The name of the program, in parentheses, may hold spaces.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    address, end = int(fields[_ENV_START - 2]), int(fields[_ENV_END - 2])
    for entry in ctypes.string_at(address, end - address).split(b"\0"):
        name, _, value = entry.partition(b"=")
        yield address, name, value
        address += len(entry) + 1
