"""Decoders: processes that step through untrusted streams, started when one comes.

`Decoders.blocks` gives the blocks of a stream; what they hold stays in Ray's
object store, for the workers. A decoder that dies is replaced, and goes on where
its last block ended; a stream that kills several at one place is poison.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast

import ray
from ray import exceptions as ray_errors

from headrace_compute.actors import Decoder
from headrace_compute.errors import ComputeUnavailableError, HeadraceError, PoisonBlockError, TooLargeError
from headrace_compute.model import Position, StoreConfig

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 3
"""How many decoders a stream may kill at one place before it counts as poison."""

BLOCK_SECONDS = 300.0
"""How long one block may take to decode; a stream may be made to take for ever."""

IDLE = 1
"""Decoders kept for the next stream: starting one takes seconds."""

_log = logging.getLogger(__name__)


class Held(Generic[T]):
    """A stage's result that stays in Ray's object store; pass it to another stage as it is."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref


class Ending(Protocol):
    """Something that ends where the next one begins."""

    @property
    def end(self) -> Position:
        """Where that is."""


E = TypeVar("E", bound=Ending)


class Decoders:
    """Decodes at most `limit` streams at a time; others wait.

    Args:
        config: Where the decoders find the store.
    """

    def __init__(self, config: StoreConfig, limit: int) -> None:
        self._config = config
        self._room = asyncio.Semaphore(limit)
        self._idle: list[Any] = []
        self._busy: list[Any] = []

    def prepare(self) -> None:
        """Starts a decoder if none is idle, for a stream that will need one soon."""
        if not self._idle and not self._busy:
            self._idle.append(self._start())

    async def blocks(
        self,
        stage: Callable[Concatenate[StoreConfig, Position, P], Iterator[tuple[E, Any]]],
        start: Position,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AsyncGenerator[tuple[E, Held[Any]], None]:
        """Yields what `stage(config, start, *args)` yields, the payloads held.

        Raises:
            HeadraceError: What the stage raised.
            PoisonBlockError: The stream ended `ATTEMPTS` decoders at one place, or took too long there.
            ComputeUnavailableError: Ray cannot be reached.
        """
        async with self._room:
            deaths = 0
            while deaths < ATTEMPTS:
                try:
                    async with self._decoder() as decoder:
                        await decoder.begin.remote(stage, start, *args, **kwargs)
                        while (item := await _advance(decoder)) is not None:
                            yield item
                            start, deaths = item[0].end, 0
                        return
                except (ray_errors.RayActorError, ray_errors.WorkerCrashedError, TimeoutError):
                    deaths += 1
                    _log.warning("decoder died", extra={"block": start.index, "attempt": deaths})
                except (ray_errors.RaySystemError, ray_errors.ObjectLostError, ConnectionError) as error:
                    raise ComputeUnavailableError(
                        "the decoders cannot be reached; try again in a moment"
                    ) from error
        raise PoisonBlockError(
            f"block {start.index}, at {start.offset:,} of the decoded stream, ended its decoder {ATTEMPTS} "
            "times, so the upload is refused; look for extreme values there, or send it as CSV",
            {"block": str(start.index), "byte_offset": str(start.offset), "row": str(start.row)},
        )

    def close(self) -> None:
        """Ends all decoders at once."""
        for decoder in (*self._idle, *self._busy):
            ray.kill(decoder)
        self._idle, self._busy = [], []

    def _start(self) -> Any:
        return cast(Any, Decoder).remote(self._config)

    @asynccontextmanager
    async def _decoder(self) -> AsyncIterator[Any]:
        """A decoder of one's own. It is used again only if it came to an end: it may be stuck otherwise."""
        decoder = self._idle.pop() if self._idle else self._start()
        self._busy.append(decoder)
        sound = False
        try:
            yield decoder
            sound = True
        except HeadraceError:
            sound = True
            raise
        finally:
            if decoder in self._busy:
                self._busy.remove(decoder)
                if sound and len(self._idle) < IDLE:
                    self._idle.append(decoder)
                else:
                    ray.kill(decoder)


async def _advance(decoder: Any) -> tuple[Any, Held[Any]] | None:
    try:
        decoded, payload = decoder.advance.remote()
        async with asyncio.timeout(BLOCK_SECONDS):
            found = await decoded
    except ray_errors.RayTaskError as error:
        if isinstance(error.cause, HeadraceError):
            raise error.cause from None
        if isinstance(error.cause, MemoryError):
            raise TooLargeError(
                "A part of the stream needs more memory to decode than a decoder may use; write it in "
                "smaller record batches.",
                {"what": "memory", "limit": "that of a decoder"},
            ) from None
        raise
    return None if found is None else (found, Held(payload))
