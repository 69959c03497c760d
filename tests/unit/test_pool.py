"""The pool over workers that die, are lost with their nodes, or never come: the actors are pretended."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from harness.watch import until

from headrace_compute.errors import ComputeUnavailableError, PoisonBlockError, StoreUnavailableError
from headrace_compute.model import StoreConfig
from headrace_compute.workers.cluster import ClusterError, NodeAddress, ray_errors, versions
from headrace_compute.workers.pool import ATTEMPTS, LOSSES, Pool

Run = Callable[..., Any]


def stage(*_: Any) -> Any:
    """What fake workers pretend to run."""


def _method(call: Callable[..., Any]) -> SimpleNamespace:
    """A method of an actor."""
    return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=call))


class FakeWorkers:
    """Actors by number; `run` says what comes of a stage, or raises."""

    def __init__(self) -> None:
        self.run: Run = lambda number, *args: number
        self.node = "node"
        self.versions = versions()
        self.returns = asyncio.Event()
        self.returns.set()
        self.started = 0
        self.calls: list[int] = []
        self.killed: list[Any] = []

    def options(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(remote=self._start)

    def _start(self, *_: Any) -> Any:
        number, self.started = self.started, self.started + 1
        return SimpleNamespace(
            warm=SimpleNamespace(remote=self._warm),
            run=_method(lambda *args: self._result(number, *args)),
            hold=_method(lambda *args: (f"ref-{len(self.calls)}", self._result(number, *args))),
        )

    async def _warm(self) -> dict[str, str]:
        await self.returns.wait()
        return {**self.versions, "node": self.node, "address": "10.0.0.7"}

    def _result(self, number: int, _: Any, *args: Any) -> Any:
        self.calls.append(number)
        done: Future[Any] = Future()
        try:
            done.set_result(self.run(number, *args))
        except Exception as error:
            done.set_exception(error)
        return SimpleNamespace(future=lambda: done)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    made = FakeWorkers()
    monkeypatch.setattr("headrace_compute.workers.pool.Worker", made)
    monkeypatch.setattr("headrace_compute.workers.roster.ray.kill", made.killed.append)
    monkeypatch.setattr("headrace_compute.workers.roster.nodes", dict)
    return made


def unreachable() -> NodeAddress:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    return host, port


def dies(*_: Any) -> Any:
    raise ray_errors.RayActorError


async def test_a_stage_whose_worker_dies_goes_to_another_which_waits_for_nobody(workers: FakeWorkers) -> None:
    pool = Pool(StoreConfig(""), workers=2)
    await pool.open()
    await until(lambda: pool.strength().live == 2)
    workers.returns.clear()  # Who dies stays away.
    workers.run = lambda number, *_: dies() if number == 0 else "done"
    assert [await pool.run(stage) for _ in range(3)] == ["done"] * 3
    assert workers.calls == [0, 1, 1, 1]
    assert (pool.strength().live, pool.strength().lost) == (1, 1)
    workers.returns.set()
    await until(lambda: pool.strength().live == 2)
    assert pool.strength().returns == 1


async def test_workers_of_another_version_get_no_work_and_a_start_on_them_alone_is_refused(
    workers: FakeWorkers,
) -> None:
    workers.versions = {**versions(), "headrace-compute": "0.0.1"}
    with pytest.raises(
        ClusterError, match=r"10\.0\.0\.7 has headrace-compute 0\.0\.1, this server headrace-"
    ):
        await Pool(StoreConfig(""), workers=2).open()
    assert len(workers.killed) == 2


async def test_a_start_does_not_wait_for_ever_for_workers_and_says_what_they_lack(
    workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_compute.workers.placement.resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr("headrace_compute.workers.placement.free_cpus", lambda: 0.5)
    workers.returns.clear()
    with pytest.raises(ClusterError) as raised:
        await Pool(StoreConfig(""), workers=2).open(0.1)
    assert str(raised.value) == (
        "Waited 0.1 s for workers. 0 of 2 workers ready: the cluster has 0.5 of 4 CPUs free, and a worker "
        "takes 1; lower HEADRACE_WORKERS or HEADRACE_WORKER_CPUS, or add a node."
    )


async def test_an_input_that_ends_its_workers_is_poison(workers: FakeWorkers) -> None:
    pool = Pool(StoreConfig(""), workers=2)
    await pool.open()
    workers.run = dies
    with pytest.raises(PoisonBlockError):
        await pool.executor("tenant", "upload").run(stage)
    assert len(workers.calls) == ATTEMPTS


async def test_input_of_several_callers_counts_as_poison_at_once_and_suspends_nobody(
    workers: FakeWorkers,
) -> None:
    pool = Pool(StoreConfig(""), workers=2)
    await pool.open()
    workers.run = dies
    with pytest.raises(PoisonBlockError):
        await pool.executor("tenant", "group", attempts=1).run(stage)
    assert len(workers.calls) == 1
    pool.quarantine.check("tenant")


async def test_no_input_is_blamed_for_the_loss_of_a_node(
    workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_compute.workers.roster.nodes", lambda: {"node": unreachable()})
    pool = Pool(StoreConfig(""), workers=1)
    await pool.open()
    workers.run = dies
    with pytest.raises(ComputeUnavailableError):
        await pool.executor("tenant", "upload").run(stage)
    assert len(workers.calls) == LOSSES > ATTEMPTS
    pool.quarantine.check("tenant")


async def test_who_is_idle_on_a_lost_node_gets_no_work(
    workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_compute.workers.roster.nodes", lambda: {"node": unreachable()})
    pool = Pool(StoreConfig(""), workers=3)
    await pool.open()
    await until(lambda: pool.strength().idle == 3)
    workers.returns.clear()
    workers.run = dies
    running = asyncio.create_task(pool.run(stage))
    await until(lambda: pool.strength().lost == 3)
    assert len(workers.calls) == 1
    workers.run = lambda *_: "done"
    workers.returns.set()
    assert await running == "done"


async def test_where_no_worker_is_left_those_who_wait_are_told(
    workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_compute.workers.roster.DESERTED_SECONDS", 0.05)
    pool = Pool(StoreConfig(""), workers=1)
    await pool.open()
    workers.returns.clear()
    workers.run = dies
    with pytest.raises(ComputeUnavailableError, match="no worker"):
        await asyncio.gather(pool.run(stage), pool.run(stage))
    workers.run = lambda *_: "done"
    workers.returns.set()
    await until(lambda: pool.strength().live == 1)
    assert await pool.run(stage) == "done"


async def test_a_held_result_that_was_lost_is_made_again_once(workers: FakeWorkers) -> None:
    pool = Pool(StoreConfig(""), workers=1)
    await pool.open()
    held = await pool.hold(stage)
    lost = held.ref

    def use(_: int, *args: Any) -> Any:
        if args == (lost,):
            raise ray_errors.ObjectLostError("0" * 40, b"", "")
        return args

    workers.run = use
    found = await asyncio.gather(pool.run(stage, held), pool.run(stage, held))
    assert list(found) == [(held.ref,)] * 2
    assert held.ref != lost
    # Made, used by one or by both in vain, made again, used by both.
    assert len(workers.calls) in (5, 6)


async def test_stages_of_a_run_wait_for_a_store_that_is_away_for_a_while(
    workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_compute.workers.pool.STORE_PAUSE_SECONDS", (0.001, 0.01))
    pool = Pool(StoreConfig(""), workers=1)
    await pool.open()
    failures = iter([True] * 3)

    def away(*_: Any) -> Any:
        if next(failures, False):
            cause = StoreUnavailableError("The store is away.")
            raise ray_errors.RayTaskError("stage", "", cause)  # type: ignore[no-untyped-call]
        return "done"

    workers.run = away
    assert await pool.run_executor("tenant", "run").run(stage) == "done"
    assert len(workers.calls) == 4

    monkeypatch.setattr("headrace_compute.workers.pool.STORE_PATIENCE_SECONDS", 0.05)
    failures = iter([True] * 1_000_000)
    with pytest.raises(StoreUnavailableError):
        await pool.run_executor("tenant", "run").run(stage)
    with pytest.raises(StoreUnavailableError):
        await pool.executor("tenant", "upload").run(stage)


async def test_a_pool_follows_the_cluster_and_busy_workers_leave_when_they_are_done(
    workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = {"node": 3.0}
    monkeypatch.setattr("headrace_compute.workers.placement.cpus_at", lambda _: cpus)
    monkeypatch.setattr("headrace_compute.workers.pool.FOLLOW_SECONDS", 0.01)
    pool = Pool(StoreConfig(""), cpus=0.5, max_workers=5)
    await pool.open()
    following = asyncio.create_task(pool.follow())
    await until(lambda: pool.strength().live == 5)
    result: Future[str] = Future()
    monkeypatch.setattr(workers, "_result", lambda *_: SimpleNamespace(future=lambda: result))
    running = asyncio.create_task(pool.run(stage))
    await until(lambda: pool.strength().busy == 1)
    cpus["node"] = 0.0
    await until(lambda: pool.strength().wanted == 1)
    result.set_result("done")
    assert await running == "done"
    await until(lambda: len(workers.killed) == 4)
    assert pool.strength().live == 1
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
