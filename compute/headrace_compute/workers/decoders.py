"""Decoders: processes that step through untrusted streams, started when one comes.

`Decoders.blocks` gives the blocks of a stream; what they hold stays in Ray's
object store, for the workers. A decoder that dies is replaced, and goes on where
its last block ended; a stream that kills several at one place is poison. A stream whose place is wanted by a
tenant that has fewer gives it up between two blocks, and goes on in the same way.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast

from headrace_compute.errors import ComputeUnavailableError, HeadraceError, PoisonBlockError, TooLargeError
from headrace_compute.fair_queue import ReservingQueue
from headrace_compute.model import Position, StoreConfig
from headrace_compute.workers.actors import Decoder
from headrace_compute.workers.cluster import ray, ray_errors
from headrace_compute.workers.held import Held
from headrace_compute.workers.labels import ActorNames, task_name
from headrace_compute.workers.quarantine import Quarantine

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 3
"""How many decoders a stream may kill at one place before it counts as poison."""

BLOCK_SECONDS = 60.0
"""How long one block may take to decode, a hundred times what most take: a malicious stream might never end,
and holds a place that others wait for."""

SKIPPED_A_SECOND = 10_000_000
"""Bytes, or rows, of the decoded stream that a decoder gets past in a second, at the least, on its way to
where its first block begins."""

SPARE_SECONDS = 60.0
"""How long decoders are kept that have nothing to do: starting one takes seconds of a core."""

PATIENCE_SECONDS = 0.2
"""How long a stream waits for a decoder that is busy before another one is started: small ones take less."""

TURN_SECONDS = 1.0
"""How long a stream may be decoded while tenants wait that have fewer under way; or as long as it took to
come back to where it was, so that half of the work at least is new."""

_log = logging.getLogger(__name__)


class Spares(Generic[T]):
    """Things kept for later: one for good, the others for a time. Belongs to one event loop.

    Args:
        end: Called with each that is not kept any longer.
    """

    def __init__(self, end: Callable[[T], object], seconds: float) -> None:
        self._end = end
        self._seconds = seconds
        # Since when each has been kept: the oldest first.
        self._kept: list[tuple[float, T]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, thing: T) -> None:
        """Keeps one more."""
        loop = asyncio.get_running_loop()
        self._kept.append((loop.time(), thing))
        loop.call_later(self._seconds, self._end_old)

    def take(self) -> T | None:
        """The newest, so that what is not needed grows old."""
        return self._kept.pop()[1] if self._kept else None

    def _end_old(self) -> None:
        oldest = asyncio.get_running_loop().time() - self._seconds
        while len(self._kept) > 1 and self._kept[0][0] <= oldest:
            self._end(self._kept.pop(0)[1])


class Ending(Protocol):
    """A value that knows its end, which is where the next one begins."""

    @property
    def end(self) -> Position:
        """Where that is."""


E = TypeVar("E", bound=Ending)


class Decoders:
    """Decodes at most `limit` streams of one tenant at a time, and twice as many of all; others take turns.

    Args:
        config: Where the decoders find the store.
        quarantine: Hears whose streams end decoders.
        owner: Name of the server, by which they are named.
        demands: Resources that Ray is to find for each.
    """

    def __init__(
        self,
        config: StoreConfig,
        limit: int,
        quarantine: Quarantine,
        owner: str,
        demands: Mapping[str, float],
    ) -> None:
        self._config = config
        self._demands = demands
        self._names = ActorNames(owner, "decoder")
        self._numbers = itertools.count()
        self._quarantine = quarantine
        self._limit = limit
        self._places = ReservingQueue(range(2 * limit))
        self._idle: Spares[Any] = Spares(ray.kill, SPARE_SECONDS)
        self._busy = 0
        # Only one at a time: several that start keep a core each from everybody.
        self._starting: asyncio.Task[None] | None = None
        self._freed = asyncio.Event()

    def raise_limit(self, limit: int) -> None:
        """Sets a higher limit; a lower one changes nothing."""
        for place in range(2 * self._limit, 2 * limit):
            self._places.add(place)
        self._limit = max(self._limit, limit)

    def prepare(self) -> None:
        """Starts a decoder if there is none, for a stream that will need one soon."""
        if not self._idle and not self._busy:
            self._begin_start()

    async def blocks(
        self,
        group: str,
        member: str,
        stage: Callable[Concatenate[StoreConfig, Position, P], Iterator[tuple[E, Any]]],
        start: Position,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AsyncGenerator[tuple[E, Held[Any]], None]:
        """Yields what `stage(config, start, *args)` yields, the payloads held.

        Args:
            group, member: Whose stream it is, for fair queueing; see FairQueue.

        Raises:
            HeadraceError: What the stage raised.
            SuspendedError: Input of the group has ended too many processes.
            PoisonBlockError: The stream ended `ATTEMPTS` decoders at one place, or took too long there.
            ComputeUnavailableError: Ray cannot be reached.
        """
        deaths = 0
        while deaths < ATTEMPTS:
            async with self._turn(group, member) as turn:
                self._quarantine.check(group)
                try:
                    async with self._decoder() as decoder:
                        turn.begin()
                        begin = decoder.begin.options(name=task_name(stage, group, args))
                        await begin.remote(stage, start, *args, **kwargs)
                        seconds = BLOCK_SECONDS + start.offset / SKIPPED_A_SECOND
                        while not turn.is_over:
                            if (item := await _advance(decoder, seconds)) is None:
                                return
                            seconds = BLOCK_SECONDS
                            turn.has_advanced()
                            yield item
                            start, deaths = item[0].end, 0
                except (ray_errors.RayActorError, ray_errors.WorkerCrashedError, TimeoutError):
                    deaths += 1
                    self._quarantine.died(group)
                    _log.warning(
                        "decoder died", extra={"tenant": group, "block": start.index, "attempt": deaths}
                    )
                except (ray_errors.RaySystemError, ray_errors.ObjectLostError, ConnectionError) as error:
                    raise ComputeUnavailableError(
                        "The decoders cannot be reached; try again in a moment."
                    ) from error
        self._quarantine.suspend(group)
        raise PoisonBlockError(
            f"Block {start.index}, at {start.offset:,} of the decoded stream, ended its decoder {ATTEMPTS} "
            "times, so the upload is refused; look for extreme values there, or send it as CSV.",
            {"block": str(start.index), "byte_offset": str(start.offset), "row": str(start.row)},
        )

    @asynccontextmanager
    async def _turn(self, group: str, member: str) -> AsyncIterator["_Turn"]:
        place = await self._places.acquire(group, member)
        try:
            yield _Turn(lambda: self._places.is_wanted(group))
        finally:
            self._places.release(place)

    @asynccontextmanager
    async def _decoder(self) -> AsyncIterator[Any]:
        """A decoder for exclusive use, used again only if it stands between blocks: else it may be stuck."""
        decoder = await self._take()
        self._busy += 1
        sound = False
        try:
            yield decoder
            sound = True
        except HeadraceError:
            sound = True
            raise
        finally:
            self._busy -= 1
            if sound:
                self._put(decoder)
            else:
                ray.kill(decoder)

    async def _take(self) -> Any:
        """An idle decoder; a new one if there is none, or none is soon."""
        patience = PATIENCE_SECONDS if self._busy else None
        while (decoder := self._idle.take()) is None:
            if patience is None:
                self._begin_start()
            self._freed.clear()
            freed = asyncio.ensure_future(self._freed.wait())
            awaited = {freed, self._starting} if self._starting else {freed}
            try:
                done, _ = await asyncio.wait(awaited, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            finally:
                freed.cancel()
            for each in done:
                each.result()
            patience = patience if done else None
        return decoder

    def _put(self, decoder: Any) -> None:
        self._idle.put(decoder)
        self._freed.set()

    def _begin_start(self) -> None:
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._has_started)

    def _has_started(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("a decoder does not start", extra={"cause": type(error).__name__})

    async def _start(self) -> None:
        """Starts a decoder, and waits until it is ready."""
        decoder = cast(Any, Decoder).options(
            name=self._names.next(next(self._numbers)), resources=dict(self._demands)
        )
        # For one that has a name Ray waits until its head has noted it.
        started = await asyncio.to_thread(decoder.remote, self._config)
        await started.ready.remote()
        self._put(started)


class _Turn:
    """The time for which a stream has a place.

    Args:
        is_wanted: Whether its place is wanted by who has less.
    """

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted = is_wanted
        self._began = 0.0
        self._first: float | None = None

    def begin(self) -> None:
        """Hears that decoding begins."""
        self._began = time.monotonic()

    def has_advanced(self) -> None:
        """Hears of a block."""
        self._first = self._first or time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the stream should let another one have its place, and go on later."""
        if self._first is None or not self._is_wanted():
            return False
        return time.monotonic() - self._began >= max(TURN_SECONDS, 2 * (self._first - self._began))


async def _advance(decoder: Any, seconds: float) -> tuple[Any, Held[Any]] | None:
    try:
        decoded, payload = decoder.advance.remote()
        async with asyncio.timeout(seconds):
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
