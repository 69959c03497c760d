"""`headrace-server`: reads the settings, wires the parts, serves until told to stop.

The order matters. First comes what says how the start goes: logs, the watch over signals and deadlines, and
the HTTP port. Ray starts on the main thread before gRPC, because it forks and because its processes end with
the thread that started them.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog

from headrace_compute.environment import forget_secrets
from headrace_compute.errors import HeadraceError, StoreUnavailableError
from headrace_compute.heap import bound_heap, release_code
from headrace_compute.objects.store import open_store
from headrace_compute.workers.cluster import Cluster, ClusterError, set_ray_environment
from headrace_compute.workers.joining import check_cluster
from headrace_compute.workers.pool import Pool
from headrace_server import __version__, metrics
from headrace_server.http import HttpPort
from headrace_server.logs import configure_logs
from headrace_server.settings import Settings, SettingsError, read_settings
from headrace_server.startup import STOP_SIGNALS, StartError, Startup, end, tell_failure

SETTINGS = "Settings are environment variables, HEADRACE_DATA_DIR and others; README.md lists them."

LEAVE_SECONDS = 10.0
"""How long leaving Ray may take."""

_log = structlog.get_logger(__name__)


def main() -> None:
    """Runs the server; exits 0 when stopped by a signal, 2 when it cannot start, 1 when it fails."""
    parser = argparse.ArgumentParser(
        "headrace-server", description="The server of Headrace.", epilog=SETTINGS
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.parse_args()
    try:
        settings = read_settings()
    except SettingsError as error:
        for fault in error.faults:
            print(f"headrace-server: {fault}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    # Who needs a secret is told it. Ray finds its own in the environment, in which it starts its processes.
    forget_secrets(keep="RAY_")
    set_ray_environment(settings.ray_environment())
    configure_logs(settings.log_level, settings.service_name)
    startup = Startup(settings.service_name, settings.version, settings.start_seconds)
    startup.watch()
    # Tables, logs and spilled blocks are for nobody else's eyes; relay and workers inherit this.
    os.umask(0o077)
    bound_heap()
    try:
        http = _http_port(settings, startup)
        with contextlib.nullcontext() if settings.s3_endpoint else _data_dir(settings.data_dir):
            cluster = _prepare(settings, startup)
            status = _run(settings, cluster, startup, http)
    except (StartError, ClusterError) as error:
        tell_failure(str(error))
        end(2)
    # The folder is free by now: a restart need not wait for what follows, which may take for ever.
    leaving = threading.Timer(LEAVE_SECONDS, end, (status,))
    leaving.daemon = True
    leaving.start()
    cluster.leave()
    end(status)


def _http_port(settings: Settings, startup: Startup) -> HttpPort:
    try:
        return HttpPort(settings.http_address, startup.health)
    except OSError as error:
        raise StartError(
            f"HEADRACE_HTTP_ADDRESS {settings.http_address!r} cannot be bound: {error.strerror}; is another "
            "server there?"
        ) from error


def _prepare(settings: Settings, startup: Startup) -> Cluster:
    """Makes the store ready and starts Ray, or says which setting to look at."""
    if settings.database_url:
        _log.warning("DATABASE_URL is set but not used: state lives in the object store")
    where = settings.s3_endpoint or str(settings.data_dir)
    with startup.step(f"the store at {where}", "Is it there, and does it answer?"):
        _prepare_store(settings)
    cpus = settings.workers or os.cpu_count() or 1
    address = settings.ray_address
    _log.info("starting Ray", address=address or "local", cpus=cpus)
    with startup.step(
        f"the Ray cluster at {address}" if address else "a Ray of its own to start",
        "Is the machine short of memory, or too busy? HEADRACE_START_SECONDS gives it longer.",
    ):
        here = check_cluster(address, store_is_shared=bool(settings.s3_endpoint)) if address else ""
        try:
            return Cluster(address, cpus, here)
        except Exception as error:  # Ray raises bare ones when its processes take too long.
            raise StartError(f"Ray does not start: {error}.") from error


def _prepare_store(settings: Settings) -> None:
    try:
        open_store(settings.store()).prepare()
    except StoreUnavailableError as error:
        hint = " Is the store running, and S3_ENDPOINT right?" if settings.s3_endpoint else ""
        raise StartError(f"{error.message}{hint}") from error
    except HeadraceError as error:
        hint = " (S3_ACCESS_KEY, S3_SECRET_KEY, S3_BUCKET_*)" if settings.s3_endpoint else ""
        raise StartError(f"{error.message}{hint}") from error


def _run(settings: Settings, cluster: Cluster, startup: Startup, http: HttpPort) -> int:
    # A server that starts again finds the actors of the one before still named for a while.
    owner = f"{settings.service_name}-{socket.gethostname()}-{secrets.token_hex(2)}"
    with startup.step("Ray to take orders for workers", "Is the cluster's head still there?"):
        pool = Pool(
            settings.store(),
            settings.workers,
            settings.worker_cpus,
            max_workers=settings.max_workers,
            is_shared=bool(settings.ray_address),
            waited=metrics.STAGE_WAIT_SECONDS.observe,
            owner=owner,
        )
        # Small ingests take milliseconds; a block takes a tenth of a second and comes with others.
        # On a cluster that was joined there are two, on two nodes: the loss of one must not stop small calls.
        small_pool = Pool(
            settings.store(),
            0 if settings.ray_address else 1,
            cpus=0,
            max_workers=2,
            owner=owner,
            kind="small",
            niceness=0,
        )
    from headrace_server.serve import serve

    release_code("libllvmlite")
    return asyncio.run(serve(settings, cluster, pool, small_pool, startup, http, _stop_signals))


def _stop_signals(stop: asyncio.Event) -> None:
    """Makes SIGTERM and SIGINT set the event."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)


@contextlib.contextmanager
def _data_dir(path: Path) -> Iterator[None]:
    """Makes the data folder and keeps a second server out of it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise StartError(f"HEADRACE_DATA_DIR {str(path)!r} cannot be used: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(
                f"HEADRACE_DATA_DIR {str(path)!r} is in use by another server; stop it or choose another."
            ) from None
        yield


if __name__ == "__main__":
    main()
