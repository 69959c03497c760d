"""The worker pool: placement, retries and backpressure over Ray actors.

With `actors.py` and `decoders.py` this is the only module that knows Ray. The server
awaits `Pool.run(stage, ...)` and gets a value or a typed error.
"""

import asyncio
import functools
import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 3
"""How often a stage may kill its worker before its input counts as poison."""

REVIVAL_SECONDS = 60.0
"""How long a dead worker may take to come back."""

ANSWER_SECONDS = 5.0

OBJECT_STORE_BYTES = 512 << 20
"""Room for blocks in flight and held results of a local Ray."""

_UNREACHABLE = "the workers cannot be reached; try again in a moment"

_log = logging.getLogger(__name__)


def _set_grpc_defaults() -> None:
    # Ray sets these for its own gRPC when it is imported; the server's gRPC shares them.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_POLL_STRATEGY", "epoll1")
    # `uv run` would make Ray rebuild the environment for every worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


_set_grpc_defaults()

import ray  # noqa: E402  (the environment above must be set first)
from ray import exceptions as ray_errors  # noqa: E402

from headrace_compute.actors import Worker  # noqa: E402
from headrace_compute.decoders import Decoders, Held  # noqa: E402
from headrace_compute.errors import ComputeUnavailableError, HeadraceError, PoisonBlockError  # noqa: E402
from headrace_compute.model import StoreConfig  # noqa: E402
from headrace_compute.turns import Turns  # noqa: E402


class _WorkerDiedError(Exception):
    """A worker died in the middle of a stage, or ran out of memory."""


def start_ray(address: str, cpus: int) -> str:
    """Joins the Ray cluster at `address`, or starts a local one; returns its address.

    Must run on the main thread, before gRPC starts and before signal handlers
    are installed: Ray replaces the SIGTERM handler, and its processes die with
    the thread that started them.
    """
    if address:
        context = ray.init(
            address=address, namespace="headrace", log_to_driver=False, configure_logging=False
        )
    else:
        context = ray.init(
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            namespace="headrace",
            log_to_driver=False,
            configure_logging=False,
            # Unix socket paths are limited to 107 bytes: the folder's name must stay short.
            _temp_dir=os.path.join(tempfile.gettempdir(), f"headrace-{os.getuid()}"),
        )
    return str(cast(Any, context)["gcs_address"])


def stop_ray() -> None:
    """Ends a local Ray, or leaves the cluster."""
    ray.shutdown()


class Lane:
    """A way into the pool for one stream of one tenant; the pool serves its lanes in turns.

    Args:
        group, member: Whose lane it is; see Turns.
    """

    def __init__(self, pool: "Pool", group: str, member: str) -> None:
        self._pool = pool
        self.group = group
        self.member = member

    @property
    def decoders(self) -> Decoders:
        """Those of the pool, which all lanes share."""
        return self._pool._decoders

    async def run(
        self, stage: Callable[Concatenate[StoreConfig, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `stage(config, *args)` on the next idle worker and returns its result.

        Waits for a worker: whoever calls without bound is slowed, not refused.
        `Held` arguments are resolved in the worker.

        Raises:
            HeadraceError: What the stage raised.
            PoisonBlockError: The worker died at it, or ran out of memory, `ATTEMPTS` times.
            ComputeUnavailableError: Ray cannot be reached.
        """
        return cast(T, await self._pool.attempt(self, stage, args, keep=False))

    async def hold(
        self, stage: Callable[Concatenate[StoreConfig, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Held[T]:
        """As `run`, but the result stays with Ray; for what the next stage wants, not the server."""
        return cast("Held[T]", await self._pool.attempt(self, stage, args, keep=True))

    async def put(self, value: T) -> Held[T]:
        """Places a value that many stages will read into Ray's object store once."""
        return Held(await asyncio.to_thread(ray.put, value))

    async def fetch(self, held: Held[T]) -> T:
        """The value of a held result."""
        return cast(T, await held.ref)


class Pool(Lane):
    """A fixed set of workers; each runs one stage at a time. The pool itself is the lane of nobody's stream.

    Args:
        config: Where the workers find the store.
        workers: How many; 0 = as many as the cluster has CPUs.
        cpus: What one of them takes of the cluster's CPUs; 0 = it runs beside those that do.
    """

    def __init__(self, config: StoreConfig, workers: int = 0, cpus: int = 1) -> None:
        super().__init__(self, "", "")
        self.size = workers or max(1, int(_resources().get("CPU", 1)))
        self._actors: list[Any] = [
            cast(Any, Worker).options(num_cpus=cpus).remote(config) for _ in range(self.size)
        ]
        self._idle = Turns(self._actors)
        self._decoders = Decoders(config, max(1, self.size))

    def lane(self, group: str, member: str) -> Lane:
        """A lane of its own for a stream: those who share one wait for each other."""
        return Lane(self, group, member)

    async def warm(self) -> list[int]:
        """Waits until every worker has compiled its kernels; returns their process ids."""
        return list(await asyncio.gather(*(actor.warm.remote() for actor in self._actors)))

    async def alive(self) -> bool:
        """Whether Ray answers, within a few seconds."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return bool(await asyncio.to_thread(_resources))
        except (TimeoutError, ray_errors.RayError, ConnectionError, RuntimeError):
            return False

    def close(self) -> None:
        """Ends the workers at once."""
        self._decoders.close()
        for actor in self._actors:
            ray.kill(actor)

    async def attempt(self, lane: Lane, stage: Callable[..., Any], args: tuple[Any, ...], keep: bool) -> Any:
        """What `Lane.run` and `Lane.hold` promise."""
        resolved = [arg.ref if isinstance(arg, Held) else arg for arg in args]
        for attempt in range(1, ATTEMPTS + 1):
            actor = await self._idle.take(lane.group, lane.member)
            call = asyncio.ensure_future(self._call(actor, stage, resolved, keep))
            call.add_done_callback(functools.partial(self._ended, actor))
            try:
                # Who gives up does not wait, but the worker is busy until its stage has ended.
                return await asyncio.shield(call)
            except _WorkerDiedError as death:
                _log.warning(
                    "worker died",
                    extra={"stage": stage.__name__, "attempt": attempt, "cause": str(death) or "unknown"},
                )
        raise PoisonBlockError(
            f"this input ended its worker {ATTEMPTS} times and is refused; look for extreme values in it"
        )

    async def _call(self, actor: Any, stage: Callable[..., Any], args: list[Any], keep: bool) -> Any:
        try:
            if keep:
                done, value = await asyncio.to_thread(actor.hold.remote, stage, *args)
                await done
                return Held(value)
            # Serialising a block takes milliseconds: not on the event loop.
            return await (await asyncio.to_thread(actor.run.remote, stage, *args))
        except ray_errors.RayTaskError as error:
            if isinstance(error.cause, HeadraceError):
                raise error.cause from None
            if isinstance(error.cause, MemoryError):
                raise _WorkerDiedError("out of memory") from None
            raise
        except (ray_errors.RayActorError, ray_errors.WorkerCrashedError, ray_errors.OutOfMemoryError):
            await self._revive(actor)
            raise _WorkerDiedError from None
        except (ray_errors.RayError, ConnectionError) as error:
            raise ComputeUnavailableError(_UNREACHABLE) from error

    def _ended(self, actor: Any, call: asyncio.Future[Any]) -> None:
        self._idle.give_back(actor)
        if not call.cancelled():
            call.exception()  # Whoever waited has it; if nobody does any more, it is not news.

    async def _revive(self, actor: Any) -> None:
        """Waits until Ray has restarted the actor: calls before that fail at once."""
        deadline = asyncio.get_running_loop().time() + REVIVAL_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            try:
                await actor.warm.remote()
                return
            except ray_errors.RayActorError:
                await asyncio.sleep(0.2)
        raise ComputeUnavailableError(_UNREACHABLE)


def _resources() -> dict[str, float]:
    """What the cluster has, by name of the resource."""
    return dict(cast(Any, ray).cluster_resources())
