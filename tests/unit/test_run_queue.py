"""Whose turn it is among runs, and who may wait for one."""

import asyncio
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

import pytest
from harness.watch import until
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import DrainingError, OverloadedError
from headrace_server.rpc.run_queue import Place, RunQueue


@dataclass
class _Runs:
    """Runs that enter a queue and stay there until they are told to leave; which began, in order."""

    queue: RunQueue
    begun: list[str] = field(default_factory=list)
    told: dict[str, list[int]] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    ends: dict[str, asyncio.Event] = field(default_factory=dict)

    async def come(self, *names: str) -> None:
        """Has runs come one after the other; a name begins with its tenant's letter."""
        for name in names:
            self.told[name], self.ends[name] = [], asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._stay(name))
            await _rest()

    async def end(self, *names: str) -> None:
        """Has runs that are under way end, one after the other."""
        for name in names:
            assert name in self.begun
            self.ends[name].set()
            await self.tasks[name]
            await _rest()

    async def cancel(self, name: str) -> None:
        """Cancels a run, wherever it stands."""
        self.tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.tasks[name]
        await _rest()

    async def _stay(self, name: str) -> None:
        with self.queue.enter(name[0]) as place:
            await place.turn(self.told[name].append)
            self.begun.append(name)
            await self.ends[name].wait()


async def _rest() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_beyond_its_limit_a_tenant_waits_in_the_order_in_which_it_came() -> None:
    runs = _Runs(RunQueue(10, 2, 10, 10))
    await runs.come("a1", "a2", "a3", "a4", "a5")
    assert runs.begun == ["a1", "a2"]
    assert [runs.told[name] for name in ("a1", "a3", "a4", "a5")] == [[], [1], [2], [3]]
    await runs.end("a2", "a1", "a3", "a4")
    assert runs.begun == ["a1", "a2", "a3", "a4", "a5"]
    assert runs.told["a5"] == [3, 2, 1]
    await runs.end("a5")
    assert (runs.queue.held, runs.queue.waiting) == (0, 0)


async def test_a_place_that_comes_free_is_for_the_tenant_with_the_fewest_runs() -> None:
    runs = _Runs(RunQueue(4, 4, 20, 20))
    # Each has one more only while more are free than it has: the last place is for another tenant.
    await runs.come("a1", "a2", "a3", "b1", "b2", "c1")
    assert runs.begun == ["a1", "a2", "b1", "c1"]
    await runs.end("c1")
    assert runs.begun[4:] == []  # One free, and of both one is under way at least.
    await runs.end("a1")
    assert runs.begun[4:] == ["a3"]
    await runs.end("b1", "a2")
    assert runs.begun[4:] == ["a3", "b2"]


async def test_tenants_take_turns_however_many_runs_each_of_them_has_waiting() -> None:
    runs = _Runs(RunQueue(1, 1, 20, 20))
    await runs.come("a0", "a1", "a2", "a3", "b1", "b2", "c1")
    for _ in range(6):
        await runs.end(runs.begun[-1])
    assert runs.begun == ["a0", "a1", "b1", "c1", "a2", "b2", "a3"]


async def test_one_that_comes_late_waits_for_one_turn_and_not_for_all_who_were_before() -> None:
    runs = _Runs(RunQueue(1, 1, 64, 64))
    await runs.come(*(f"a{number}" for number in range(20)), "b1")
    await runs.end("a0", "a1")
    assert runs.begun[-1] == "b1"


async def test_a_run_that_gives_up_waiting_is_gone_at_once_and_those_behind_it_move_up() -> None:
    runs = _Runs(RunQueue(1, 1, 3, 3))
    await runs.come("a0", "a1", "a2")
    await runs.cancel("a1")
    assert runs.told["a2"] == [2, 1]
    assert runs.queue.waiting == 1
    await runs.come("a3")
    await runs.end("a0")
    assert runs.begun == ["a0", "a2"]


async def test_one_that_gives_up_just_when_its_turn_comes_leaves_it_to_the_next() -> None:
    runs = _Runs(RunQueue(1, 1, 3, 3))
    await runs.come("a0", "a1", "a2")
    runs.ends["a0"].set()
    await asyncio.sleep(0)  # It has ended, and who is next has not yet heard.
    await runs.cancel("a1")
    assert runs.begun == ["a0", "a2"]


async def test_more_may_not_wait_than_the_tenant_and_the_server_may_have() -> None:
    queue = RunQueue(1, 1, 4, 2)
    with ExitStack() as held:
        held.enter_context(queue.enter("a"))
        for tenant in ("a", "a", "b"):
            assert not held.enter_context(queue.enter(tenant)).is_held
        for tenant, told, limit in (
            ("a", "Tenant a has 2 runs queued, the most it may have at once; wait until one has ended.", "2"),
            ("b", "Tenant b has 1 run queued and may have no more while only 1 place is left, which is", "1"),
        ):
            with pytest.raises(OverloadedError, match=told) as caught:
                held.enter_context(queue.enter(tenant))
            assert caught.value.attributes == {"limit": limit, "what": "queued runs"}
        held.enter_context(queue.enter("c"))
        with pytest.raises(OverloadedError, match="The server has 4 runs queued"):
            held.enter_context(queue.enter("d"))
    assert (queue.held, queue.waiting) == (0, 0)


@pytest.mark.parametrize("waiting", [(0, 0), (0, 4), (4, 0)])
async def test_where_none_may_wait_one_too_many_is_refused_by_the_limit_of_runs(
    waiting: tuple[int, int],
) -> None:
    queue = RunQueue(5, 2, *waiting)
    with ExitStack() as held:

        def refusal(tenant: str) -> tuple[str, dict[str, str]]:
            with pytest.raises(OverloadedError) as caught:
                held.enter_context(queue.enter(tenant))
            return caught.value.message, caught.value.attributes

        for tenant in "aab":
            held.enter_context(queue.enter(tenant))
        full = "the most it may have at once; wait until one has ended."
        assert refusal("a") == (f"Tenant a has 2 runs under way, {full}", {"limit": "2", "what": "runs"})
        held.enter_context(queue.enter("c"))
        share = "Tenant c has 1 run under way and may have no more while only 1 place is left, which is kept"
        assert refusal("c") == (
            f"{share} for others; wait until one has ended.",
            {"limit": "1", "what": "runs"},
        )
        held.enter_context(queue.enter("d"))
        assert refusal("e") == (f"The server has 5 runs under way, {full}", {"limit": "5", "what": "runs"})


async def test_all_who_wait_are_told_when_the_server_stops() -> None:
    queue = RunQueue(1, 1, 8, 8)

    async def wait(place: AbstractContextManager[Place]) -> None:
        with place as entered:
            await entered.turn(lambda _: None)

    with queue.enter("a"):
        tasks = [asyncio.create_task(wait(queue.enter(tenant))) for tenant in "ab"]
        await until(lambda: queue.waiting == 2)
        queue.close(lambda: DrainingError("It stops."))
        for task in tasks:
            with pytest.raises(DrainingError):
                await task
        assert queue.waiting == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
async def test_whatever_comes_and_goes_no_limit_is_passed_and_no_place_lost(
    steps: list[tuple[str, bool]],
) -> None:
    queue, entered = RunQueue(4, 2, 6, 3), list[tuple[str, Place, ExitStack]]()
    for tenant, comes in steps:
        if comes:
            held = ExitStack()
            try:
                entered.append((tenant, held.enter_context(queue.enter(tenant)), held))
            except OverloadedError:
                assert queue.waiting > 0
        elif entered:
            entered.pop(ord(tenant) % len(entered))[2].close()
        under_way = [of for of, place, _ in entered if place.is_held]
        assert queue.held == len(under_way) <= 4
        assert queue.waiting == len(entered) - len(under_way) <= 6
        assert all(under_way.count(each) <= 2 for each in "abc")
        # Within a tenant nobody overtakes.
        for each in "abc":
            kept = [place.is_held for of, place, _ in entered if of == each]
            assert kept == sorted(kept, reverse=True)
        # Nobody waits who may begin.
        free = 4 - queue.held
        for of, place, _ in entered:
            assert place.is_held or under_way.count(of) >= min(2, free)
