"""The session log: an upload's durable record, and the only truth about it.

A session is a list of create-only records
`{raw bucket}/_headrace/uploads/{tenant}/{upload_id}/{seq:08d}`. Its state is the
fold of the records; ARCHITECTURE.md draws the states. Whoever creates the next
number has written it; a writer that loses a create re-reads, and is fenced if
another stream has opened a newer epoch. Functions that are not `async` block: call them in a thread.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from headrace_compute.block_result import BlockResult
from headrace_compute.errors import FencedError, HeadraceError, IdInUseError, UploadClosedError
from headrace_compute.model import StoreConfig
from headrace_compute.storage.store import KeyExistsError, KeyMissingError, ObjectStore, open_store

FORMAT_VERSION = 1
READABLE_VERSIONS = (1,)


class SessionFormatError(HeadraceError):
    """A record was written by a newer version of Headrace."""


@dataclass(frozen=True)
class PersistedBlock:
    """A block whose part and record survive any crash.

    Attributes:
        lines: Lines it covers; with its own numbers, where the next block begins.
    """

    result: BlockResult
    lines: int

    def to_json(self) -> dict[str, Any]:
        """The record's body."""
        return {"result": self.result.to_json(), "lines": self.lines}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The block of a record's body."""
        return cls(result=BlockResult.from_json(body["result"]), lines=body["lines"])


@dataclass(frozen=True)
class Session:
    """An upload's state: the fold of its records.

    Attributes:
        header: The UploadHeader it was opened with, as proto JSON.
        started_us: When it was opened; the `ingested_at` of its rows.
        owner: Id of the stream that may append; each epoch names a new one.
        columns: CSV header line, once a block was persisted; None before.
        finish: Body of the finish record: outcome, parts, counts.
        done: Body of the done record: the result, as proto JSON.
        next_seq: Number of the next record.
    """

    tenant: str
    upload_id: str
    header: Mapping[str, Any]
    started_us: int
    owner: str
    next_seq: int
    columns: str | None = None
    blocks: tuple[PersistedBlock, ...] = ()
    finish: Mapping[str, Any] | None = None
    done: Mapping[str, Any] | None = None
    aborted: bool = False

    @property
    def persisted_offset(self) -> int:
        """How much of the stream survives any crash: bytes, or rows for ROWS."""
        if self.finish is not None:
            return int(self.finish["total_size"])
        return self.blocks[-1].result.block.end_offset if self.blocks else 0


def session_prefix(config: StoreConfig, tenant: str, upload_id: str) -> str:
    """Key prefix of a session's records."""
    return f"{config.raw}/_headrace/uploads/{tenant}/{upload_id}/"


async def open_session(
    config: StoreConfig, tenant: str, upload_id: str, header: Mapping[str, Any]
) -> Session:
    """Opens the session of an upload, or takes it over if it exists with the same header.

    A finished session is returned as it is: it has no owner any more.

    Raises:
        IdInUseError: It exists with another header.
        UploadClosedError: It was aborted.
    """
    owner, now_us = uuid.uuid4().hex, time.time_ns() // 1000
    session = await asyncio.to_thread(_create, config, tenant, upload_id, header, now_us, owner)
    if session is None:
        session = await asyncio.to_thread(_take_over, config, tenant, upload_id, header, owner)
    return session


def load(config: StoreConfig, tenant: str, upload_id: str) -> Session | None:
    """The session as the store has it; None if there is none."""
    store = open_store(config)
    prefix = session_prefix(config, tenant, upload_id)
    keys = sorted(key for key in store.list(prefix) if key[len(prefix) :].isdigit())
    if not keys or keys[0] != _record_key(prefix, 0):
        return None  # What is left of one that is being discarded.
    try:
        return fold(tenant, upload_id, [_read(store, key) for key in keys])
    except KeyMissingError:
        return None


def append(config: StoreConfig, session: Session, kind: str, body: Mapping[str, Any]) -> Session:
    """Appends a record as the session's owner.

    Raises:
        FencedError: Another stream of this upload has taken over, or ended it.
        UploadClosedError: The upload was given up.
    """
    store = open_store(config)
    prefix = session_prefix(config, session.tenant, session.upload_id)
    try:
        _write(store, prefix, session.next_seq, kind, body)
    except KeyExistsError:
        try:
            found = _read(store, _record_key(prefix, session.next_seq))
        except KeyMissingError:
            found = {}  # Another stream has just discarded the session.
        if found.get("kind") == "abort" and kind != "abort":
            raise _closed(session.upload_id) from None
        if found != _record(kind, body):
            raise FencedError(
                f"a newer stream of upload {session.upload_id} took over; this one ends here",
                {"upload_id": session.upload_id},
            ) from None
        # The create succeeded and its answer was lost: the record is ours.
    return _apply(session, _record(kind, body))


def discard(config: StoreConfig, session: Session) -> None:
    """Deletes an open session with everything it wrote, as its owner.

    The abort record comes first, so that no other stream can go on with what is being
    deleted, and goes last. The open record goes before all others: without it there is
    no session.

    Raises:
        FencedError: Another stream has taken over; nothing is deleted.
    """
    session = append(config, session, "abort", {})
    store = open_store(config)
    prefix = session_prefix(config, session.tenant, session.upload_id)
    store.delete(_record_key(prefix, 0))
    for block in session.blocks:
        result = block.result
        for part in (result.data, result.sidecar, *result.rejects):
            if part is not None:
                store.delete(part.key)
    for seq in range(1, session.next_seq):
        store.delete(_record_key(prefix, seq))


def left_finishing(config: StoreConfig) -> list[Session]:
    """Sessions with a finish record and no done record, of all tenants."""
    store = open_store(config)
    root = f"{config.raw}/_headrace/uploads"
    found = []
    for tenant in store.children(root):
        for upload_id in store.children(f"{root}/{tenant}"):
            session = load(config, tenant, upload_id)
            if session is not None and session.finish is not None and session.done is None:
                found.append(session)
    return found


def fold(tenant: str, upload_id: str, records: Iterable[Mapping[str, Any]]) -> Session:
    """The state that a list of records amounts to."""
    session: Session | None = None
    for record in records:
        if session is None:
            body = record["body"]
            session = Session(
                tenant, upload_id, body["header"], body["started_us"], body["owner"], next_seq=1
            )
        else:
            session = _apply(session, record)
    if session is None:
        raise ValueError("a session has at least its open record")
    return session


def _create(
    config: StoreConfig, tenant: str, upload_id: str, header: Mapping[str, Any], started_us: int, owner: str
) -> Session | None:
    """Opens a session; None if there is one already."""
    body = {"header": dict(header), "started_us": started_us, "owner": owner}
    try:
        _write(open_store(config), session_prefix(config, tenant, upload_id), 0, "open", body)
    except KeyExistsError:
        return None
    return Session(tenant, upload_id, header, started_us, owner, next_seq=1)


def _take_over(
    config: StoreConfig, tenant: str, upload_id: str, header: Mapping[str, Any], owner: str
) -> Session:
    """Opens a new epoch, which fences every older stream."""
    while True:
        session = load(config, tenant, upload_id)
        if session is None or session.aborted:
            raise _closed(upload_id)
        if session.header != header:
            raise IdInUseError(
                f"upload_id {upload_id} belongs to an upload with another header; choose a new id",
                {"upload_id": upload_id},
            )
        if session.finish is not None:
            return session
        try:
            return append(config, session, "epoch", {"owner": owner})
        except FencedError:
            continue  # Another record came first; each round sees at least one more.


def _apply(session: Session, record: Mapping[str, Any]) -> Session:
    body = record["body"]
    session = replace(session, next_seq=session.next_seq + 1)
    match record["kind"]:
        case "epoch":
            return replace(session, owner=body["owner"])
        case "block":
            columns = body.get("columns", session.columns)
            return replace(session, columns=columns, blocks=(*session.blocks, PersistedBlock.from_json(body)))
        case "finish":
            return replace(session, finish=body)
        case "done":
            return replace(session, done=body)
        case "abort":
            return replace(session, aborted=True)
        case kind:
            raise SessionFormatError(f"upload {session.upload_id} has a record of unknown kind {kind!r}")


def _record(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    # Through JSON and back, so that what is compared is what is stored.
    record = {"format_version": FORMAT_VERSION, "kind": kind, "body": body}
    return dict(json.loads(json.dumps(record)))


def _closed(upload_id: str) -> UploadClosedError:
    return UploadClosedError(
        f"upload {upload_id} was given up; start a new one under another id", {"upload_id": upload_id}
    )


def _record_key(prefix: str, seq: int) -> str:
    return f"{prefix}{seq:08d}"


def _write(store: ObjectStore, prefix: str, seq: int, kind: str, body: Mapping[str, Any]) -> None:
    store.create(_record_key(prefix, seq), json.dumps(_record(kind, body), separators=(",", ":")).encode())


def _read(store: ObjectStore, key: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(store.get(key))
    version = record.get("format_version")
    if version not in READABLE_VERSIONS:
        raise SessionFormatError(
            f"an upload record has format version {version}; this server reads "
            f"{', '.join(map(str, READABLE_VERSIONS))}; use a newer server"
        )
    return record
