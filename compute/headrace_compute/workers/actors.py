"""The Ray actors: processes that run stages, and nothing else."""

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headrace_compute import cancellation
from headrace_compute.environment import forget_secrets
from headrace_compute.heap import keep_heap
from headrace_compute.model import StoreConfig
from headrace_compute.workers.cluster import address_here, ray, versions

WORKER_HEADROOM_BYTES = 6 << 30
"""Address space a worker may take beyond what it starts with: DuckDB's limit, a block's arrays, and
what allocators reserve without using it. Input with false size claims fails at this limit in malloc."""

DECODER_HEADROOM_BYTES = 3 << 30
"""The same for a decoder, which holds a record batch or a decompressor, and some blocks."""


BULK_NICENESS = 15
"""How far workers of uploads, runs and reads stand back, by nice(2): behind the server, and small ingests."""

DECODER_NICENESS = 17
"""The same for decoders: what they make waits for workers anyway."""


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=0)
class Worker:
    """Runs one stage at a time.

    The pool retries, not the worker: a task whose actor died may have completed, so
    only the caller, which names each attempt differently, may repeat it.
    """

    def __init__(self, config: StoreConfig, niceness: int) -> None:
        forget_secrets()
        _stand_back(niceness)
        _limit_address_space(WORKER_HEADROOM_BYTES)
        self._config = config
        keep_heap()
        # Ray asks on the thread that runs the stage, and forgets when the next one begins.
        cancellation.watch(ray.get_runtime_context().is_canceled)

    def run(self, stage: Callable[..., Any], *args: Any) -> Any:
        """Calls `stage(config, *args)`; Ray resolves references among `args`."""
        return stage(self._config, *args)

    @ray.method(num_returns=2)
    def hold(self, stage: Callable[..., Any], *args: Any) -> tuple[Any, None]:
        """As `run`, with the result apart, so that it can stay in the object store."""
        return stage(self._config, *args), None

    def hold_each(self, stage: Callable[..., Iterator[Any]], *args: Any) -> Iterator[Any]:
        """As `hold`, for a stage that gives several values; the caller says how many, and one more.

        That one comes last: what is given before a stage fails stands, and only what was to follow tells.
        """
        yield from stage(self._config, *args)
        yield None

    def warm(self) -> dict[str, str]:
        """Loads whatever the first block would wait for; tells its node and its versions."""
        from headrace_compute.kernels import warm
        from headrace_compute.workers.warm import load

        warm()
        load()
        node = str(ray.get_runtime_context().get_node_id())
        return {**versions(), "node": node, "address": address_here()}


@ray.remote(num_cpus=0, max_restarts=0)
class Decoder:
    """Decodes one stream at a time, block by block: what it holds between blocks cannot be moved.

    Separate from the workers, so that a stream that kills its decoder affects no other
    work, and a decoder that waits for workers occupies none of them.
    """

    def __init__(self, config: StoreConfig) -> None:
        forget_secrets()
        _stand_back(DECODER_NICENESS)
        # Loaded before the limit counts, and before the first stream waits for it.
        import headrace_compute.formats.decode  # noqa: F401

        _limit_address_space(DECODER_HEADROOM_BYTES)
        self._config = config
        self._items: Iterator[tuple[Any, Any]] = iter(())

    def ready(self) -> None:
        """Returns once it is."""

    def begin(self, stage: Callable[..., Iterator[tuple[Any, Any]]], *args: Any, **kwargs: Any) -> None:
        """Makes `stage(config, *args, **kwargs)` what `advance` steps through."""
        self._items = stage(self._config, *args, **kwargs)

    @ray.method(num_returns=2)
    def advance(self) -> tuple[Any, Any]:
        """The next pair of the stage, the second half of which stays in the object store.

        (None, None) at the stage's end.
        """
        pair = next(self._items, None)
        if pair is None:
            self._items = iter(())
            return None, None
        return pair


def _stand_back(niceness: int) -> None:
    """Gives way to others by so much, if Ray has not had the process do so already."""
    os.nice(max(0, niceness - os.nice(0)))


def _limit_address_space(headroom_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + headroom_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
