"""How a run may end, without a server: its workers are pretended."""

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from harness.watch import until

from headrace_compute.delta import tables
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part
from headrace_compute.workers.pool import Pool, RunExecutor
from headrace_server.events.relay_process import RelayProcess
from headrace_server.maintenance import Maintenance
from headrace_server.runs import registry
from headrace_server.runs.job import MadeTable
from headrace_server.runs.registry import entry_of
from headrace_server.runs.run import Run, begun
from headrace_server.services import Services
from headrace_server.settings import Settings

ROWS = pa.table({"user_id": ["u"], "bucket": pa.array([3], pa.int16())})
KEY = "features/t/user_features"
ENTRY = entry_of("t", "a" * 32, {KEY: "user_features"})


class _NoRelay:
    def notify(self, tenant: str, table: str) -> None: ...


@pytest.fixture
def services(tmp_path: Path) -> Services:
    settings = Settings(_env_file=None, data_dir=tmp_path)  # type: ignore[call-arg]
    none, relay = cast(Pool, None), cast(RelayProcess, _NoRelay())
    return Services(settings, settings.store(), none, relay, Maintenance(none, "test"))


class _Workers:
    """What a run asks of its executor when it ends."""

    def __init__(self) -> None:
        self.busy = asyncio.Event()

    async def ended(self) -> None:
        await self.busy.wait()


def _write(services: Services, run: Run) -> Any:
    return write_part(open_store(services.config), f"{run.part_prefix(KEY)}0.parquet", ROWS)


def _parts(services: Services) -> list[str]:
    return [name for name in open_store(services.config).children(KEY) if name[0] != "_"]


async def test_a_cancelled_run_is_cleared_once_its_workers_have_ended(services: Services) -> None:
    workers, written = _Workers(), asyncio.Event()

    async def work() -> None:
        async with begun(services, cast(RunExecutor, workers), ENTRY) as run:
            _write(services, run)
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await written.wait()
    task.cancel()
    await asyncio.sleep(0.1)
    assert len(_parts(services)) == 1
    task.cancel()  # Who is cancelled twice does not wait, but it is cleared all the same.
    await asyncio.gather(task, return_exceptions=True)
    workers.busy.set()
    await services.settled(30)
    assert _parts(services) == []
    assert list(registry.entries(services.config)) == []


async def test_a_commit_that_has_begun_is_not_lost_to_a_cancellation(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, begin, go_on = _Workers(), threading.Event(), threading.Event()
    workers.busy.set()
    commit = tables.commit

    def slow(*args: Any, **kwargs: Any) -> int:
        begin.set()
        go_on.wait(30)
        return commit(*args, **kwargs)

    monkeypatch.setattr(tables, "commit", slow)
    monkeypatch.setattr(Maintenance, "committed", lambda *args: None)

    async def work() -> None:
        async with begun(services, cast(RunExecutor, workers), ENTRY) as run:
            await run.commit(MadeTable(KEY, "user_features", ROWS.schema, (_write(services, run),)), {})

    task = asyncio.create_task(work())
    await asyncio.to_thread(begin.wait, 30)
    task.cancel()
    go_on.set()
    await asyncio.gather(task, return_exceptions=True)
    await services.settled(30)
    assert tables.open_table(services.config, KEY).rows == len(_parts(services)) == 1
    assert list(registry.entries(services.config)) == []


class _Remote:
    """A method of an actor; each call gives the same reference."""

    def __init__(self, ref: Any) -> None:
        self._ref = ref
        self.calls = 0

    def options(self, **_: Any) -> "_Remote":
        return self

    def remote(self, *_: Any) -> Any:
        self.calls += 1
        return self._ref


async def _ready() -> dict[str, str]:
    return {"node": "a node"}


async def test_a_stage_that_its_run_gives_up_is_cancelled_and_its_worker_comes_back_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_up: list[Any] = []
    stage_ends: Future[int] = Future()
    result = SimpleNamespace(future=lambda: stage_ends)
    worker = SimpleNamespace(warm=_Remote(_ready()), run=_Remote(result))
    monkeypatch.setattr("headrace_compute.workers.pool.Worker.options", lambda **_: _Remote(worker))
    monkeypatch.setattr("headrace_compute.workers.pool.ray.cancel", given_up.append)
    pool = Pool(StoreConfig(""), workers=1)
    await pool.open()
    executor = pool.run_executor("t", "r")
    first = asyncio.create_task(executor.run(lambda config: 1))
    await until(lambda: worker.run.calls == 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await until(lambda: given_up == [result])
    ended = asyncio.create_task(executor.ended())
    second = asyncio.create_task(pool.run(lambda config: 2))
    await asyncio.sleep(0.05)
    assert not ended.done()
    assert worker.run.calls == 1
    stage_ends.set_result(1)
    assert await asyncio.wait_for(second, 30) == 1
    assert worker.run.calls == 2
    await asyncio.wait_for(ended, 30)
