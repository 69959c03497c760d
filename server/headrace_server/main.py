"""`headrace-server`: reads the settings, wires the parts, serves until told to stop.

The order matters. Ray starts on the main thread before gRPC, because it forks
and because its processes end with the thread that started them; our signal
handlers come after it, because it replaces SIGTERM's.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
from pydantic import ValidationError

from headrace_compute.errors import HeadraceError, StoreUnavailableError
from headrace_compute.heap import bound_heap, release_code
from headrace_compute.pool import Pool, start_ray, stop_ray
from headrace_compute.storage.store import open_store
from headrace_server.logs import configure_logs
from headrace_server.settings import Settings

_log = structlog.get_logger(__name__)


def main() -> None:
    """Runs the server; exits 0 when stopped by a signal, 2 when it cannot start, 1 when it fails."""
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors():
            name = ".".join(str(part) for part in fault["loc"])
            print(f"headrace-server: setting {name}: {fault['msg']}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    configure_logs(settings.log_level, settings.service_name)
    bound_heap()
    try:
        with contextlib.nullcontext() if settings.s3_endpoint else _data_dir(settings.data_dir):
            sys.exit(_run(settings))
    except StartError as error:
        _log.error(str(error))
        print(f"headrace-server: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


class StartError(Exception):
    """The server cannot start; the message says what to change."""


def _run(settings: Settings) -> int:
    if settings.database_url:
        _log.warning("DATABASE_URL is set but not used: state lives in the object store")
    _prepare(settings)
    cpus = settings.workers or os.cpu_count() or 1
    _log.info("starting Ray", address=settings.ray_address or "local", cpus=cpus)
    try:
        start_ray(settings.ray_address, cpus)
    except Exception as error:  # Ray raises bare ones when its processes take too long.
        raise StartError(f"Ray does not start: {error}") from error
    try:
        pool = Pool(settings.store(), settings.workers)
        # Small ingests take milliseconds; a block takes a tenth of a second and comes with others.
        small_pool = Pool(settings.store(), 1, cpus=0)
        from headrace_server.serve import serve

        release_code("libllvmlite")
        return asyncio.run(serve(settings, pool, small_pool, _stop_signals))
    finally:
        stop_ray()


def _prepare(settings: Settings) -> None:
    """Makes the store ready, or says which setting to look at."""
    try:
        open_store(settings.store()).prepare()
    except StoreUnavailableError as error:
        hint = " Is the store running, and S3_ENDPOINT right?" if settings.s3_endpoint else ""
        raise StartError(f"{error.message}{hint}") from error
    except HeadraceError as error:
        hint = " (S3_ACCESS_KEY, S3_SECRET_KEY, S3_BUCKET_*)" if settings.s3_endpoint else ""
        raise StartError(f"{error.message}{hint}") from error


def _stop_signals(stop: asyncio.Event) -> None:
    """Makes SIGTERM and SIGINT set the event."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


@contextlib.contextmanager
def _data_dir(path: Path) -> Iterator[None]:
    """Makes the data folder and keeps a second server out of it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise StartError(f"HEADRACE_DATA_DIR {str(path)!r} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(
                f"HEADRACE_DATA_DIR {str(path)!r} is in use by another server; stop it or choose another"
            ) from None
        yield


if __name__ == "__main__":
    main()
