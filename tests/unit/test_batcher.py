"""Small ingests on their way: gathered, bounded, answered one by one; tables are real, workers are not."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import json_format

import headrace_server
from headrace.v1 import row_pb2
from headrace_compute.delta import drafts
from headrace_compute.delta.appender import LogAppender, RequestsTakenError
from headrace_compute.delta.tables import open_table
from headrace_compute.errors import (
    IdInUseError,
    OverloadedError,
    PoisonBlockError,
    StoreFullError,
    StoreUnavailableError,
    SuspendedError,
)
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part
from headrace_compute.workers.pool import Pool
from headrace_compute.workers.quarantine import Quarantine
from headrace_server.events.relay_process import RelayProcess
from headrace_server.ingest import batcher
from headrace_server.ingest import drafts as open_drafts
from headrace_server.ingest.answers import Answer
from headrace_server.ingest.batcher import Batcher, Request
from headrace_server.maintenance import Maintenance
from headrace_server.services import Services
from headrace_server.settings import Settings

SECONDS = 30.0


class _Workers:
    """Runs stages in threads, and can be held up or made to break."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self.quarantine = Quarantine()
        self.open = asyncio.Event()
        self.open.set()
        self.before: Callable[[Sequence[str]], None] = lambda users: None
        self.groups: list[list[str]] = []

    def executor(self, group: str, member: str, attempts: int = 3) -> "_Workers":
        return self

    async def run(self, stage: Any, *args: Any) -> Any:
        if stage.__name__ == "ingest_group":
            users = _users(args[2])
            self.groups.append(users)
            await self.open.wait()
            self.before(users)
        return await asyncio.to_thread(stage, self._config, *args)


class _NoRelay:
    def notify(self, tenant: str, table: str) -> None: ...


class _Place:
    """A batcher of one table, and what lies there."""

    def __init__(self, folder: Path, **others: str) -> None:
        settings = Settings(_env_file=None, data_dir=folder, **others)  # type: ignore[arg-type, call-arg]
        self.config = settings.store()
        self.workers = _Workers(self.config)
        self.pool = cast(Pool, self.workers)
        self.services = Services(
            settings, self.config, self.pool, cast(RelayProcess, _NoRelay()), Maintenance(self.pool, "test")
        )
        self.batcher = self.another()

    def another(self) -> Batcher:
        return Batcher(self.services, self.pool, "acme", "interactions")

    def start_objects(self, *users: str) -> "asyncio.Task[Answer]":
        """One ingest of JSON objects under way."""
        rows = [
            json.dumps(json_format.MessageToDict(_row(user), preserving_proto_field_name=True)).encode()
            for user in users
        ]
        request = Request(str(uuid.uuid4()), rows, "", 10, "json_lines")
        return asyncio.ensure_future(self.batcher.ingest(request))

    def start(self, *users: str, request_id: str = "", digest: str = "") -> "asyncio.Task[Answer]":
        """One ingest under way."""
        request = Request(request_id or str(uuid.uuid4()), [_row(user) for user in users], digest, 10)
        return asyncio.ensure_future(self.batcher.ingest(request))

    def users(self) -> list[str]:
        files = open_table(self.config, "raw-data/acme/interactions").files
        store = open_store(self.config)
        return sorted(user for file in files for user in read_part(store, file.key)["user_id"].to_pylist())


def _users(payload: Any) -> list[str]:
    if isinstance(payload, bytes):
        return [json.loads(line)["user_id"] for line in payload.split(b"\n")]
    return list(payload.column("user_id").to_pylist())


def _row(user: str) -> row_pb2.Interaction:
    return row_pb2.Interaction(
        user_id=user, item_id="i", interaction_type="view" if user != "bad" else "no", timestamp="2024-01-01"
    )


async def answered(*tasks: "asyncio.Task[Answer]") -> list[Answer]:
    async with asyncio.timeout(SECONDS):
        return list(await asyncio.gather(*tasks))


@pytest.fixture
async def place(tmp_path: Path) -> _Place:
    return _Place(tmp_path)


async def _hold_up(place: _Place) -> "list[asyncio.Task[Answer]]":
    """Has every worker busy with an ingest."""
    place.workers.open.clear()
    first = []
    for number in range(batcher.GROUPS_UNDER_WAY):
        first.append(place.start(f"first{number}"))
        async with asyncio.timeout(SECONDS):
            while len(place.workers.groups) <= number:
                await asyncio.sleep(0.001)
    return first


async def test_what_arrives_during_a_commit_shares_the_next(place: _Place) -> None:
    first = await _hold_up(place)
    more = [place.start(f"u{number}") for number in range(100)]
    await asyncio.sleep(0.01)
    place.workers.open.set()
    answers = await answered(*first, *more)
    assert [len(group) for group in place.workers.groups] == [1, 1, 100]
    assert len({answer.version for answer in answers[2:]}) == 1
    assert len(place.users()) == 102


async def test_messages_and_json_objects_of_a_table_wait_in_turn_and_share_commits_each(
    place: _Place,
) -> None:
    first = await _hold_up(place)
    more = [
        (place.start_objects if number % 2 else place.start)(f"u{number}", *["bad"][: number == 5])
        for number in range(40)
    ]
    await asyncio.sleep(0.01)
    place.workers.open.set()
    answers = (await answered(*first, *more))[2:]
    messages, objects = place.workers.groups[2:]
    assert messages == [f"u{number}" for number in range(0, 40, 2)]
    assert [user for user in objects if user != "bad"] == [f"u{number}" for number in range(1, 40, 2)]
    assert [answer.report.rows_rejected for answer in answers] == [number == 5 for number in range(40)]
    assert len(place.users()) == 42


@pytest.mark.parametrize(
    ("limit", "value", "sizes"), [("GROUP_REQUESTS", 4, [4, 4, 2]), ("GROUP_ROWS", 7, [6, 6, 6, 2])]
)
async def test_groups_have_limits(
    place: _Place, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(batcher, limit, value)
    first = await _hold_up(place)
    rows = 2 if limit == "GROUP_ROWS" else 1
    more = [place.start(*[f"u{number}-{row}" for row in range(rows)]) for number in range(10)]
    await asyncio.sleep(0.01)
    place.workers.open.set()
    await answered(*first, *more)
    assert [len(group) for group in place.workers.groups[2:]] == sizes


async def test_one_that_is_larger_than_a_group_goes_alone(
    place: _Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "GROUP_ROWS", 3)
    (answer,) = await answered(place.start(*[f"u{number}" for number in range(10)]))
    assert answer.report.rows_accepted == 10


async def test_more_than_may_wait_is_refused_and_the_rest_is_stored(
    place: _Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "MAX_WAITING", 5)
    first = await _hold_up(place)
    more = [place.start(f"u{number}") for number in range(20)]
    async with asyncio.timeout(SECONDS):
        while sum(task.done() for task in more) < 15:
            await asyncio.sleep(0.001)
    refused = [task for task in more if task.done()]
    assert all(isinstance(task.exception(), OverloadedError) for task in refused)
    place.workers.open.set()
    await answered(*first, *(task for task in more if task not in refused))
    assert len(place.users()) == len(first) + 5


async def test_poison_fails_alone(place: _Place) -> None:
    def be_poisoned(users: Sequence[str]) -> None:
        if "poison" in users:
            raise PoisonBlockError("a worker's own words")

    place.workers.before = be_poisoned
    first = await _hold_up(place)
    more = [place.start("poison" if number == 13 else f"u{number}") for number in range(32)]
    await asyncio.sleep(0.01)
    place.workers.open.set()
    with pytest.raises(PoisonBlockError):
        await more.pop(13)
    await answered(*first, *more)
    assert len(place.users()) == 2 + 31


async def test_who_is_suspended_is_refused_before_a_worker_is_waited_for(place: _Place) -> None:
    place.workers.quarantine.suspend("acme")
    with pytest.raises(SuspendedError):
        await place.start("u1")
    assert place.workers.groups == []
    assert place.batcher.idle


async def test_a_group_that_fails_fails_as_one_and_the_next_is_stored(place: _Place) -> None:
    failures = [StoreUnavailableError("the store is away")]

    def fail_once(users: Sequence[str]) -> None:
        if "u1" in users and failures:
            raise failures.pop()

    place.workers.before = fail_once
    first = await _hold_up(place)
    more = [place.start(f"u{number}") for number in range(3)]
    await asyncio.sleep(0.01)
    place.workers.open.set()
    await answered(*first)
    errors = await asyncio.gather(*more, return_exceptions=True)
    assert [str(error) for error in errors] == ["the store is away"] * 3
    assert len({id(error) for error in errors}) == 3
    await answered(place.start("u1"))
    assert place.users() == ["first0", "first1", "u1"]


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("users", [("u",), ("bad",), ("u", "bad")])
async def test_what_a_full_store_has_not_committed_leaves_no_parts(
    place: _Place, monkeypatch: pytest.MonkeyPatch, users: tuple[str, ...], landed: bool
) -> None:
    await answered(place.start("first"), place.start("bad"))
    store, before = open_store(place.config), _parts(place)
    real = type(store).create

    def full(self: Any, key: str, data: bytes) -> None:
        if landed or not key.endswith(".json"):
            real(self, key, data)
        if key.endswith(".json"):
            raise StoreFullError("no room")

    request_id = str(uuid.uuid4())
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "create", full)
        with pytest.raises(StoreFullError):
            await place.start(*users, request_id=request_id, digest="d")
    assert (len(_parts(place)) > len(before)) == landed
    (answer,) = await answered(place.start(*users, request_id=request_id, digest="d"))
    assert answer.report.rows_received == len(users)
    assert place.users() == sorted(["first", *(user for user in users if user != "bad")])


def _parts(place: _Place) -> list[str]:
    store = open_store(place.config)
    found = (key for bucket in ("raw-data", "processed-data") for key in store.list(f"{bucket}/acme/"))
    return [key for key in found if key.endswith(".parquet")]


async def test_a_caller_that_hangs_up_leaves_its_rows(place: _Place) -> None:
    first = await _hold_up(place)
    gone, stays = place.start("gone"), place.start("stays")
    await asyncio.sleep(0.01)
    gone.cancel()
    place.workers.open.set()
    await answered(*first, stays)
    assert place.users() == ["first0", "first1", "gone", "stays"]


async def test_a_request_that_is_still_under_way_is_waited_for(place: _Place) -> None:
    request_id = str(uuid.uuid4())
    place.workers.open.clear()
    twice = [place.start("ann", request_id=request_id, digest="d") for _ in range(2)]
    await asyncio.sleep(0.01)
    with pytest.raises(IdInUseError):
        await place.start("bob", request_id=request_id, digest="other")
    place.workers.open.set()
    one, two = await answered(*twice)
    assert one == two
    assert place.users() == ["ann"]


async def test_good_and_bad_ones_of_a_group_are_told_apart(place: _Place) -> None:
    first = await _hold_up(place)
    more = [place.start("ann"), place.start("bad"), place.start("bob", "bad")]
    await asyncio.sleep(0.01)
    place.workers.open.set()
    await answered(*first)
    good, bad, mixed = await answered(*more)
    assert [answer.report.rows_accepted for answer in (good, bad, mixed)] == [1, 0, 1]
    assert (good.rejects_key, bad.version) == ("", None)
    assert "published=false" in bad.rejects_key
    assert "published=true" in mixed.rejects_key
    assert place.users() == ["ann", "bob", "first0", "first1"]


async def test_whoever_was_overtaken_by_another_server_gets_its_answer(
    place: _Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = str(uuid.uuid4())
    there = place.another()
    theirs = await there.ingest(Request(request_id, [_row("ann")], "d", 10))
    real, raised = LogAppender.append, []

    def append(self: LogAppender, addition: Any) -> int:
        try:
            return real(self, addition)
        except RequestsTakenError as error:
            raised.append(error.ids)
            raise

    # This one has not read the log since; what it knows is that the id is new.
    monkeypatch.setattr(place.batcher.ledger, "repeated", _knows_nothing)
    monkeypatch.setattr(LogAppender, "append", append)
    first = await _hold_up(place)
    more = [place.start("ann", request_id=request_id, digest="d"), place.start("bob")]
    await asyncio.sleep(0.01)
    place.workers.open.set()
    await answered(*first)
    ours, other = await answered(*more)
    assert raised == [frozenset({request_id})]
    assert (ours.version, ours.report) == (theirs.version, theirs.report)
    assert other.report.rows_accepted == 1
    assert place.users() == ["ann", "bob", "first0", "first1"]
    # The group of both was not committed, so its part is gone.
    files = open_table(place.config, "raw-data/acme/interactions").files
    assert _parts(place) == sorted(file.key for file in files)


async def test_groups_share_a_draft_until_it_is_used_up(
    place: _Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_drafts, "GROUPS", 3)
    for number in range(8):
        await answered(place.start(f"u{number}", *(["bad"] if number % 2 else [])))
        assert len(list(drafts.entries(place.config))) == 1
    prefixes = Counter(key.rpartition("/")[2].partition("-")[0] for key in _parts(place))
    assert sorted(prefixes.values()) == [3, 4, 5]
    await place.batcher.close()
    assert list(drafts.entries(place.config)) == []


async def test_a_draft_stays_that_may_have_a_part_which_no_commit_names(
    place: _Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await answered(place.start("ann"))
    with monkeypatch.context() as patched:
        patched.setattr(LogAppender, "append", _fails)
        with pytest.raises(StoreUnavailableError):
            await place.start("bob", "bad")
    await answered(place.start("bob", "bad"))
    await place.batcher.close()
    (entry,) = drafts.entries(place.config)
    assert drafts.clear(place.config, entry) == 2
    assert len(_parts(place)) == 3
    assert place.users() == ["ann", "bob"]


def _fails(self: LogAppender, addition: Any) -> int:
    raise StoreUnavailableError("the store is away")


async def _knows_nothing(upload_id: str, digest: str) -> None:
    return None


async def test_a_commit_tells_the_version_of_the_package_not_of_the_setting(tmp_path: Path) -> None:
    place = _Place(tmp_path, version="another")
    await answered(place.start("ann"))
    metadata = open_table(place.config, "raw-data/acme/interactions").metadata
    assert metadata["headrace.code_version"] == headrace_server.__version__ != "another"
