"""Servers that must not start: real processes and exit statuses, forked from one that has imported it all."""

import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["headrace_server.main"])

END_SECONDS = 60.0


@dataclass(frozen=True)
class Refused:
    """How a server that was to start ended."""

    status: int
    stderr: str


def refused(folder: Path, **settings: str) -> Refused:
    """Starts a server with nothing but these settings in `folder` and waits for its end."""
    said = folder / "stderr"
    environment = {"HEADRACE_GRPC_ADDRESS": "127.0.0.1:0", "HEADRACE_HTTP_ADDRESS": "127.0.0.1:0", **settings}
    environment.setdefault("HEADRACE_DATA_DIR", str(folder / "data"))
    process = _context.Process(target=_serve, args=(folder, environment, said))
    process.start()
    process.join(END_SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the server does not end: {said.read_text()}")
    return Refused(process.exitcode, said.read_text())


def _serve(folder: Path, environment: dict[str, str], said: Path) -> None:
    prefixes = ("HEADRACE_", "RAY_", "S3_", "KAFKA_")
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["headrace-server"]  # They are pytest's in a fork of it.
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    from headrace_server.main import main

    main()
