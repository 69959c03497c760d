"""The relay on real tables in a local folder, with a sink that can be told to fail."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from headrace_compute.model import StoreConfig
from headrace_compute.stages import upkeep
from headrace_compute.storage import tables
from headrace_compute.storage.parts import write_part
from headrace_compute.storage.store import open_store
from headrace_server.events import feed, relay, slots
from headrace_server.events.batch import EventBatch
from headrace_server.events.cursors import Cursor, Cursors
from headrace_server.events.feed import Feed
from headrace_server.events.relay import Relay
from headrace_server.events.sink import UndeliveredError
from headrace_server.events.slots import AllSlots, LeasedSlots, slot_of
from headrace_server.events.style import Style

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
    config: StoreConfig, sink: MemorySink, style: Style, until: Callable[[], Awaitable[None]] | None = None
) -> Relay:
    """Runs a relay until it has nothing to do."""
    made = Relay(config, sink, Cursors(config, "test"), AllSlots(), style)
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
    await relayed(config, sink, Style(TOPICS))
    assert sink.events == [("raw", f"acme/interactions@{version}") for version in (1, 2, 3)]


async def test_rows_are_told_each_in_the_order_of_the_parts(config: StoreConfig) -> None:
    commit_rows(config, "a", 100_000)
    commit_rows(config, "b", 2)
    sink = MemorySink()
    made = await relayed(config, sink, Style(TOPICS, rows="rows"))
    expected = [f"acme/a/{row}" for row in range(100_000)] + ["acme/b/0", "acme/b/1"]
    assert [event_id for _, event_id in sink.events] == expected
    assert made.counts.published == {"raw": 100_002}


async def test_a_second_relay_goes_on_where_the_first_stopped(config: StoreConfig) -> None:
    commit_rows(config, "a", 3)
    await relayed(config, MemorySink(), Style(TOPICS, rows="rows"))
    commit_rows(config, "b", 1)
    sink = MemorySink()
    await relayed(config, sink, Style(TOPICS, rows="rows"))
    assert sink.events == [("raw", "acme/b/0")]


@pytest.mark.parametrize("failure", ["before", "after"])
async def test_a_failing_sink_loses_nothing(config: StoreConfig, failure: str) -> None:
    commit_rows(config, "a", 100_000)
    commit_rows(config, "b", 5)
    sink = MemorySink()
    sink.failures = [failure, "", failure, failure]
    made = await relayed(config, sink, Style(TOPICS, rows="rows"))
    ids = [event_id for _, event_id in sink.events]
    expected = [f"acme/a/{row}" for row in range(100_000)] + [f"acme/b/{row}" for row in range(5)]
    assert list(dict.fromkeys(ids)) == expected
    assert made.counts.retries == 3
    assert not made.failing
    assert (len(ids) == len(expected)) == (failure == "before")


async def test_a_relay_that_dies_mid_version_goes_on_in_it(config: StoreConfig) -> None:
    commit_rows(config, "a", 200_000)
    first = Feed(config, "acme", "interactions", Cursor(), Style(TOPICS, rows="rows"))
    portion = await asyncio.to_thread(first.next)
    assert portion is not None
    assert portion.events is not None
    assert portion.after.groups > 0
    Cursors(config, "test").save("acme", "interactions", portion.after)
    sink = MemorySink()
    await relayed(config, sink, Style(TOPICS, rows="rows"))
    ids = portion.events.ids.to_pylist() + [event_id for _, event_id in sink.events]
    assert ids == [f"acme/a/{row}" for row in range(200_000)]


async def test_many_small_commits_go_out_together(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        commit_rows(config, f"u{number}", 1)
    monkeypatch.setattr(feed, "PORTION_VERSIONS", 5)
    portions = Feed(config, "acme", "interactions", Cursor(), Style(TOPICS, rows="rows"))
    found = [portion for _ in range(4) if (portion := portions.next())]
    assert [len(portion.events or ()) for portion in found] == [5, 5, 2]
    assert [portion.after for portion in found] == [Cursor(5), Cursor(10), Cursor(12)]


async def test_rows_that_were_compacted_before_they_were_told_are_told_once(config: StoreConfig) -> None:
    for number in range(20):
        commit_rows(config, f"u{number:02d}", 1)
    assert upkeep.compact(config, tables.interactions_key(config, "acme"), str(uuid.uuid4()), "1") == 21
    commit_rows(config, "u20", 1)
    sink = MemorySink()
    await relayed(config, sink, Style(TOPICS, rows="rows"))
    assert [event_id for _, event_id in sink.events] == [f"acme/u{number:02d}/0" for number in range(21)]


async def test_tables_of_rows_can_be_silent(config: StoreConfig) -> None:
    commit_rows(config, "a", 3)
    sink = MemorySink()
    await relayed(config, sink, Style(TOPICS, rows="none"))
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

    await relayed(config, sink, Style(TOPICS, rows="rows"), another_server_commits)
    assert [event_id for _, event_id in sink.events] == ["acme/a/0", "acme/b/0"]


async def test_the_lag_is_counted_while_events_wait(config: StoreConfig) -> None:
    for number in range(5):
        commit_rows(config, f"u{number}", 1)
    sink = MemorySink()
    sink.failures = ["before"] * 10_000
    made = Relay(config, sink, Cursors(config, "test"), AllSlots(), Style(TOPICS))
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


async def test_two_servers_share_the_slots_and_the_survivor_takes_all(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(slots, "EXPIRY_SECONDS", 1.0)
    monkeypatch.setattr(slots, "YIELD_SECONDS", 0.8)
    tenants = {slot_of(f"t{n}"): f"t{n}" for n in range(400)}
    assert len(tenants) == slots.SLOTS
    one, two = LeasedSlots(config, "test", "one"), LeasedSlots(config, "test", "two")

    def owned(who: LeasedSlots) -> set[int]:
        return {slot for slot, tenant in tenants.items() if who.owns(tenant)}

    running = [asyncio.create_task(each.run()) for each in (one, two)]
    async with asyncio.timeout(20):
        while len(owned(one) | owned(two)) < slots.SLOTS:
            await asyncio.sleep(0.02)
        assert not owned(one) & owned(two)
        assert owned(one)
        assert owned(two)
        running[0].cancel()
        while len(owned(two)) < slots.SLOTS:
            assert not owned(one) & owned(two)
            await asyncio.sleep(0.02)
    running[1].cancel()


async def test_a_released_slot_is_taken_without_waiting(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "BEAT_SECONDS", 0.02)
    # Waiting would never get it, however slow the disk is.
    monkeypatch.setattr(slots, "EXPIRY_SECONDS", 1e9)
    monkeypatch.setattr(slots, "YIELD_SECONDS", 1e9)
    one, two = LeasedSlots(config, "test", "one"), LeasedSlots(config, "test", "two")
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(100):
        while not all(one.owns(f"t{n}") for n in range(100)):
            await asyncio.sleep(0.02)
        running.cancel()
        await one.release()
        assert not one.owns("t1")
        running = asyncio.create_task(two.run())
        while not all(two.owns(f"t{n}") for n in range(100)):
            await asyncio.sleep(0.02)
    running.cancel()


async def test_an_owner_that_slept_finds_itself_replaced(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "EXPIRY_SECONDS", 0.0)
    sleeper, other = LeasedSlots(config, "test", "sleeper"), LeasedSlots(config, "test", "other")
    monkeypatch.setattr(slots, "TAKEN_AT_ONCE", slots.SLOTS)
    await asyncio.to_thread(sleeper._round)
    assert sleeper.owns("acme")
    await asyncio.to_thread(other._round)
    await asyncio.to_thread(other._round)
    assert other.owns("acme")
    await asyncio.to_thread(sleeper._round)
    assert not sleeper.owns("acme")
