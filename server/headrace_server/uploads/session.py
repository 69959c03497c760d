"""The session log: the durable record of an upload, and its only source of truth.

A session is the journal `{raw bucket}/_headrace/uploads/{tenant}/{upload_id}/`. Its state is the
fold of the records; ARCHITECTURE.md draws the states. A writer that loses a create
re-reads, and is fenced if another stream has opened a newer epoch. Functions that are not `async`
block: call them in a thread.
"""

import asyncio
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headrace_compute.errors import (
    FencedError,
    HeadraceError,
    IdInUseError,
    UploadClosedError,
    UploadFinishedError,
    class_of,
)
from headrace_compute.findings import Findings
from headrace_compute.model import StagedObject, StoreConfig
from headrace_server.journal.listing import name_of
from headrace_server.journal.log import JournalFormatError, NumberTakenError, Record
from headrace_server.rows.blocks import PersistedBlock
from headrace_server.uploads import index
from headrace_server.uploads.immutable_list import ImmutableList
from headrace_server.uploads.records import journal_of, session_prefix

__all__ = [
    "Session",
    "abort",
    "append",
    "fold",
    "give_up",
    "load",
    "open_session",
    "session_prefix",
    "staged_prefix",
]

PASSING = frozenset({"staged", "block", "alive"})
"""Kinds that may be swept once the session has ended. Every other record stays, so that the number
at which an older stream would continue is always taken, and a sweep never unfences it."""


@dataclass(frozen=True)
class Session:
    """An upload's state: the fold of its records.

    Attributes:
        header: The UploadHeader it was opened with, as proto JSON.
        started_us: When it was opened; the `ingested_at` of its rows.
        owner: Id of the stream that may append; each epoch names a new one.
        columns: CSV header line, once a block was persisted; None before.
        staged: Pieces of the stream as it was sent, for formats that are decoded after finish.
        blocks: What is persisted, with nothing but counts for findings.
        findings: Those of all blocks together.
        finish: Body of the finish record: outcome, parts, counts.
        done: Body of the done record: the result, as proto JSON.
        aborted: Why it was given up: `aborted`, `expired` or `failed`; empty if it was not.
        failure: The error that a failed one was given up for, as its record has it.
        next_seq: Number of the next record.
        lasting: Numbers of the records that no sweep takes.
    """

    tenant: str
    upload_id: str
    header: Mapping[str, Any]
    started_us: int
    owner: str
    next_seq: int
    columns: str | None = None
    staged: ImmutableList[StagedObject] = field(default_factory=ImmutableList)
    blocks: ImmutableList[PersistedBlock] = field(default_factory=ImmutableList)
    findings: Findings = field(default_factory=Findings)
    finish: Mapping[str, Any] | None = None
    done: Mapping[str, Any] | None = None
    aborted: str = ""
    failure: Mapping[str, Any] | None = None
    lasting: tuple[int, ...] = (0,)

    @property
    def persisted_offset(self) -> int:
        """How much of the stream survives any crash: bytes, or rows for ROWS."""
        if self.finish is not None:
            return int(self.finish["total_size"])
        if self.staged:
            return self.staged[-1].end_offset
        return self.blocks[-1].result.block.end_offset if self.blocks else 0

    @property
    def persisted_crc32c(self) -> int | None:
        """CRC-32C of the stream up to persisted_offset; None where it is not known, and for rows."""
        if self.finish is not None:
            crc32c: int | None = self.finish.get("crc32c")
            return crc32c
        if self.staged:
            return self.staged[-1].crc32c
        if self.blocks:
            return self.blocks[-1].crc32c
        return None if self.header["format"] == "rows" else 0


def staged_prefix(config: StoreConfig, tenant: str, upload_id: str) -> str:
    """Key prefix of a session's staged objects."""
    return f"{session_prefix(config, tenant, upload_id)}staged/"


async def open_session(
    config: StoreConfig, tenant: str, upload_id: str, header: Mapping[str, Any]
) -> Session:
    """Opens the session of an upload, or takes it over if it exists with the same header.

    A finished session is returned as it is: it has no owner any more.

    Raises:
        IdInUseError: It exists with another header.
        UploadClosedError: It was given up.
        HeadraceError: It was given up for this error.
    """
    return await asyncio.to_thread(_open, config, tenant, upload_id, header)


def load(config: StoreConfig, tenant: str, upload_id: str) -> Session | None:
    """The session as the store has it; None if there is none."""
    found = journal_of(config, tenant, upload_id).read_all()
    return fold(tenant, upload_id, found) if found else None


def append(config: StoreConfig, session: Session, kind: str, body: Mapping[str, Any]) -> Session:
    """Appends a record as the session's owner.

    Raises:
        FencedError: Another stream of this upload has taken over, or ended it.
        UploadClosedError: The upload was given up meanwhile.
    """
    journal = journal_of(config, session.tenant, session.upload_id)
    record = journal.record(kind, body)
    try:
        journal.append(session.next_seq, record)
    except NumberTakenError as taken:
        found = taken.found
        if found is None or found["kind"] != "abort":
            raise fenced(session.upload_id) from None
        if kind != "abort" or "failure" in body:
            raise closed(session.upload_id, found["body"]["reason"]) from None
        # Two gave the upload up at once; either record says so.
    return _apply(session, session.next_seq, record)


def check_newest(config: StoreConfig, session: Session) -> None:
    """Checks that no other stream has appended to a session since its owner last did.

    Raises:
        FencedError: Another stream of this upload has taken over, or ended it.
    """
    journal = journal_of(config, session.tenant, session.upload_id)
    if journal.find(session.next_seq) is not None:
        raise fenced(session.upload_id)


def abort(config: StoreConfig, session: Session, reason: str) -> Session:
    """Gives an upload up for good, whoever owns it; again is no error.

    Args:
        reason: `aborted` or `expired`.

    Raises:
        UploadFinishedError: It has finished: its outcome is fixed.
    """
    while not session.aborted:
        if session.finish is not None:
            raise UploadFinishedError.of(session.upload_id)
        try:
            return append(config, session, "abort", {"reason": reason})
        except (FencedError, UploadClosedError):
            # Another record came first; each round sees at least one more.
            session = load(config, session.tenant, session.upload_id) or session
    return session


def give_up(config: StoreConfig, session: Session, error: HeadraceError) -> Session:
    """Closes an open upload, as its owner, because of an error that every retry would meet again.

    Raises:
        FencedError: Another stream of this upload has taken over.
        UploadClosedError: The upload was given up meanwhile.
    """
    failure = {"reason": error.reason, "message": error.message, "attributes": error.attributes}
    return append(config, session, "abort", {"reason": "failed", "failure": failure})


def fold(tenant: str, upload_id: str, numbered: Iterable[tuple[int, Record]]) -> Session:
    """The state that records, with their numbers, amount to."""
    session: Session | None = None
    for seq, record in numbered:
        if session is None:
            body = record["body"]
            session = Session(
                tenant, upload_id, body["header"], body["started_us"], body["owner"], next_seq=1
            )
        else:
            session = _apply(session, seq, record)
    if session is None:
        raise ValueError("a session has at least its open record")
    return session


def fenced(upload_id: str) -> FencedError:
    """The error for a stream that is no longer its upload's newest."""
    return FencedError(
        f"A newer stream of upload {upload_id} took over; this one ends here.", {"upload_id": upload_id}
    )


def closed(upload_id: str, reason: str) -> UploadClosedError:
    """The error for an upload that was given up: `aborted`, `expired` or `failed`."""
    how = {"expired": "given up, as nobody went on with it", "failed": "given up, as it can never succeed"}
    return UploadClosedError(
        f"Upload {upload_id} was {how.get(reason, reason)}; start a new one under another id.",
        {"upload_id": upload_id},
    )


def ending(session: Session) -> HeadraceError:
    """The error that every later call about an upload that was given up gets, always the same."""
    if session.failure is None:
        return closed(session.upload_id, session.aborted)
    kind = class_of(session.failure["reason"])
    return kind(session.failure["message"], session.failure["attributes"])


def _open(config: StoreConfig, tenant: str, upload_id: str, header: Mapping[str, Any]) -> Session:
    owner, now_us = uuid.uuid4().hex, time.time_ns() // 1000
    body = {"header": dict(header), "started_us": now_us, "owner": owner}
    # In the index first: a session that is not there would never be swept.
    entries = index.open_uploads(config)
    is_new = entries.add(tenant, upload_id)
    journal = journal_of(config, tenant, upload_id)
    try:
        journal.append(0, journal.record("open", body))
    except NumberTakenError:
        session = _take_over(config, tenant, upload_id, header, owner)
        _list(config, session)
        if is_new and session.done is not None:
            entries.remove(tenant, upload_id)  # It had ended and been swept.
        return session
    if not is_new:
        entries.restore(tenant, upload_id)
    session = Session(tenant, upload_id, header, now_us, owner, next_seq=1)
    _list(config, session)
    return session


def _list(config: StoreConfig, session: Session) -> None:
    """Enters a session into the listing, by the time that only its first record tells."""
    name = name_of(session.started_us, session.upload_id)
    index.listed_uploads(config).add(session.tenant, name)


def _take_over(
    config: StoreConfig, tenant: str, upload_id: str, header: Mapping[str, Any], owner: str
) -> Session:
    """Opens a new epoch, which fences every older stream."""
    while True:
        session = load(config, tenant, upload_id)
        if session is None:
            raise closed(upload_id, "expired")
        if session.header != header:
            raise IdInUseError(
                f"Field upload_id is {upload_id}, which belongs to an upload with another header; "
                "choose a new id.",
                {"upload_id": upload_id},
            )
        if session.aborted:
            raise ending(session)
        if session.finish is not None:
            return session
        try:
            return append(config, session, "epoch", {"owner": owner})
        except (FencedError, UploadClosedError):
            continue  # Another record came first; each round sees at least one more.


def _apply(session: Session, seq: int, record: Record) -> Session:
    kind, body = record["kind"], record["body"]
    session = replace(session, next_seq=seq + 1)
    if kind not in PASSING:
        session = replace(session, lasting=(*session.lasting, seq))
    match kind:
        case "alive":
            return session
        case "epoch":
            return replace(session, owner=body["owner"])
        case "block":
            return _with_block(session, body)
        case "staged":
            return replace(session, staged=session.staged.appended(StagedObject(**body)))
        case "finish":
            return replace(session, finish=body)
        case "done":
            return replace(session, done=body)
        case "abort":
            return replace(session, aborted=body["reason"], failure=body.get("failure"))
        case _:
            raise JournalFormatError(
                f"Upload {session.upload_id} has a record of unknown kind {kind!r}; use a newer server."
            )


def _with_block(session: Session, body: Mapping[str, Any]) -> Session:
    """Keeps the findings of a block only as part of the sum: they are the bulk of it."""
    block = PersistedBlock.from_json(body)
    return replace(
        session,
        columns=body.get("columns", session.columns),
        blocks=session.blocks.appended(replace(block, result=block.result.counted)),
        findings=session.findings.merge(block.result.findings),
    )
