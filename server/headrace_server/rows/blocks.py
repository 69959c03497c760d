"""Blocks in flight: processed by the pool several at a time, persisted in order."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from headrace_compute.errors import HeadraceError, PoisonBlockError, StoreFullError
from headrace_compute.fair_queue import FairQueue
from headrace_compute.ingest.block import delete_attempt, ingest_block
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.model import Block, UploadSpec
from headrace_compute.workers.pool import Executor
from headrace_server import metrics

BLOCKS_IN_FLIGHT = 3
"""Blocks of one stream that may be with the workers; more would only cost memory."""


@dataclass(frozen=True)
class PersistedBlock:
    """A block whose part and record survive any crash.

    Attributes:
        lines: Lines it covers; with its own numbers, where the next block begins.
        crc32c: CRC-32C of the stream up to the block's end; None where it is not known.
    """

    result: BlockResult
    lines: int
    crc32c: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The record's body."""
        return {"result": self.result.to_json(), "lines": self.lines, "crc32c": self.crc32c}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The block of a record's body."""
        return cls(BlockResult.from_json(body["result"]), body["lines"], body.get("crc32c"))


Persist = Callable[[PersistedBlock], Awaitable[None]]


class BlockQueue:
    """Hands blocks to the pool, several at a time, and passes results on in order.

    Args:
        pool: The stream's executor.
        persist: Awaited once for each block, in the order of submission.
        places: What all streams together may have in flight; without, only this stream is bounded.
    """

    def __init__(self, pool: Executor, persist: Persist, places: FairQueue[int] | None = None) -> None:
        self._pool = pool
        self._persist = persist
        self._places = FairQueue(range(BLOCKS_IN_FLIGHT)) if places is None else places
        self._room = asyncio.Semaphore(BLOCKS_IN_FLIGHT)
        self._last: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def submit(
        self, spec: UploadSpec, block: Block, payload: Any, lines: int, crc32c: int | None = None
    ) -> None:
        """Queues one block; waits while too many are in flight.

        Args:
            lines: Lines it covers.
            crc32c: CRC-32C of the stream up to the block's end, if it is known.

        Raises:
            HeadraceError: What an earlier block failed with.
        """
        await self._room.acquire()
        place = await self._places.acquire(self._pool.group, self._pool.member)
        if self._error is not None:
            self._places.release(place)
            raise self._error
        metrics.BLOCKS_IN_FLIGHT.inc()
        flight = _Flight(spec, block, uuid.uuid4().hex[:12], lines, crc32c, place)
        work = self._spawn(self._ingest(flight, payload))
        self._last = self._spawn(self._settle(flight, work, self._last))

    async def drain(self) -> None:
        """Waits until every submitted block is persisted.

        Raises:
            HeadraceError: What a block failed with.
        """
        if self._last is not None:
            await asyncio.wait([self._last])
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Gives up what is in flight; for streams that ended early."""
        if not isinstance(self._error, StoreFullError):  # Then they still make room.
            for task in list(self._tasks):
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _delete(self, flight: "_Flight") -> None:
        """Deletes the parts of a block that has no record: orphans take room, and there may be none."""
        with suppress(HeadraceError):
            await self._pool.run(delete_attempt, flight.spec, flight.block, flight.attempt)

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ingest(self, flight: "_Flight", payload: Any) -> BlockResult:
        try:
            return await self._pool.run(ingest_block, flight.spec, flight.block, payload, flight.attempt)
        except PoisonBlockError as error:
            raise poison(flight.block, flight.lines) from error

    async def _settle(
        self, flight: "_Flight", work: asyncio.Task[BlockResult], before: asyncio.Task[None] | None
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            result = await work
            if self._error is None:
                await self._persist(PersistedBlock(result, flight.lines, flight.crc32c))
            else:
                await self._delete(flight)  # An earlier block failed; this one is sent again.
        except StoreFullError as error:
            self._error = self._error or error
            await self._delete(flight)
        except BaseException as error:
            # Kept for submit() and drain(): the reader of the stream must hear of it.
            self._error = self._error or error
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            metrics.BLOCKS_IN_FLIGHT.dec()
            self._places.release(flight.place)
            self._room.release()


@dataclass(frozen=True)
class _Flight:
    """A block in flight; `attempt` names its parts, `place` is its share of the server's limit."""

    spec: UploadSpec
    block: Block
    attempt: str
    lines: int
    crc32c: int | None
    place: int


def poison(block: Block, lines: int) -> PoisonBlockError:
    """The error for a block that ended its workers, with where it stands."""
    if block.first_line:
        last_line = block.first_line + max(lines, 1) - 1
        where = f"at byte {block.offset:,}, lines {block.first_line:,} to {last_line:,},"
        attributes = {
            "byte_offset": str(block.offset),
            "first_line": str(block.first_line),
            "last_line": str(last_line),
        }
    else:
        where = f"from row {block.first_row:,}, {block.rows:,} rows,"
        attributes = {"row": str(block.first_row)}
    return PoisonBlockError(
        f"Block {block.index} of the stream, {where} ended its worker again and again and is refused; "
        "look for extreme values there.",
        {"block": str(block.index), **attributes},
    )
