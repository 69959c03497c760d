"""Blocks on their way: bounded, in turns, settled in order, and named when they are poison."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from headrace_compute.errors import PoisonBlockError, StoreFullError
from headrace_compute.fair_queue import FairQueue
from headrace_compute.findings import Findings
from headrace_compute.ingest.block import delete_attempt
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.model import Block, UploadSpec
from headrace_compute.workers.pool import Executor
from headrace_server.rows.blocks import BLOCKS_IN_FLIGHT, BlockQueue, PersistedBlock

SPEC = UploadSpec("u", "interactions", "d/", "r/", "s/", 0, 0)


class _Workers:
    """A pool of pretended workers, with turns like the real one's."""

    def __init__(self, count: int, work: Callable[[Block], None] = lambda _: None) -> None:
        self.idle = FairQueue(range(count))
        self.work = work
        self.deleted: list[tuple[int, str]] = []
        self.attempts: list[str] = []

    def executor(self, group: str, member: str) -> Executor:
        return cast(Executor, _Executor(self, group, member))


class _Executor:
    def __init__(self, workers: _Workers, group: str, member: str) -> None:
        self._workers, self.group, self.member = workers, group, member

    async def run(self, stage: Any, spec: UploadSpec, block: Block, *args: Any) -> BlockResult | None:
        if stage is delete_attempt:
            self._workers.deleted.append((block.index, args[0]))
            return None
        worker = await self._workers.idle.acquire(self.group, self.member)
        try:
            await asyncio.sleep(0.001)
            self._workers.attempts.append(args[1])
            self._workers.work(block)
            return BlockResult(block, None, None, (), Findings())
        finally:
            self._workers.idle.release(worker)


def _block(index: int, first_line: int = 0) -> Block:
    return Block(index, "csv", index * 100, index * 100 + 100, index * 10, 10, first_line)


async def test_blocks_of_all_streams_together_are_bounded_and_tenants_get_equal_shares() -> None:
    workers, places = _Workers(2), FairQueue(range(6))
    persisted: list[str] = []
    flying = peak = 0

    async def stream(tenant: str, name: str, count: int) -> None:
        nonlocal flying, peak

        async def persist(block: PersistedBlock) -> None:
            nonlocal flying
            flying -= 1
            persisted.append(tenant)

        queue = BlockQueue(workers.executor(tenant, name), persist, places)
        for index in range(count):
            await queue.submit(SPEC, _block(index), b"", 0)
            flying += 1
            peak = max(peak, flying)
        await queue.drain()

    big = [asyncio.create_task(stream("big", f"s{number}", 40)) for number in range(50)]
    await asyncio.sleep(0.05)
    before = len(persisted)
    await stream("small", "only", 40)
    shares = Counter(persisted[before:])
    assert shares["small"] == 40
    # Fifty streams against one: without turns the one would have had a fiftieth.
    assert shares["big"] <= 2.5 * 40
    assert peak <= 6 + 1
    for task in big:
        task.cancel()
    await asyncio.gather(*big, return_exceptions=True)


async def test_a_stream_alone_has_a_bounded_number_of_blocks_in_flight_and_they_settle_in_order() -> None:
    workers, settled = _Workers(8), []

    async def persist(block: PersistedBlock) -> None:
        await asyncio.sleep(0.002)
        settled.append(block.result.block.index)

    queue = BlockQueue(workers.executor("t", "s"), persist)
    for index in range(20):
        await queue.submit(SPEC, _block(index), b"", 0)
        assert index + 1 - len(settled) <= BLOCKS_IN_FLIGHT
    await queue.drain()
    assert settled == list(range(20))


@pytest.mark.parametrize(
    ("first_line", "attributes", "words"),
    [
        (
            402,
            {"block": "2", "byte_offset": "200", "first_line": "402", "last_line": "411"},
            "Block 2 of the stream, at byte 200, lines 402 to 411",
        ),
        (0, {"block": "2", "row": "20"}, "Block 2 of the stream, from row 20, 10 rows"),
    ],
)
async def test_a_poison_block_is_named_and_blocks_before_it_are_kept(
    first_line: int, attributes: dict[str, str], words: str
) -> None:
    def work(block: Block) -> None:
        if block.index == 2:
            raise PoisonBlockError("a worker's own words")

    settled = []

    async def persist(block: PersistedBlock) -> None:
        settled.append(block.result.block.index)

    workers, places = _Workers(2, work), FairQueue(range(4))
    queue = BlockQueue(workers.executor("t", "s"), persist, places)
    for index in range(3):
        await queue.submit(SPEC, _block(index, first_line and 400 + index), b"", 10)
    with pytest.raises(PoisonBlockError) as caught:
        await queue.drain()
    assert caught.value.attributes == attributes
    assert words in caught.value.message
    assert settled == [0, 1]
    # Its place is free again for others.
    await asyncio.gather(*(asyncio.wait_for(places.acquire("n", "s"), 1) for _ in range(4)))


async def test_a_block_that_finds_no_room_for_its_record_leaves_no_parts() -> None:
    async def persist(block: PersistedBlock) -> None:
        raise StoreFullError("full")

    workers = _Workers(1)
    queue = BlockQueue(workers.executor("t", "s"), persist)
    for index in range(2):
        await queue.submit(SPEC, _block(index), b"", 0)
    with pytest.raises(StoreFullError):
        await queue.drain()
    # Nor does the one behind it, which was stored and cannot be recorded before it.
    assert workers.deleted == list(enumerate(workers.attempts))


async def test_a_stream_that_is_given_up_frees_its_places() -> None:
    workers, places = _Workers(1), FairQueue(range(2))

    async def persist(block: PersistedBlock) -> None:
        await asyncio.sleep(60)

    queue = BlockQueue(workers.executor("t", "s"), persist, places)
    for index in range(2):
        await queue.submit(SPEC, _block(index), b"", 0)
    await asyncio.sleep(0.02)
    await queue.close()
    await asyncio.gather(*(asyncio.wait_for(places.acquire("n", "s"), 1) for _ in range(2)))
