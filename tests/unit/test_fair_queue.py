"""Whose turn it is when many want what few can have."""

import asyncio
import itertools
from collections import Counter

import pytest

from headrace_compute.fair_queue import FairQueue, ReservingQueue


async def _order(queue: FairQueue[int], wanted: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Who is served, in order, when all ask in the order given while everything is taken."""
    things = [await queue.acquire("", "") for _ in range(1)]
    served: list[tuple[str, str]] = []

    async def ask(group: str, member: str) -> None:
        thing = await queue.acquire(group, member)
        served.append((group, member))
        queue.release(thing)

    tasks = []
    for group, member in wanted:
        tasks.append(asyncio.create_task(ask(group, member)))
        await asyncio.sleep(0)
    for thing in things:
        queue.release(thing)
    await asyncio.gather(*tasks)
    return served


async def test_what_is_free_is_handed_out_at_once() -> None:
    queue = FairQueue("ab")
    assert {await queue.acquire("t", "s"), await queue.acquire("t", "s")} == {"a", "b"}


async def test_a_tenant_with_fifty_streams_does_not_starve_anothers_single_one() -> None:
    many = [("big", f"s{stream}") for _ in range(3) for stream in range(50)]
    served = await _order(FairQueue([0]), [*many, *[("small", "only")] * 10])
    last = max(place for place, (group, _) in enumerate(served) if group == "small")
    # Though it asked last, each of its ten requests waited for one of the other's.
    assert Counter(group for group, _ in served[: last + 1])["big"] <= 11


async def test_streams_of_one_tenant_share_its_turns_alike() -> None:
    served = await _order(FairQueue([0]), [*[("t", "a")] * 6, *[("t", "b")] * 3])
    assert [member for _, member in served] == ["a", "b", "a", "b", "a", "b", "a", "a", "a"]


async def test_tenants_take_turns_however_many_they_are() -> None:
    wanted = [(f"t{tenant}", "s") for tenant in range(7) for _ in range(5)]
    served = await _order(FairQueue([0]), wanted)
    assert all(len({group for group, _ in served[i : i + 7]}) == 7 for i in range(0, 35, 7))


class _Time:
    """A clock, and work that takes time by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queue = FairQueue([0], lambda: self.now)
        self.served: list[str] = []

    async def work(self, group: str, seconds: float, turns: int) -> None:
        for _ in range(turns):
            thing = await self.queue.acquire(group, "s")
            self.served.append(group)
            await asyncio.sleep(0)
            self.now += seconds
            self.queue.release(thing)

    async def all(self, *work: tuple[str, float, int]) -> None:
        await asyncio.gather(*(self.work(*each) for each in work))


async def test_who_needs_little_waits_for_the_next_that_is_free_not_for_all_who_need_much() -> None:
    time = _Time()
    await time.all(*[(f"big-{number}", 5.0, 20) for number in range(4) for _ in range(3)], ("small", 0.1, 10))
    places = [place for place, group in enumerate(time.served) if group == "small"]
    assert places[0] <= 4
    assert all(later - place <= 2 for place, later in itertools.pairwise(places))


async def test_tenants_have_the_same_time_though_their_turns_differ() -> None:
    time = _Time()
    await time.all(*[("slow", 3.0, 10)] * 3, *[("fast", 1.0, 60)] * 3)
    first = Counter(time.served[:40])
    assert first["slow"] == pytest.approx(10, abs=1)


async def test_time_that_was_spent_alone_is_not_made_up_for_by_others() -> None:
    time = _Time()
    await time.all(("early", 5.0, 50))
    del time.served[:]
    await time.all(*[("early", 5.0, 10)] * 2, *[("late", 5.0, 10)] * 2)
    assert Counter(time.served[:10]) == {"early": 5, "late": 5}


async def test_who_gives_up_waiting_loses_nothing_for_the_others() -> None:
    queue = FairQueue([7])
    thing = await queue.acquire("t", "holder")
    quitter = asyncio.create_task(queue.acquire("t", "quitter"))
    waiter = asyncio.create_task(queue.acquire("t", "waiter"))
    await asyncio.sleep(0)
    quitter.cancel()
    queue.release(thing)
    assert await waiter == 7
    queue.release(7)
    # And one that is handed the thing in the very moment in which it is cancelled.
    thing = await queue.acquire("t", "holder")
    late = asyncio.create_task(queue.acquire("t", "late"))
    await asyncio.sleep(0)
    queue.release(thing)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert await asyncio.wait_for(queue.acquire("t", "next"), 1) == 7


async def test_what_is_held_for_long_is_never_all_with_one_tenant_nor_two() -> None:
    queue = ReservingQueue(range(8))
    held: dict[str, list[int]] = {"a": [], "b": [], "c": [], "d": []}
    waiting: list[asyncio.Task[None]] = []

    async def ask(group: str) -> None:
        held[group].append(await queue.acquire(group, "s"))

    async def ask_often(group: str) -> None:
        waiting.extend(asyncio.create_task(ask(group)) for _ in range(9))
        await asyncio.sleep(0)

    for group in held:
        await ask_often(group)
    assert {group: len(things) for group, things in held.items()} == {"a": 4, "b": 2, "c": 1, "d": 1}
    # What the first gives back goes to those who have less than it.
    for _ in range(2):
        queue.release(held["a"].pop())
        await asyncio.sleep(0)
    assert {group: len(things) for group, things in held.items()} == {"a": 2, "b": 2, "c": 2, "d": 1}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for things in held.values():
        for thing in things:
            queue.release(thing)
    assert [await queue.acquire("e", "s") for _ in range(4)]


async def test_a_thing_is_wanted_by_groups_that_have_fewer_and_might_have_it() -> None:
    queue = ReservingQueue(range(4))
    things = {group: await queue.acquire(group, "s") for group in "abc"}
    await queue.acquire("d", "s")
    assert not any(map(queue.is_wanted, "abcd"))
    own = asyncio.create_task(queue.acquire("a", "another"))
    await asyncio.sleep(0)
    assert not any(map(queue.is_wanted, "abcd"))
    new = asyncio.create_task(queue.acquire("e", "s"))
    await asyncio.sleep(0)
    assert all(map(queue.is_wanted, "abcd"))
    queue.release(things["b"])
    await new
    assert not any(map(queue.is_wanted, "acde"))
    own.cancel()
