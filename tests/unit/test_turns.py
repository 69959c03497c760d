"""Whose turn it is when many want what few can have."""

import asyncio
from collections import Counter

from headrace_compute.turns import Turns


async def _order(turns: Turns[int], wanted: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Who is served, in order, when all ask in the order given while everything is taken."""
    things = [await turns.take("", "") for _ in range(1)]
    served: list[tuple[str, str]] = []

    async def ask(group: str, member: str) -> None:
        thing = await turns.take(group, member)
        served.append((group, member))
        turns.give_back(thing)

    tasks = []
    for group, member in wanted:
        tasks.append(asyncio.create_task(ask(group, member)))
        await asyncio.sleep(0)
    for thing in things:
        turns.give_back(thing)
    await asyncio.gather(*tasks)
    return served


async def test_what_is_free_is_handed_out_at_once() -> None:
    turns = Turns("ab")
    assert {await turns.take("t", "s"), await turns.take("t", "s")} == {"a", "b"}


async def test_a_tenant_with_fifty_streams_does_not_starve_anothers_single_one() -> None:
    many = [("big", f"s{stream}") for _ in range(3) for stream in range(50)]
    served = await _order(Turns([0]), [*many, *[("small", "only")] * 10])
    last = max(place for place, (group, _) in enumerate(served) if group == "small")
    # Though it asked last, each of its ten requests waited for one of the other's.
    assert Counter(group for group, _ in served[: last + 1])["big"] <= 11


async def test_streams_of_one_tenant_share_its_turns_alike() -> None:
    served = await _order(Turns([0]), [*[("t", "a")] * 6, *[("t", "b")] * 3])
    assert [member for _, member in served] == ["a", "b", "a", "b", "a", "b", "a", "a", "a"]


async def test_tenants_take_turns_however_many_they_are() -> None:
    wanted = [(f"t{tenant}", "s") for tenant in range(7) for _ in range(5)]
    served = await _order(Turns([0]), wanted)
    assert all(len({group for group, _ in served[i : i + 7]}) == 7 for i in range(0, 35, 7))


async def test_who_gives_up_waiting_loses_nothing_for_the_others() -> None:
    turns = Turns([7])
    thing = await turns.take("t", "holder")
    quitter = asyncio.create_task(turns.take("t", "quitter"))
    waiter = asyncio.create_task(turns.take("t", "waiter"))
    await asyncio.sleep(0)
    quitter.cancel()
    turns.give_back(thing)
    assert await waiter == 7
    turns.give_back(7)
    # And one that is handed the thing in the very moment in which it is cancelled.
    thing = await turns.take("t", "holder")
    late = asyncio.create_task(turns.take("t", "late"))
    await asyncio.sleep(0)
    turns.give_back(thing)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert await asyncio.wait_for(turns.take("t", "next"), 1) == 7
