"""The journal of a run: who owns it, how it ends, and what a keeper makes of one that stands still."""

import asyncio
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from harness.watch import until

from headrace.v1 import run_pb2
from headrace_compute.errors import PoisonBlockError, RunFinishedError, StoreFullError, StoreUnavailableError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.workers.pool import Pool
from headrace_server import dead
from headrace_server.events.relay_process import RelayProcess
from headrace_server.maintenance import Maintenance
from headrace_server.runs import finish, journals, keeper, registry, tenure
from headrace_server.runs.journals import JournaledRun, OvertakenError
from headrace_server.runs.keeper import DEATHS, Keeper, asked_of
from headrace_server.runs.live import LiveRun, LiveRuns
from headrace_server.runs.registry import RunEntry
from headrace_server.runs.service import Runs
from headrace_server.runs.tenure import Tenure
from headrace_server.services import Services
from headrace_server.settings import Settings

REQUEST = "123e4567-e89b-42d3-a456-426614174000"
KEY = "features/t/user_features"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    settings = Settings(_env_file=None, data_dir=tmp_path)  # type: ignore[call-arg]
    none = cast(Any, None)
    maintenance = Maintenance(cast(Pool, none), "test")
    return Services(settings, settings.store(), cast(Pool, none), cast(RelayProcess, none), maintenance)


@pytest.fixture
def config(services: Services) -> StoreConfig:
    return services.config


def _run(started_us: int = 1_000_000, request_id: str = REQUEST, attempt: str = "a") -> JournaledRun:
    request = run_pb2.ComputeFeaturesRequest(tenant_id="t", request_id=request_id, interactions_version=3)
    asked = asked_of(request)
    assert asked == {"interactions_version": "3"}
    return JournaledRun("t", request_id, "r", "features", asked, asked, True, started_us, (attempt,))


def _created(config: StoreConfig, **fields: Any) -> JournaledRun:
    run = _run(**fields)
    journals.create(config, run)
    assert journals.load(config, "t", run.request_id) == run
    return run


def _load(config: StoreConfig, request_id: str = REQUEST) -> JournaledRun:
    run = journals.load(config, "t", request_id)
    assert run is not None
    return run


def _commit(attempt: str) -> dict[str, Any]:
    return {"attempt": attempt, "tables": [{"key": KEY}], "lineage": {}, "result": {}}


def _keys(config: StoreConfig) -> list[str]:
    return list(open_store(config).list("raw-data/_headrace"))


def test_of_two_that_take_a_run_up_one_owns_it_and_those_before_it_can_append_nothing(
    config: StoreConfig,
) -> None:
    first = _created(config)
    seen = _load(config)
    second = journals.take_up(config, seen, "b")
    with pytest.raises(OvertakenError):
        journals.take_up(config, seen, "c")
    for kind, body in (("alive", {"attempt": "a", "progress": ["", 0, 0]}), ("commit", _commit("a"))):
        with pytest.raises(OvertakenError):
            journals.append(config, first, kind, body)
    assert _load(config) == second
    assert (second.attempts, second.deaths) == (("a", "b"), 1)


def test_an_id_that_has_a_run_gets_no_second_one(config: StoreConfig) -> None:
    first = _created(config)
    with pytest.raises(OvertakenError):
        journals.create(config, _run(started_us=2_000_000, attempt="b"))
    assert _load(config) == first
    assert len(journals.listed_runs(config).of_tenant("t")) == 1
    assert list(journals.open_runs(config).entries()) == [("t", REQUEST)]


def test_a_run_that_is_to_stop_cannot_commit_and_one_that_has_committed_cannot_stop(
    config: StoreConfig,
) -> None:
    owned = _created(config)
    asked = journals.ask_to_stop(config, owned)
    assert journals.ask_to_stop(config, owned) == asked
    with pytest.raises(OvertakenError):
        journals.append(config, owned, "commit", _commit("a"))
    journals.end(config, asked, "cancelled", {})
    assert journals.ask_to_stop(config, _load(config)).is_cancelled
    assert list(journals.open_runs(config).entries()) == []

    other = _created(config, request_id=REQUEST.replace("1", "2"))
    journals.append(config, other, "commit", _commit("a"))
    with pytest.raises(RunFinishedError):
        journals.ask_to_stop(config, other)


def test_a_failure_that_may_pass_lets_the_run_begin_again(config: StoreConfig) -> None:
    failure = {"reason": StoreFullError.reason, "message": "Full.", "attributes": {}}
    failed = journals.end(config, _created(config), "failed", {"failure": failure})
    assert failed.is_over
    assert failed.may_begin_again
    again = journals.take_up(config, failed, "b")
    assert (again.is_over, again.failure, again.deaths) == (False, None, 0)
    assert list(journals.open_runs(config).entries()) == [("t", REQUEST)]
    poison = {"reason": PoisonBlockError.reason, "message": "Poison.", "attributes": {}}
    ended = journals.end(config, again, "failed", {"failure": poison})
    assert not ended.may_begin_again
    with pytest.raises(PoisonBlockError, match="Poison"):
        raise journals.ending(ended)


def test_attempts_that_say_why_they_leave_are_no_deaths(config: StoreConfig) -> None:
    run = _created(config)
    for attempt in "bc":
        run = journals.append(config, run, "rest", {"reason": "DRAINING"})
        assert run.left == "DRAINING"
        run = journals.take_up(config, run, attempt)
        assert (run.left, run.deaths) == ("", 0)


async def test_an_owner_tells_that_it_lives_in_a_bounded_number_of_records(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenure, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(tenure, "ALIVE_SECONDS", 0.02)
    run = _created(config)
    live = LiveRun("t", "features", "r", REQUEST, 0)
    live.report("users", 3, 7)
    held = Tenure(config, run, live)
    holding = asyncio.create_task(held.hold())
    await until(lambda: _load(config).next_seq > 10)
    assert _load(config).progress == ("users", 3, 7)
    assert len(list(journals.journal_of(config, "t", REQUEST).numbered())) <= 4
    # Whoever owned it before finds the next number taken all the same.
    journals.ask_to_stop(config, _load(config))
    with pytest.raises(OvertakenError):
        await holding
    with pytest.raises(OvertakenError):
        await held.append("commit", _commit("a"))


async def test_a_tenure_ends_when_the_outcome_is_fixed(config: StoreConfig) -> None:
    held = Tenure(config, _created(config), LiveRun("t", "features", "r", REQUEST, 0))
    await held.append("commit", _commit("a"))
    await asyncio.wait_for(held.hold(), 30)


async def test_a_run_that_ends_its_servers_is_given_up(services: Services) -> None:
    run = _created(services.config)
    for attempt in range(DEATHS):
        run = journals.take_up(services.config, run, f"b{attempt}")
    await Keeper(services, LiveRuns()).recover()
    failed = _load(services.config)
    assert failed.failure is not None
    assert failed.failure["reason"] == "POISON_BLOCK"
    assert list(journals.open_runs(services.config).entries()) == []


async def test_a_run_whose_servers_cannot_go_on_is_given_up_until_it_is_called_for(
    services: Services,
) -> None:
    config = services.config
    run = _created(config)
    for attempt in range(DEATHS + 1):
        run = journals.append(config, run, "rest", {"reason": StoreUnavailableError.reason})
        if attempt < DEATHS:
            run = journals.take_up(config, run, f"b{attempt}")
    await Keeper(services, LiveRuns()).recover()
    with pytest.raises(StoreUnavailableError, match="call again"):
        raise journals.ending(_load(config))
    assert _load(config).may_begin_again


def _fill(services: Services, held: ExitStack) -> None:
    """Has the tenant as many runs under way as it may have."""
    for _ in range(services.settings.max_runs_per_tenant):
        assert held.enter_context(services.runs.enter("t")).is_held


async def test_runs_that_are_left_wait_for_their_turn_in_the_order_in_which_they_were_asked_for(
    services: Services,
) -> None:
    config, live = services.config, LiveRuns()
    keeper = Keeper(services, live)
    ids = [f"{number}{REQUEST[1:]}" for number in (3, 1, 2)]

    def load(request_id: str) -> JournaledRun:
        return _load(config, request_id)

    for started_us, request_id in enumerate(ids, 1):
        _created(config, started_us=started_us, request_id=request_id)
    with ExitStack() as held:
        _fill(services, held)
        await keeper.recover()
        await until(lambda: all(run.progress.queue_place for run in live.of_tenant("t")))
        assert [(run.request_id, run.progress.queue_place) for run in live.of_tenant("t")] == [
            (request_id, place) for place, request_id in enumerate(ids, 1)
        ]
        assert all((run.is_queued, run.begun, run.deaths) == (True, 1, 1) for run in map(load, ids))
        keeper.leave()
        await until(lambda: all(run.left == "DRAINING" for run in map(load, ids)))
        await until(lambda: services.runs.waiting == 0)


async def test_a_run_that_is_left_stays_so_where_no_more_may_wait(services: Services) -> None:
    services.settings.max_queued_runs = 0
    run = _created(services.config)
    with ExitStack() as held:
        _fill(services, held)
        await Keeper(services, LiveRuns()).recover()
        assert _load(services.config) == run


async def test_a_run_that_its_server_left_is_waiting_as_soon_as_that_is_known(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.settings.max_queued_runs = 0
    config, runs = services.config, Runs(services)

    async def state(of: Runs) -> str:
        (listed,) = (await of.list(run_pb2.ListRunsRequest(tenant_id="t"))).runs
        got = (await of.get(run_pb2.GetRunRequest(tenant_id="t", request_id=REQUEST))).run
        assert got == listed
        return run_pb2.RunState.Name(got.state).removeprefix("RUN_STATE_")

    run = _created(config)
    with ExitStack() as held:
        _fill(services, held)
        assert await state(runs) == "RUNNING"
        # Alone in its folder a server knows at once.
        await runs.keeper.recover()
        assert await state(runs) == "WAITING"
        # Another one watches whether something comes.
        other = Runs(services)
        watching = asyncio.create_task(other.keeper.watch())
        monkeypatch.setattr(keeper, "WATCH_SECONDS", 0.01)
        monkeypatch.setattr(keeper, "STILL_SECONDS", 0.2)
        run = journals.append(config, run, "alive", {"attempt": "a", "progress": ["read", 0, 0]})
        assert await state(other) == "RUNNING"
        while await state(other) != "WAITING":
            await asyncio.sleep(0.02)
        journals.append(config, run, "alive", {"attempt": "a", "progress": ["read", 1, 2]})
        assert await state(other) == "RUNNING"
        watching.cancel()


async def test_a_run_that_waits_here_is_cancelled_at_once(services: Services) -> None:
    config, keeper = services.config, Keeper(services, LiveRuns())
    _created(config)
    with ExitStack() as held:
        _fill(services, held)
        await keeper.recover()
        await keeper.stop(journals.ask_to_stop(config, _load(config)))
        # Long before its next record would be due.
        await until(lambda: _load(config).is_cancelled, tenure.ALIVE_SECONDS / 2)
        await until(lambda: services.runs.waiting == 0)


def test_an_attempt_that_waits_is_none_until_its_turn_comes(config: StoreConfig) -> None:
    run = replace(_run(), is_queued=True, begun=0)
    journals.create(config, run)
    assert _load(config) == run
    # Its server dies, and the next one has no place for it either, but the one after that.
    run = journals.take_up(config, run, "b", queued=True)
    assert (run.attempts, run.begun, run.is_queued, run.deaths) == (("a", "b"), 0, True, 0)
    waits = {"attempt": "b", "progress": ["queued", 0, 0], "queue_place": 3}
    run = journals.append(config, run, "alive", waits)
    assert run.queue_place == 3
    run = journals.take_up(config, run, "c", queued=True)
    run = journals.append(config, run, "epoch", {"attempt": "c"})
    assert (run.attempts, run.begun, run.is_queued, run.deaths) == (("a", "b", "c"), 1, False, 0)
    # From here on a death is one.
    run = journals.take_up(config, run, "d", queued=True)
    assert (run.attempts, run.begun, run.deaths) == (("a", "b", "c", "d"), 1, 1)
    assert _load(config) == run


async def test_who_asks_for_the_end_of_a_run_that_nobody_has_gets_it(services: Services) -> None:
    config = services.config
    run = _created(config)
    registry.add(config, RunEntry("t", "a", {KEY: "user_features"}, "r", REQUEST))
    open_store(config).create(f"{KEY}/a-0.parquet", b"part")
    await Keeper(services, LiveRuns()).stop(journals.ask_to_stop(config, run))
    assert _load(config).is_cancelled
    assert not open_store(config).exists(f"{KEY}/a-0.parquet")


async def test_an_entry_without_a_run_and_one_of_a_run_that_is_over_go(services: Services) -> None:
    config = services.config
    ended = journals.end(config, _created(config), "cancelled", {})
    index = journals.open_runs(config)
    index.add("t", ended.request_id)
    index.add("t", REQUEST.replace("1", "2"))
    await Keeper(services, LiveRuns()).recover()
    assert list(index.entries()) == []


async def test_parts_that_a_journal_names_are_not_swept_until_the_run_is_over(config: StoreConfig) -> None:
    run, store = _created(config), open_store(config)
    for attempt in "ab":
        registry.add(config, RunEntry("t", attempt, {KEY: "user_features"}, "r", REQUEST))
        store.create(f"{KEY}/{attempt}-0.parquet", b"part")
    run = journals.append(config, journals.take_up(config, run, "b"), "commit", _commit("b"))
    await dead.clear_dead(config)
    assert store.children(KEY) == ["b-0.parquet"]
    assert [registry.read(config, key).attempt for key in registry.entries(config)] == ["b"]
    failure = {"reason": "PART_LOST", "message": "Lost.", "attributes": {}}
    journals.end(config, run, "failed", {"failure": failure})
    await dead.clear_dead(config)
    assert store.children(KEY) == []


async def test_an_end_loses_against_another_attempt_and_gives_way_to_a_cancellation(
    services: Services,
) -> None:
    config = services.config
    run = _created(config)
    newer = journals.take_up(config, run, "b")
    assert await finish.fail(services, run, PoisonBlockError("Poison.")) == newer
    journals.ask_to_stop(config, newer)
    ended = await finish.fail(services, newer, PoisonBlockError("Poison."))
    assert ended is not None
    assert (ended.is_cancelled, ended.failure) == (True, None)


def test_runs_are_listed_the_newest_first(config: StoreConfig) -> None:
    ids = [f"{n}23e4567-e89b-42d3-a456-426614174000" for n in (3, 1, 2)]
    for started_us, request_id in enumerate(ids, 1_700_000_000_000_000):
        _created(config, started_us=started_us, request_id=request_id)
    names = journals.listed_runs(config).of_tenant("t")
    assert [name.partition("-")[2] for name in names] == ids[::-1]


def test_a_run_that_ended_long_ago_is_forgotten_and_its_id_free(config: StoreConfig, tmp_path: Path) -> None:
    run = journals.append(config, _created(config), "alive", {"attempt": "a", "progress": ["", 0, 0]})
    (name,) = journals.listed_runs(config).of_tenant("t")
    assert not journals.forget(config, "t", name, 0.0)  # It is not over.
    journals.end(config, run, "done", {"result": {}})
    assert not journals.forget(config, "t", name, 60.0)
    then = time.time() - 61
    for path in tmp_path.rglob("*"):
        os.utime(path, (then, then))
    assert journals.forget(config, "t", name, 60.0)
    assert _keys(config) == []
    assert _created(config, started_us=5).next_seq == 1


def test_what_is_left_of_a_forgotten_run_is_none_and_in_nobodys_way(config: StoreConfig) -> None:
    journals.end(config, _created(config), "done", {"result": {}})
    journal = journals.journal_of(config, "t", REQUEST)
    open_store(config).delete(journal.key(0))  # Its deletion died here.
    assert journals.load(config, "t", REQUEST) is None
    again = _created(config, started_us=7)
    assert not again.is_over
    assert [seq for seq, _ in journal.numbered()] == [0]
