"""The running server: gRPC and HTTP ports, background tasks, an orderly end."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from headrace.v1 import pipeline_service_pb2, pipeline_service_pb2_grpc
from headrace_compute.pool import Pool
from headrace_server.events.outbox import Outbox
from headrace_server.health import HealthMonitor
from headrace_server.http import HttpPort
from headrace_server.interceptors import CallInterceptor
from headrace_server.maintenance import Maintenance
from headrace_server.pipeline import PipelineServicer, health_json
from headrace_server.reflection_v1 import add_reflection_v1
from headrace_server.services import Services
from headrace_server.settings import Settings
from headrace_server.shutdown import draining
from headrace_server.uploads.ingest import SmallIngests
from headrace_server.uploads.recovery import recover
from headrace_server.uploads.sweeper import Sweeper

GRACE_SECONDS = 10.0
"""How long open uploads may take to come to their end once the server is told to stop."""

END_SECONDS = 5.0
"""How long calls under way may take after that."""

THREADS = 32
"""For calls that block on the store: a slow one must not keep all others waiting."""

MAX_MESSAGE_BYTES = 16 << 20

LOOKAHEAD_BYTES = 1 << 20
"""Of a stream. Enough to keep the pipe full while a block is cut, and fifty streams cost 50 MiB."""

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
    settings: Settings, pool: Pool, small_pool: Pool, stop_signals: Callable[[asyncio.Event], None]
) -> int:
    """Serves until a stop signal or the loss of the workers; returns the exit status.

    Args:
        pool: Workers, whose kernels need not be compiled yet.
        small_pool: The same for small ingests, which bulk work must not keep waiting.
        stop_signals: Installs handlers that set the event.
    """
    stop = asyncio.Event()
    stop_signals(stop)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "blocking"))
    config = settings.store()
    outbox = Outbox(settings.launch())
    # A child process must be there before gRPC is.
    await outbox.start()
    await asyncio.gather(pool.warm(), small_pool.warm())
    await outbox.ready()
    maintenance = Maintenance(pool, settings.version)
    services = Services(settings=settings, config=config, pool=pool, outbox=outbox, maintenance=maintenance)
    await recover(services)
    small = SmallIngests(services, small_pool)
    monitor = HealthMonitor(config, pool, outbox.connected)
    probe = HealthServicer()
    server = aio.server(interceptors=[CallInterceptor(services.shutdown)], options=OPTIONS)
    _register(server, PipelineServicer(services, small, monitor), probe)
    try:
        port = server.add_insecure_port(settings.grpc_address)
    except RuntimeError:
        _log.error(
            "the gRPC address cannot be bound; is another server there?", address=settings.grpc_address
        )
        return 2
    try:
        http = HttpPort(settings.http_address, lambda: health_json(services, monitor))
    except OSError as error:
        _log.error("the HTTP address cannot be bound", address=settings.http_address, cause=error.strerror)
        return 2
    await server.start()
    background = [
        asyncio.create_task(monitor.watch(probe, SERVICE)),
        asyncio.create_task(Sweeper(services).run()),
        asyncio.create_task(small.settle()),
        asyncio.create_task(maintenance.run()),
    ]
    _log.info("serving", grpc_port=port, http_port=http.port, workers=pool.size, data_dir=config.root)
    lost = asyncio.create_task(monitor.workers_lost())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
    failed = lost.done() and not stopped.done()
    _log.info("stopping", reason="the workers are gone" if failed else "signal")
    await probe.enter_graceful_shutdown()
    await _drain(services)
    await server.stop(END_SECONDS)
    await outbox.stop()
    for task in (*background, lost, stopped):
        task.cancel()
    await asyncio.gather(*background, lost, stopped, return_exceptions=True)
    http.close()
    _log.info("stopped")
    return 1 if failed else 0


async def _drain(services: Services) -> None:
    """Refuses new calls, and lets open uploads end by themselves before it ends them."""
    services.shutdown.begun.set()
    if not await services.live.ended(GRACE_SECONDS):
        services.live.interrupt_all(draining)
        await services.live.ended(END_SECONDS)


def _register(server: aio.Server, servicer: PipelineServicer, probe: HealthServicer) -> None:
    pipeline_service_pb2_grpc.add_PipelineServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(probe, server)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    add_reflection_v1(server, names)
