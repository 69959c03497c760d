"""The session log and the sweep: who may write, what is kept, what goes."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace_compute.errors import CorruptStreamError, FencedError, UploadClosedError, UploadFinishedError
from headrace_compute.findings import Findings
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.model import Block, Part, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_server.journal.log import JournalFormatError
from headrace_server.rows.blocks import PersistedBlock
from headrace_server.rows.options import UploadOptions
from headrace_server.rpc.live import LiveUploads
from headrace_server.services import Services
from headrace_server.uploads import index, sweep
from headrace_server.uploads import session as sessions
from headrace_server.uploads.immutable_list import ImmutableList
from headrace_server.uploads.index import open_uploads
from headrace_server.uploads.session import Session
from headrace_server.uploads.sweeper import Sweeper

HEADER = UploadOptions("acme", "interactions", "csv").to_json()
UPLOAD = "123e4567-e89b-42d3-a456-426614174000"


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(root=str(tmp_path))


async def _open(config: StoreConfig) -> Session:
    return await sessions.open_session(config, "acme", UPLOAD, HEADER)


def _part(config: StoreConfig, key: str) -> Part:
    open_store(config).create(key, b"part")
    return Part(key=key, rows=1, size_bytes=4, checksum="")


def _block(config: StoreConfig, number: int, attempt: str = "a") -> dict[str, Any]:
    name = f"{UPLOAD}-{number:06d}-{attempt}.parquet"
    block = Block(number, "csv", number * 10, number * 10 + 10, number, 1, number + 2)
    result = BlockResult(
        block,
        _part(config, f"raw-data/acme/interactions/{UPLOAD}/{name}"),
        _part(config, f"raw-data/_headrace/uploads/acme/{UPLOAD}/sidecars/{name}"),
        (_part(config, f"processed-data/acme/rejects/{UPLOAD}/{name}"),),
        Findings(received=2, rejected=1),
    )
    return PersistedBlock(result, 1, 77 + number).to_json()


def _finish(session: Session) -> dict[str, Any]:
    parts = [block.result.to_json() for block in session.blocks]
    return {
        "total_size": 99,
        "crc32c": 5,
        "parts": [part["data"] for part in parts],
        "rejects": [part["rejects"] for part in parts],
    }


def _keys(config: StoreConfig) -> list[str]:
    return [key for bucket in ("raw-data", "processed-data") for key in open_store(config).list(bucket)]


async def _done(config: StoreConfig) -> Session:
    session = await _open(config)
    for number in range(3):
        session = sessions.append(config, session, "block", _block(config, number))
    session = sessions.append(config, session, "finish", _finish(session))
    return sessions.append(config, session, "done", {"version": 1, "rejects_version": None})


async def test_offsets_counts_and_checksum_are_the_sum_of_the_records(config: StoreConfig) -> None:
    session = await _open(config)
    assert (session.persisted_offset, session.persisted_crc32c) == (0, 0)
    for number in range(3):
        session = sessions.append(config, session, "block", _block(config, number))
    for state in (session, sessions.load(config, "acme", UPLOAD)):
        assert state is not None
        assert (state.persisted_offset, state.persisted_crc32c) == (30, 79)
        assert (state.findings.received, state.findings.rejected) == (6, 3)
        assert [block.result.block.index for block in state.blocks] == [0, 1, 2]


async def test_records_of_the_version_before_are_read_and_of_the_version_after_refused_by_name(
    config: StoreConfig, tmp_path: Path
) -> None:
    session = await _open(config)
    session = sessions.append(config, session, "block", _block(config, 0))
    path = tmp_path / "raw-data/_headrace/uploads/acme" / UPLOAD / "00000001"
    record = json.loads(path.read_text())
    record["format_version"] = 1
    del record["body"]["crc32c"]
    path.write_text(json.dumps(record))
    loaded = sessions.load(config, "acme", UPLOAD)
    assert loaded is not None
    assert (loaded.persisted_offset, loaded.persisted_crc32c) == (10, None)
    path.write_text(json.dumps(record | {"format_version": 3}))
    with pytest.raises(JournalFormatError, match="format version 3; this server reads 1, 2"):
        sessions.load(config, "acme", UPLOAD)


async def test_an_abort_ends_the_upload_for_its_owner_and_for_whoever_resumes(config: StoreConfig) -> None:
    owned = await _open(config)
    loaded = sessions.load(config, "acme", UPLOAD)
    assert loaded is not None
    aborted = sessions.abort(config, loaded, "aborted")
    assert aborted.aborted == "aborted"
    with pytest.raises(UploadClosedError):
        sessions.append(config, owned, "block", _block(config, 0))
    with pytest.raises(UploadClosedError):
        await _open(config)
    # Again is no error, even for whoever has not heard of it.
    assert sessions.abort(config, loaded, "expired").aborted
    assert sessions.abort(config, aborted, "aborted") is aborted


async def test_a_stored_failure_is_named_by_its_reason(config: StoreConfig, tmp_path: Path) -> None:
    session = await _open(config)
    sessions.give_up(config, session, CorruptStreamError("Torn.", {"offset": "7"}))
    path = tmp_path / "raw-data/_headrace/uploads/acme" / UPLOAD / "00000001"
    expected = {"reason": "CORRUPT_STREAM", "message": "Torn.", "attributes": {"offset": "7"}}
    assert json.loads(path.read_text())["body"]["failure"] == expected
    with pytest.raises(CorruptStreamError, match="Torn") as caught:
        await _open(config)
    assert caught.value.attributes == {"offset": "7"}


async def test_an_abort_loses_against_finish_and_wins_against_a_live_writer(config: StoreConfig) -> None:
    owned = await _open(config)
    before = sessions.load(config, "acme", UPLOAD)
    assert before is not None
    owned = sessions.append(config, owned, "block", _block(config, 0))
    sessions.append(config, owned, "finish", _finish(owned))
    with pytest.raises(UploadFinishedError):
        sessions.abort(config, before, "aborted")


async def test_a_done_upload_keeps_what_its_answer_needs_and_nothing_else(config: StoreConfig) -> None:
    store = open_store(config)
    session = await _done(config)
    store.create(f"raw-data/acme/interactions/{UPLOAD}/{UPLOAD}-000001-dead.parquet", b"orphan")
    store.create(f"processed-data/acme/rejects/{UPLOAD}/{UPLOAD}-000001-dead.parquet", b"orphan")
    others = (
        "raw-data/acme/interactions/other.parquet",
        f"raw-data/acme/interactions/{UPLOAD}/merge-0.parquet",
    )
    for key in others:
        store.create(key, b"the table's")
    sweep.clear(config, session)
    folder = f"raw-data/_headrace/uploads/acme/{UPLOAD}"
    assert [key for key in _keys(config) if key.startswith(folder)] == [
        f"{folder}/{seq:08d}" for seq in (0, 4, 5)
    ]
    assert not any("dead" in key or "sidecar" in key or "/open/" in key for key in _keys(config))
    assert sum(f"interactions/{UPLOAD}/{UPLOAD}-" in key for key in _keys(config)) == 3
    assert sum(f"rejects/{UPLOAD}/" in key for key in _keys(config)) == 3
    assert all(store.exists(key) for key in others)
    again = await _open(config)
    assert (again.done, again.finish, again.next_seq) == (session.done, session.finish, 6)
    assert (again.persisted_offset, again.persisted_crc32c) == (99, 5)
    assert list(open_uploads(config).entries()) == []
    sweep.clear(config, again)


async def test_a_sweep_lets_no_older_stream_in_again(config: StoreConfig) -> None:
    older = await _open(config)
    older = sessions.append(config, older, "block", _block(config, 0))
    newer = await _open(config)
    for number in (1, 2):
        newer = sessions.append(config, newer, "block", _block(config, number))
    newer = sessions.append(config, newer, "alive", {})
    newer = sessions.append(config, newer, "finish", _finish(newer))
    newer = sessions.append(config, newer, "done", {})
    sweep.clear(config, newer)
    # It had two owners, so it is swept once more when nobody can be at work on it.
    assert list(open_uploads(config).entries()) == [("acme", UPLOAD)]
    with pytest.raises(FencedError):
        sessions.append(config, older, "block", _block(config, 1, "late"))
    sweep.clear_late(config, "acme", UPLOAD)
    assert list(open_uploads(config).entries()) == []
    assert not any("late" in key for key in _keys(config))
    with pytest.raises(FencedError):
        sessions.append(config, older, "block", _block(config, 1, "later"))


async def test_an_owner_sees_whether_anybody_came_after_it(config: StoreConfig) -> None:
    older = sessions.append(config, await _open(config), "block", _block(config, 0))
    sessions.check_newest(config, older)
    newer = await _open(config)
    sessions.check_newest(config, newer)
    with pytest.raises(FencedError):
        sessions.check_newest(config, older)
    sessions.append(config, newer, "finish", _finish(newer))
    with pytest.raises(FencedError):
        sessions.check_newest(config, newer)


async def test_an_aborted_upload_keeps_two_records(config: StoreConfig) -> None:
    session = await _open(config)
    for number in range(3):
        session = sessions.append(config, session, "block", _block(config, number))
    sweep.clear(config, sessions.abort(config, session, "aborted"), late=True)
    folder = f"raw-data/_headrace/uploads/acme/{UPLOAD}"
    (listed,) = index.listed_uploads(config).of_tenant("acme")
    kept = [f"raw-data/_headrace/upload-list/acme/{listed}", f"{folder}/00000000", f"{folder}/00000004"]
    assert _keys(config) == kept


async def test_sessions_of_a_store_without_an_index_are_entered_once(config: StoreConfig) -> None:
    await _open(config)
    open_uploads(config).remove("acme", UPLOAD)
    index.complete(config)
    assert list(open_uploads(config).entries()) == [("acme", UPLOAD)]
    open_uploads(config).remove("acme", UPLOAD)
    index.complete(config)
    assert list(open_uploads(config).entries()) == []


def test_a_grown_sequence_shares_its_items_and_keeps_former_states() -> None:
    one = ImmutableList([1])
    two = one.appended(2)
    other, three = one.appended(20), two.appended(3)
    assert (list(one), list(two), list(other), list(three)) == ([1], [1, 2], [1, 20], [1, 2, 3])
    assert (three[-1], three[0], three[1:], len(two), 3 in two) == (3, 1, [2, 3], 2, False)
    with pytest.raises(IndexError):
        two[2]


class _Clockwork:
    """A sweeper whose rounds a test makes, and whose store is as old as the test says."""

    def __init__(self, config: StoreConfig, tmp_path: Path, alive_seconds: float = 0.0) -> None:
        self.config = config
        self.root = tmp_path
        self.live = LiveUploads()
        settings = SimpleNamespace(upload_ttl_seconds=86_400.0, alive_seconds=alive_seconds)
        self.sweeper = Sweeper(
            cast(Services, SimpleNamespace(config=config, settings=settings, live=self.live))
        )

    def age(self, seconds: float) -> None:
        """Lets everything in the store have been written so long ago."""
        then = time.time() - seconds
        for path in self.root.rglob("*"):
            os.utime(path, (then, then))

    async def rounds(self, count: int = 1) -> None:
        for _ in range(count):
            await self.sweeper.sweep()


async def test_an_upload_that_nobody_goes_on_with_expires_and_leaves_nothing(
    config: StoreConfig, tmp_path: Path
) -> None:
    clockwork = _Clockwork(config, tmp_path)
    session = await _open(config)
    sessions.append(config, session, "block", _block(config, 0))
    await clockwork.rounds(3)
    assert await _open(config)  # Young: still there. Resuming makes it younger.
    clockwork.age(86_401)
    await clockwork.rounds(2)
    with pytest.raises(UploadClosedError, match="nobody went on"):
        await _open(config)
    assert not any("parquet" in key for key in _keys(config))
    assert list(open_uploads(config).entries()) == [("acme", UPLOAD)]
    clockwork.age(86_401)
    await clockwork.rounds()
    assert list(open_uploads(config).entries()) == []


async def test_a_live_upload_does_not_expire_though_a_clock_is_off_by_a_day(
    config: StoreConfig, tmp_path: Path
) -> None:
    clockwork = _Clockwork(config, tmp_path, alive_seconds=300)
    session = await _open(config)
    for _ in range(5):
        session = sessions.append(config, session, "alive", {})
        clockwork.age(2 * 86_400)
        await clockwork.rounds(3)
    sessions.append(config, session, "block", _block(config, 0))
    # And one with a stream on this very server is not even looked at.
    clockwork = _Clockwork(config, tmp_path)
    clockwork.age(2 * 86_400)
    with clockwork.live.joined("acme", UPLOAD, cast(Any, None)):
        await clockwork.rounds(5)
    loaded = sessions.load(config, "acme", UPLOAD)
    assert loaded is not None
    assert not loaded.aborted


async def test_an_entry_that_never_came_to_a_session_goes_when_it_is_old(
    config: StoreConfig, tmp_path: Path
) -> None:
    clockwork = _Clockwork(config, tmp_path)
    open_uploads(config).add("acme", UPLOAD)
    await clockwork.rounds(2)
    assert list(open_uploads(config).entries()) == [("acme", UPLOAD)]
    clockwork.age(86_401)
    await clockwork.rounds()
    assert list(open_uploads(config).entries()) == []


async def test_a_round_visits_a_bounded_number_and_the_next_goes_on_there(
    config: StoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_server.uploads.sweeper.VISITS", 3)
    clockwork = _Clockwork(config, tmp_path)
    visited: list[str] = []

    async def visit(upload: tuple[str, str]) -> None:
        visited.append(upload[1])

    monkeypatch.setattr(clockwork.sweeper, "_visit", visit)
    for number in range(7):
        open_uploads(config).add("acme", f"u{number}")
    await clockwork.rounds(3)
    assert visited == [f"u{number % 7}" for number in range(9)]
