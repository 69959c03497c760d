"""The programs a broker is made with: found, and run to their end."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from brokers.errors import BrokerUnavailableError

TOOL_SECONDS = 1800
REASON_LINES = 5

# Lines of a Java stack trace, which would crowd out the reason.
JAVA_FRAME = re.compile(r"\s+(at |\.\.\. \d+ more)")


def find_tool(name: str, remedy: str) -> str:
    """Returns the path of a program on PATH; raises BrokerUnavailableError if there is none."""
    found = shutil.which(name)
    if found is None:
        raise BrokerUnavailableError(f"the program `{name}` is not on PATH", remedy)
    return os.path.abspath(found)


def run_tool(
    command: Sequence[str], folder: Path, remedy: str, environment: Mapping[str, str] | None = None
) -> str:
    """Runs a program in `folder` to its end and returns what it printed, errors included.

    Raises BrokerUnavailableError, with the last lines printed, if it fails or takes longer than half an hour.
    """
    what = " ".join([Path(command[0]).name, *command[1:2]])
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TOOL_SECONDS,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BrokerUnavailableError(f"`{what}` took longer than {TOOL_SECONDS} s", remedy) from None
    if done.returncode != 0:
        reason = last_lines(done.stdout, REASON_LINES)
        raise BrokerUnavailableError(f"`{what}` failed with {done.returncode}:\n{reason}", remedy)
    return done.stdout


def last_lines(text: str, count: int) -> str:
    """The last `count` lines that say something, indented for a message."""
    lines = [line for line in text.splitlines() if line.strip() and not JAVA_FRAME.match(line)]
    return "\n".join(f"    {line}" for line in lines[-count:]) or "    (nothing was printed)"
