"""Which stream gives way when there is no place left, and for whom."""

import asyncio

import pytest

from headrace_compute.errors import GaveWayError, OverloadedError
from headrace_server.rpc import stream_limit
from headrace_server.rpc.stream_limit import PATIENCE_SECONDS, StreamLimit


class Stream:
    """A stream that ends, as soon as it may, when it is interrupted."""

    def __init__(self, limit: StreamLimit, tenant: str, idle_seconds: float | None) -> None:
        self.idle_seconds = idle_seconds
        self.interrupted = asyncio.Event()
        self.error: Exception | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.is_in = asyncio.Event()
        self.task = asyncio.create_task(self._serve(limit, tenant))

    def interrupt(self, error: Exception) -> None:
        self.error = error
        self.interrupted.set()

    async def _serve(self, limit: StreamLimit, tenant: str) -> None:
        async with limit.enter_stream(tenant, self):
            self.is_in.set()
            await self.interrupted.wait()
            await self.may_end.wait()


async def entered(limit: StreamLimit, tenant: str, idle_seconds: float | None = 0.0) -> Stream:
    stream = Stream(limit, tenant, idle_seconds)
    is_in = asyncio.create_task(stream.is_in.wait())
    await asyncio.wait({is_in, stream.task}, return_when=asyncio.FIRST_COMPLETED)
    if stream.task.done():
        is_in.cancel()
        await stream.task
    return stream


async def test_header_only_streams_of_forty_tenants_keep_nobody_out() -> None:
    limit = StreamLimit("uploads", 256, 64)
    held = [await entered(limit, f"t{number % 40}") for number in range(256)]
    for number in range(40):
        await entered(limit, f"n{number}")
    assert limit.held == 256
    assert sum(stream.task.done() for stream in held) == 40


async def test_the_idlest_of_the_tenant_with_the_most_gives_way_and_is_told_so() -> None:
    limit = StreamLimit("uploads", 6, 4)
    big = [await entered(limit, "big", idle_seconds) for idle_seconds in (1.0, 3.0, None)]
    others = [await entered(limit, "other", 99.0) for _ in range(2)]
    lone = await entered(limit, "lone", 99.0)
    await entered(limit, "new")
    assert [stream.task.done() for stream in (*big, *others, lone)] == [False, True, *[False] * 4]
    assert isinstance(big[1].error, GaveWayError)
    assert big[1].error.attributes == {"limit": "6", "what": "uploads"}
    assert limit.held == 6


async def test_the_newcomer_waits_until_the_other_has_made_safe_what_it_was_sent() -> None:
    limit = StreamLimit("uploads", 2, 2)
    slow, _ = [await entered(limit, "big", idle_seconds) for idle_seconds in (2.0, 1.0)]
    slow.may_end.clear()
    newcomer = Stream(limit, "new", 0.0)
    await asyncio.wait_for(slow.interrupted.wait(), 5)
    # Its place is taken: whoever comes meanwhile does not get it.
    with pytest.raises(OverloadedError):
        await entered(limit, "late")
    assert not newcomer.is_in.is_set()
    slow.may_end.set()
    await asyncio.wait_for(newcomer.is_in.wait(), 5)
    assert limit.held == 2


async def test_one_that_does_not_end_in_time_leaves_the_newcomer_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_limit, "SETTLE_SECONDS", 0.01)
    limit = StreamLimit("uploads", 2, 2)
    slow, _ = [await entered(limit, "big", idle_seconds) for idle_seconds in (2.0, 1.0)]
    slow.may_end.clear()
    with pytest.raises(OverloadedError, match="2 uploads under way"):
        await entered(limit, "new")
    slow.may_end.set()
    await slow.task
    assert limit.held == 1


async def test_between_equals_only_one_that_has_long_been_idle_gives_way() -> None:
    limit = StreamLimit("uploads", 3, 2)
    held = [await entered(limit, f"t{number}") for number in range(3)]
    with pytest.raises(OverloadedError, match="The server has 3 uploads"):
        await entered(limit, "new")
    held[1].idle_seconds = PATIENCE_SECONDS
    await entered(limit, "new")
    assert [stream.task.done() for stream in held] == [False, True, False]


async def test_nobody_gives_way_to_a_tenant_that_has_as_many_nor_to_one_at_its_own_limit() -> None:
    limit = StreamLimit("uploads", 4, 2)
    held = [await entered(limit, tenant, 99.0) for tenant in ("a", "a", "b", "b")]
    with pytest.raises(OverloadedError, match="The server has 4 uploads"):
        await entered(limit, "a")
    limit = StreamLimit("uploads", 4, 1)
    held += [await entered(limit, tenant, 99.0) for tenant in ("a", "b", "c")]
    with pytest.raises(OverloadedError, match="Tenant a has 1 upload"):
        await entered(limit, "a")
    assert not any(stream.task.done() for stream in held)


async def test_what_the_server_is_at_work_on_never_gives_way() -> None:
    limit = StreamLimit("uploads", 2, 2)
    held = [await entered(limit, "big", None) for _ in range(2)]
    with pytest.raises(OverloadedError):
        await entered(limit, "new")
    assert not any(stream.interrupted.is_set() for stream in held)
