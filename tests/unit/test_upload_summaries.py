"""Uploads in a list: in which order, at which price, and also those of the time before there was one."""

import uuid
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.v1 import upload_pb2
from headrace_compute.model import StoreConfig
from headrace_compute.objects.local import LocalStore
from headrace_compute.objects.store import open_store
from headrace_server.rows.options import UploadOptions
from headrace_server.services import Services
from headrace_server.uploads import session as sessions
from headrace_server.uploads.index import list_earlier, listed_uploads
from headrace_server.uploads.session import Session
from headrace_server.uploads.summaries import list_uploads

ITEMS = UploadOptions("acme", "items", "json_lines").to_json()
COUNTS = {"received": 9, "accepted": 5, "rejected": 4, "duplicates": 1}


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(root=str(tmp_path))


async def _open(config: StoreConfig) -> Session:
    return await sessions.open_session(config, "acme", str(uuid.uuid4()), ITEMS)


async def _list(config: StoreConfig, **fields: Any) -> upload_pb2.ListUploadsResponse:
    request = upload_pb2.ListUploadsRequest(tenant_id="acme", **fields)
    return await list_uploads(cast(Services, SimpleNamespace(config=config)), request)


async def _ids(config: StoreConfig, **fields: Any) -> list[str]:
    return [upload.upload_id for upload in (await _list(config, **fields)).uploads]


def _finished(config: StoreConfig, session: Session, outcome: str) -> Session:
    # What a record has besides is not looked at.
    return sessions.append(config, session, "finish", {"outcome": outcome, "total_size": 1, **COUNTS})


async def test_an_upload_is_told_by_its_newest_records(config: StoreConfig) -> None:
    opened = await _open(config)
    waiting = sessions.append(config, await _open(config), "alive", {})
    finishing = _finished(config, await _open(config), "COMMITTED")
    done = sessions.append(
        config,
        _finished(config, await _open(config), "COMMITTED"),
        "done",
        {"version": 7, "rejects_version": 1},
    )
    refused = sessions.append(
        config,
        _finished(config, await _open(config), "REFUSED"),
        "done",
        {"version": None, "rejects_version": 2},
    )
    aborted = sessions.abort(config, await _open(config), "expired")
    counts: dict[str, Any] = {"rows_received": 9, "rows_accepted": 5, "rows_rejected": 4, "rows_duplicate": 1}
    expected = [
        (aborted, upload_pb2.UPLOAD_STATE_ABORTED, {}),
        (refused, upload_pb2.UPLOAD_STATE_DONE, {"outcome": upload_pb2.OUTCOME_REFUSED, **counts}),
        (
            done,
            upload_pb2.UPLOAD_STATE_DONE,
            {"outcome": upload_pb2.OUTCOME_COMMITTED, "version": 7, **counts},
        ),
        (finishing, upload_pb2.UPLOAD_STATE_FINISHING, {}),
        (waiting, upload_pb2.UPLOAD_STATE_OPEN, {}),
        (opened, upload_pb2.UPLOAD_STATE_OPEN, {}),
    ]
    found = list((await _list(config)).uploads)
    for upload, (session, state, fields) in zip(found, expected, strict=True):
        wanted = upload_pb2.UploadSummary(
            upload_id=session.upload_id,
            state=state,
            data_type="items",
            format=upload_pb2.FORMAT_JSON_LINES,
            **fields,
        )
        wanted.create_time.FromMicroseconds(session.started_us)
        assert upload == wanted


async def test_pages_follow_each_other_while_uploads_begin(config: StoreConfig) -> None:
    first = [(await _open(config)).upload_id for _ in range(5)]
    page = await _list(config, page_size=2)
    late = (await _open(config)).upload_id
    found = [upload.upload_id for upload in page.uploads]
    while page.next_page_token:
        page = await _list(config, page_size=2, page_token=page.next_page_token)
        found += [upload.upload_id for upload in page.uploads]
    assert found == first[::-1]
    assert await _ids(config) == [late, *first[::-1]]


async def test_an_upload_that_is_resumed_is_listed_once(config: StoreConfig) -> None:
    session = await _open(config)
    for name in listed_uploads(config).of_tenant("acme"):
        listed_uploads(config).remove("acme", name)  # As by a crash before it was entered.
    for _ in range(2):
        await sessions.open_session(config, "acme", session.upload_id, ITEMS)
        assert await _ids(config) == [session.upload_id]


async def test_a_page_costs_what_it_shows(config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(130):
        session = await _open(config)
        for _ in range(3):
            session = sessions.append(config, session, "alive", {})
        sessions.append(config, _finished(config, session, "EMPTY"), "done", {"version": None})
    asked: Counter[str] = Counter()
    for name in ("get", "list", "children"):
        real = getattr(LocalStore, name)

        def counted(self: Any, *args: Any, real: Any = real, name: str = name, **others: Any) -> Any:
            asked[name] += 1
            return real(self, *args, **others)

        monkeypatch.setattr(LocalStore, name, counted)
    assert len(await _ids(config, page_size=10)) == 10
    # The list itself; then of each upload its records' names and three of them: open, finish and done.
    assert asked == {"list": 1 + 10, "get": 3 * 10}


async def test_uploads_of_before_are_entered_once(config: StoreConfig) -> None:
    earlier = [await _open(config) for _ in range(3)]
    open_store(config).delete_all(f"{config.raw}/_headrace/upload-list")
    assert await _ids(config) == []
    list_earlier(config)
    assert await _ids(config) == [session.upload_id for session in reversed(earlier)]
    open_store(config).delete_all(f"{config.raw}/_headrace/upload-list")
    list_earlier(config)
    assert await _ids(config) == []
