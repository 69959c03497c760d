"""Runs the server: gRPC and HTTP ports, background tasks, orderly shutdown."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from headrace.v1 import pipeline_service_pb2, pipeline_service_pb2_grpc
from headrace_compute.errors import ComputeUnavailableError
from headrace_compute.heap import give_back
from headrace_compute.workers.cluster import Cluster
from headrace_compute.workers.pool import Pool
from headrace_server import __version__, dead, metrics
from headrace_server.events.relay_process import RelayProcess
from headrace_server.health import HealthMonitor, Probe
from headrace_server.http import HttpPort
from headrace_server.ingest.service import SmallIngests
from headrace_server.maintenance import Maintenance
from headrace_server.pipeline import PipelineServicer, health_json
from headrace_server.rpc.bounds import MAX_MESSAGE_BYTES
from headrace_server.rpc.calls import CallInterceptor
from headrace_server.rpc.reflection import add_reflection
from headrace_server.rpc.shutdown import draining
from headrace_server.rpc.unread import Unread
from headrace_server.runs.service import Runs
from headrace_server.services import Services
from headrace_server.settings import Settings
from headrace_server.startup import Startup
from headrace_server.uploads.recovery import recover
from headrace_server.uploads.sweeper import Sweeper
from headrace_server.validation import sweep_scratch

GRACE_SECONDS = 10.0
"""How long open uploads may take to come to their end once the server is told to stop."""

END_SECONDS = 5.0
"""How long calls under way may take after that."""

LOST_END_SECONDS = 1.0
"""The same when the workers are gone: whoever watches over the server is to start another soon."""

WORKERS_GONE = "The server has lost its workers and is about to end; call again in a moment."

THREADS = 32
"""For calls that block on the store: a slow one must not keep all others waiting."""

LOOKAHEAD_BYTES = 1 << 20
"""Bytes read ahead on a stream: enough while a block is cut, and fifty streams cost 50 MiB."""

OPTIONS = (
    # Without this a second server on the port starts silently and takes half the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # What a stream may send ahead of its reader. By default gRPC lets a fast line have 16 MiB and more.
    ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_concurrent_streams", 256),
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 600_000),
    # A peer that is gone without a word is noticed, and its streams end.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

SERVICE = pipeline_service_pb2.DESCRIPTOR.services_by_name["PipelineService"].full_name

_log = structlog.get_logger(__name__)


async def serve(
    settings: Settings,
    cluster: Cluster,
    pool: Pool,
    small_pool: Pool,
    startup: Startup,
    http: HttpPort,
    stop_signals: Callable[[asyncio.Event], None],
) -> int:
    """Serves until a stop signal or the loss of the workers; returns the exit status.

    Threads that are stuck in a call are left behind: no end waits for them.

    Args:
        cluster: Where the workers are.
        pool: Workers, whose kernels need not be compiled yet.
        small_pool: The same for small ingests, which bulk work must not keep waiting.
        startup: Hears what is waited for.
        http: Told how to answer /health once all is there.
        stop_signals: Installs handlers that set the event.

    Raises:
        ClusterError: The workers are not what they must be.
    """
    stop = asyncio.Event()
    stop_signals(stop)
    blocking = ThreadPoolExecutor(THREADS, "blocking")
    asyncio.get_running_loop().set_default_executor(blocking)
    config = settings.store()
    relay = RelayProcess(settings.relay_config())
    services = Services(
        settings=settings, config=config, pool=pool, relay=relay, maintenance=Maintenance(pool, __version__)
    )
    runs = Runs(services)
    try:
        ready = await _unless(stop, _make_ready(services, runs, small_pool, startup))
    except BaseException:
        _abandon(blocking)
        raise
    if not ready:
        _log.info("stopping", reason="signal", waiting_for=startup.health()["waiting_for"])
        await relay.stop()
        _abandon(blocking)
        _log.info("stopped")
        return 0
    small = SmallIngests(services, small_pool)
    monitor = HealthMonitor(config, cluster, relay.connected, pool.strength)
    probe = Probe(SERVICE)
    await probe.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    interceptor = CallInterceptor(services.shutdown, Unread(settings.send_seconds))
    server = aio.server(interceptors=[interceptor], options=OPTIONS)
    _register(server, PipelineServicer(services, small, runs, monitor), probe)
    try:
        port = server.add_insecure_port(settings.grpc_address)
    except RuntimeError:
        _log.error(
            "the gRPC address cannot be bound; is another server there?", address=settings.grpc_address
        )
        return 2
    await server.start()
    startup.over()
    http.health = lambda: health_json(services, monitor)
    background = [
        asyncio.create_task(monitor.watch(probe, SERVICE)),
        asyncio.create_task(Sweeper(services).run()),
        asyncio.create_task(dead.sweep_on(config)),
        asyncio.create_task(runs.keeper.watch()),
        asyncio.create_task(runs.forget()),
        asyncio.create_task(small.settle()),
        asyncio.create_task(services.maintenance.run()),
        asyncio.create_task(give_back()),
        asyncio.create_task(pool.follow()),
        asyncio.create_task(small_pool.follow()),
        asyncio.create_task(services.follow()),
    ]
    _log.info(
        "serving",
        grpc_port=port,
        http_port=http.port,
        workers=pool.size,
        ray=settings.ray_address or "its own",
        store=settings.s3_endpoint or config.root,
        events=settings.kafka_bootstrap_servers or f"{config.root}/events",
    )
    lost = asyncio.create_task(monitor.workers_lost())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
    failed = lost.done() and not stopped.done()
    _log.info("stopping", reason=lost.result() if failed else "signal")
    await probe.enter_graceful_shutdown()
    runs.keeper.leave()
    await (_give_up(services) if failed else _drain(services))
    await server.stop(LOST_END_SECONDS if failed else END_SECONDS)
    small.close()
    await services.settled(LOST_END_SECONDS if failed else END_SECONDS)
    await relay.stop()
    await _cancel(*background, lost, stopped)
    _abandon(blocking)
    _log.info("stopped")
    return 1 if failed else 0


async def _make_ready(services: Services, runs: Runs, small_pool: Pool, startup: Startup) -> None:
    """Starts the relay, warms the workers and mends what a crash left."""
    # A child process must be there before gRPC is.
    await services.relay.start()
    startup.waits_for("workers to be ready")
    await asyncio.gather(services.pool.open(startup.seconds), small_pool.open(startup.seconds))
    metrics.Workers(services.pool.strength)
    startup.waits_for("the relay")
    await services.relay.ready()
    startup.waits_for("what a crash left to be mended")
    await sweep_scratch(services.config)
    await dead.clear_dead(services.config)
    await recover(services)
    await runs.keeper.recover()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Does something unless it is told to stop; tells whether it has done it."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        await _cancel(working, stopped)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _abandon(executor: ThreadPoolExecutor) -> None:
    """Gives up the loop's executor. At its end asyncio waits for the threads of one that has none."""
    executor.shutdown(wait=False, cancel_futures=True)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


async def _give_up(services: Services) -> None:
    """Refuses new calls and ends those under way: without workers none of them can."""
    services.shutdown.begun.set()
    services.runs.close(lambda: ComputeUnavailableError(WORKERS_GONE))
    services.live.interrupt_all(lambda: ComputeUnavailableError(WORKERS_GONE))
    await services.live.ended(LOST_END_SECONDS)


async def _drain(services: Services) -> None:
    """Refuses new calls and runs that wait, and lets open uploads end by themselves before it ends them."""
    services.shutdown.begun.set()
    services.runs.close(draining)
    if not await services.live.ended(GRACE_SECONDS):
        services.live.interrupt_all(draining)
        await services.live.ended(END_SECONDS)


def _register(server: aio.Server, servicer: PipelineServicer, probe: Probe) -> None:
    pipeline_service_pb2_grpc.add_PipelineServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(probe, server)
    add_reflection(server, (SERVICE, health.SERVICE_NAME))
