"""Decoders that have nothing to do: kept while more may come, not for ever."""

import asyncio

from headrace_compute.workers.decoders import Spares


async def test_spares_are_kept_for_a_time_and_one_for_good() -> None:
    ended: list[str] = []
    spares = Spares(ended.append, 0.05)
    for name in "abc":
        spares.put(name)
    assert spares.take() == "c"
    assert (len(spares), ended) == (2, [])
    await asyncio.sleep(0.1)
    assert (len(spares), ended) == (1, ["a"])
    spares.put("c")
    assert spares.take() == "c"
    assert spares.take() == "b"
    assert spares.take() is None


async def test_what_is_used_again_is_young_again() -> None:
    ended: list[str] = []
    spares = Spares(ended.append, 0.2)
    spares.put("a")
    spares.put("b")
    await asyncio.sleep(0.15)
    assert spares.take() == "b"
    spares.put("b")
    await asyncio.sleep(0.1)
    assert ended == ["a"]
