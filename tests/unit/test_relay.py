"""The relay on real tables in a local folder, with a sink that can be told to fail."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from harness.watch import until

from headrace_compute.delta import maintenance as upkeep
from headrace_compute.delta import tables
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part
from headrace_server.events import feed, peers, relay, slots
from headrace_server.events.batch import EventBatch
from headrace_server.events.cursors import Cursor, Cursors
from headrace_server.events.feed import Feed
from headrace_server.events.options import EventOptions
from headrace_server.events.relay import Relay
from headrace_server.events.sink import UndeliveredError
from headrace_server.events.slots import AllSlots, LeasedSlots, slot_of

TOPICS = {
    "interactions": "raw",
    "items": "catalog",
    "user_features": "f",
    "item_features": "f",
    "training_data": "t",
}


class MemorySink:
    """Keeps what it is given; raises as often as it is told to, before or after keeping."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.failures: list[str] = []

    async def publish(self, topic: str, events: EventBatch) -> None:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "before":
            raise UndeliveredError("told to fail")
        self.events += [(topic, event_id) for event_id in events.ids.to_pylist()]
        if failure == "after":
            raise UndeliveredError("told to fail after delivery")

    async def connected(self) -> bool:
        return True

    async def close(self) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(root=str(tmp_path))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RETRY_SECONDS", (0.001, 0.01))
    monkeypatch.setattr(relay, "SCAN_SECONDS", 0.05)


def commit_rows(config: StoreConfig, upload: str, rows: int, tenant: str = "acme") -> int:
    """One version of interactions, in parts of at most 40,000 rows."""
    key = tables.interactions_key(config, tenant)
    parts = []
    for number, start in enumerate(range(0, rows, 40_000)):
        count = min(40_000, rows - start)
        table = pa.table(
            {
                "user_id": [f"u{row % 7}" for row in range(start, start + count)],
                "item_id": ["i"] * count,
                "interaction_type": ["view"] * count,
                "timestamp": pa.array([1_700_000_000_000_000] * count, pa.timestamp("us", "UTC")),
                "rating": pa.nulls(count, pa.float64()),
                "upload_id": [upload] * count,
                "row_number": pa.array(range(start, start + count), pa.int64()),
                "ingested_at": pa.array([1_700_000_000_000_000] * count, pa.timestamp("us", "UTC")),
                "bucket": pa.array([0] * count, pa.int16()),
            }
        )
        parts.append(
            write_part(open_store(config), f"{key}/{upload}-{number}.parquet", table, stats=("bucket",))
        )
    return tables.commit(
        config,
        key,
        kind="interactions",
        schema=tables.SCHEMAS["interactions"],
        parts=parts,
        transaction=upload,
        metadata={"headrace.upload_id": upload},
    )


async def relayed(
    config: StoreConfig,
    sink: MemorySink,
    options: EventOptions,
    until: Callable[[], Awaitable[None]] | None = None,
) -> Relay:
    """Runs a relay until it has nothing to do."""
    made = Relay(config, sink, Cursors(config, "test"), AllSlots(), options)
    running = asyncio.create_task(made.run())
    try:
        for tenant in tables.tenants(config):
            for table in tables.table_names(config, tenant):
                made.notify(tenant, table)
        async with asyncio.timeout(30):
            await made.drain()
            if until:
                await until()
                await made.drain()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return made


async def test_every_commit_is_told_once_and_in_order(config: StoreConfig) -> None:
    for upload in ("a", "b", "c"):
        commit_rows(config, upload, 3)
    sink = MemorySink()
    await relayed(config, sink, EventOptions(TOPICS))
    assert sink.events == [("raw", f"acme/interactions@{version}") for version in (1, 2, 3)]


async def test_rows_are_told_each_in_the_order_of_the_parts(config: StoreConfig) -> None:
    commit_rows(config, "a", 100_000)
    commit_rows(config, "b", 2)
    sink = MemorySink()
    made = await relayed(config, sink, EventOptions(TOPICS, rows="rows"))
    expected = [f"acme/a/{row}" for row in range(100_000)] + ["acme/b/0", "acme/b/1"]
    assert [event_id for _, event_id in sink.events] == expected
    assert made.counts.published == {"raw": 100_002}


async def test_a_second_relay_goes_on_where_the_first_stopped(config: StoreConfig) -> None:
    commit_rows(config, "a", 3)
    await relayed(config, MemorySink(), EventOptions(TOPICS, rows="rows"))
    commit_rows(config, "b", 1)
    sink = MemorySink()
    await relayed(config, sink, EventOptions(TOPICS, rows="rows"))
    assert sink.events == [("raw", "acme/b/0")]


@pytest.mark.parametrize("failure", ["before", "after"])
async def test_a_failing_sink_loses_nothing(config: StoreConfig, failure: str) -> None:
    commit_rows(config, "a", 100_000)
    commit_rows(config, "b", 5)
    sink = MemorySink()
    sink.failures = [failure, "", failure, failure]
    made = await relayed(config, sink, EventOptions(TOPICS, rows="rows"))
    ids = [event_id for _, event_id in sink.events]
    expected = [f"acme/a/{row}" for row in range(100_000)] + [f"acme/b/{row}" for row in range(5)]
    assert list(dict.fromkeys(ids)) == expected
    assert made.counts.retries == 3
    assert not made.failing
    assert (len(ids) == len(expected)) == (failure == "before")


async def test_a_relay_that_dies_mid_version_goes_on_in_it(config: StoreConfig) -> None:
    commit_rows(config, "a", 200_000)
    first = Feed(config, "acme", "interactions", Cursor(), EventOptions(TOPICS, rows="rows"))
    batch = await asyncio.to_thread(first.next)
    assert batch is not None
    assert batch.events is not None
    assert batch.after.groups > 0
    Cursors(config, "test").save("acme", "interactions", batch.after)
    sink = MemorySink()
    await relayed(config, sink, EventOptions(TOPICS, rows="rows"))
    ids = batch.events.ids.to_pylist() + [event_id for _, event_id in sink.events]
    assert ids == [f"acme/a/{row}" for row in range(200_000)]


async def test_many_small_commits_go_out_together(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        commit_rows(config, f"u{number}", 1)
    monkeypatch.setattr(feed, "MAX_BATCH_VERSIONS", 5)
    batches = Feed(config, "acme", "interactions", Cursor(), EventOptions(TOPICS, rows="rows"))
    found = [batch for _ in range(4) if (batch := batches.next())]
    assert [len(batch.events or ()) for batch in found] == [5, 5, 2]
    assert [batch.after for batch in found] == [Cursor(5), Cursor(10), Cursor(12)]


async def test_rows_that_were_compacted_before_they_were_told_are_told_once(config: StoreConfig) -> None:
    for number in range(20):
        commit_rows(config, f"u{number:02d}", 1)
    assert upkeep.compact(config, tables.interactions_key(config, "acme"), str(uuid.uuid4()), "1") == 21
    commit_rows(config, "u20", 1)
    sink = MemorySink()
    await relayed(config, sink, EventOptions(TOPICS, rows="rows"))
    assert [event_id for _, event_id in sink.events] == [f"acme/u{number:02d}/0" for number in range(21)]


async def test_tables_of_rows_can_be_silent(config: StoreConfig) -> None:
    commit_rows(config, "a", 3)
    sink = MemorySink()
    await relayed(config, sink, EventOptions(TOPICS, rows="none"))
    assert sink.events == []
    assert Cursors(config, "test").load("acme", "interactions") == Cursor(1)


async def test_a_commit_nobody_told_of_is_found(config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", (0.05, 0.1))
    commit_rows(config, "a", 1)
    sink = MemorySink()

    async def another_server_commits() -> None:
        commit_rows(config, "b", 1)
        while len(sink.events) < 2:
            await asyncio.sleep(0.01)

    await relayed(config, sink, EventOptions(TOPICS, rows="rows"), another_server_commits)
    assert [event_id for _, event_id in sink.events] == ["acme/a/0", "acme/b/0"]


async def test_the_lag_is_counted_while_events_wait(config: StoreConfig) -> None:
    for number in range(5):
        commit_rows(config, f"u{number}", 1)
    sink = MemorySink()
    sink.failures = ["before"] * 10_000
    made = Relay(config, sink, Cursors(config, "test"), AllSlots(), EventOptions(TOPICS))
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(10):
        while made.counts.lag_versions != 5:
            await asyncio.sleep(0.05)
        assert made.failing
        assert made.counts.lag_seconds > 0
        sink.failures = []
        while made.counts.lag_versions:
            await asyncio.sleep(0.05)
    running.cancel()


def test_the_log_that_events_come_from_is_never_cleaned_up(config: StoreConfig) -> None:
    commit_rows(config, "a", 1)
    entry = open_store(config).get("raw-data/acme/interactions/_delta_log/00000000000000000000.json")
    (metadata,) = [json.loads(line)["metaData"] for line in entry.splitlines() if b'"metaData"' in line]
    assert metadata["configuration"]["delta.enableExpiredLogCleanup"] == "false"


TENANTS = {slot_of(f"t{n}"): f"t{n}" for n in range(400)}
"""One for each slot."""


def owned(who: LeasedSlots) -> set[int]:
    return {slot for slot, tenant in TENANTS.items() if who.owns(tenant)}


def nothing(*_: str) -> None:
    """Hears nothing."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats and deaths within moments."""
    monkeypatch.setattr(slots, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(slots, "LISTEN_SECONDS", 0.02)
    for module, name, seconds in (
        (slots, "EXPIRY_SECONDS", 2.0),
        (slots, "YIELD_SECONDS", 1.6),
        (peers, "LIVING_SECONDS", 2.0),
    ):
        monkeypatch.setattr(module, name, seconds)


@pytest.mark.usefixtures("quick")
async def test_slots_are_shared_anew_when_servers_come_die_and_leave(config: StoreConfig) -> None:
    assert len(TENANTS) == slots.SLOTS
    every = [LeasedSlots(config, "test", name) for name in ("one", "two", "three")]
    running = [asyncio.create_task(every[0].run(nothing))]
    await until(lambda: every[0].owned == slots.SLOTS)
    for count, most in ((2, 8), (3, 6)):
        running.append(asyncio.create_task(every[count - 1].run(nothing)))

        def is_shared(count: int = count, most: int = most) -> bool:
            shares = [each.owned for each in every[:count]]
            return sum(shares) == slots.SLOTS and max(shares) <= most

        await until(is_shared)
    sets = [owned(each) for each in every]
    assert len(set().union(*sets)) == sum(map(len, sets))
    running[0].cancel()  # It dies.
    await until(lambda: every[1].owned + every[2].owned == slots.SLOTS and every[1].owned == 8)
    running[1].cancel()
    await every[1].release()  # It leaves.
    await until(lambda: every[2].owned == slots.SLOTS)
    assert every[2].unowned == 0
    running[2].cancel()


@pytest.mark.usefixtures("quick")
async def test_a_server_that_comes_back_gets_its_share_again(config: StoreConfig) -> None:
    stays, leaves = LeasedSlots(config, "test", "stays"), LeasedSlots(config, "test", "leaves")
    running = [asyncio.create_task(each.run(nothing)) for each in (stays, leaves)]
    await until(lambda: stays.owned == leaves.owned == 8)
    running[1].cancel()
    await leaves.release()
    await until(lambda: stays.owned == slots.SLOTS)
    back = LeasedSlots(config, "test", "leaves")
    running[1] = asyncio.create_task(back.run(nothing))
    await until(lambda: stays.owned == back.owned == 8)
    for each in running:
        each.cancel()


@pytest.mark.usefixtures("quick")
async def test_who_commits_tells_the_owner_of_the_slot_and_nobody_else(config: StoreConfig) -> None:
    heard: list[tuple[str, str, str]] = []

    def hear(name: str, tenant: str, table: str) -> None:
        heard.append((name, tenant, table))

    every = {name: LeasedSlots(config, "test", name) for name in ("one", "two")}
    running = [asyncio.create_task(each.run(partial(hear, name))) for name, each in every.items()]
    await until(lambda: every["one"].owned == every["two"].owned == 8)
    tenant = TENANTS[min(owned(every["two"]))]
    every["one"].pass_on(tenant, "datasets/a")
    every["one"].pass_on(tenant, "items")
    await until(lambda: len(heard) == 2)
    assert sorted(heard) == [("two", tenant, "datasets/a"), ("two", tenant, "items")]
    for each in running:
        each.cancel()


async def test_a_released_slot_is_taken_without_waiting(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "BEAT_SECONDS", 0.02)
    # Waiting would never get it, however slow the disk is.
    monkeypatch.setattr(slots, "EXPIRY_SECONDS", 1e9)
    monkeypatch.setattr(slots, "YIELD_SECONDS", 1e9)
    one, two = LeasedSlots(config, "test", "one"), LeasedSlots(config, "test", "two")
    running = asyncio.create_task(one.run(nothing))
    await until(lambda: one.owned == slots.SLOTS)
    running.cancel()
    await one.release()
    assert not one.owns("t1")
    running = asyncio.create_task(two.run(nothing))
    await until(lambda: two.owned == slots.SLOTS)
    running.cancel()


async def test_an_owner_that_slept_finds_itself_replaced(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "EXPIRY_SECONDS", 0.0)
    monkeypatch.setattr(peers, "LIVING_SECONDS", 0.0)
    sleeper, other = LeasedSlots(config, "test", "sleeper"), LeasedSlots(config, "test", "other")
    await asyncio.to_thread(sleeper.renew)
    assert sleeper.owns("acme")
    await asyncio.to_thread(other.renew)
    await asyncio.to_thread(other.renew)
    assert other.owns("acme")
    await asyncio.to_thread(sleeper.renew)
    assert not sleeper.owns("acme")


async def test_the_lag_of_slots_that_nobody_has_is_told(config: StoreConfig) -> None:
    commit_rows(config, "a", 3)
    commit_rows(config, "b", 3)

    class Nobodys(AllSlots):
        def owns(self, tenant: str) -> bool:
            return False

        def is_unowned(self, tenant: str) -> bool:
            return True

    made = Relay(config, MemorySink(), Cursors(config, "test"), Nobodys(), EventOptions(TOPICS))
    running = asyncio.create_task(made.run())
    await until(lambda: made.counts.lag_versions == 2)
    assert made.counts.lag_seconds > 0
    running.cancel()
