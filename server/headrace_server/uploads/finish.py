"""Finish: from persisted blocks to one table version.

`close` fixes an upload's outcome in its finish record; `roll_forward` carries
it out. Any server can roll any finished session forward, any number of times,
with the same end: see the table of crashes in ARCHITECTURE.md.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import structlog

from headrace_compute.delta import tables
from headrace_compute.errors import FencedError, PartLostError, StoreUnavailableError
from headrace_compute.findings import Findings
from headrace_compute.ingest.block_result import part_from_json
from headrace_compute.ingest.verify import verify_parts
from headrace_compute.model import Part
from headrace_compute.workers.pool import Executor
from headrace_server import __version__, metrics
from headrace_server.rows.duplicates import settle_duplicates
from headrace_server.rows.options import UploadOptions
from headrace_server.services import Services, TableCommit
from headrace_server.uploads import session as sessions
from headrace_server.uploads import sweep
from headrace_server.uploads.session import Session
from headrace_server.uploads.spec import spec_of

VERIFY_PARTS = 8
"""Parts that one task verifies."""

_log = structlog.get_logger(__name__)


async def close(services: Services, session: Session, total_size: int, crc32c: int | None = None) -> Session:
    """Fixes the outcome of an upload whose blocks are all persisted, in its finish record.

    Args:
        total_size: Bytes of the stream, or rows for ROWS.
        crc32c: CRC-32C of the stream; None where it is not known, and for rows.

    Raises:
        FencedError: A newer stream took over.
        UploadClosedError: The upload was given up.
        PartLostError: The store has lost a part of it, of those that cannot be written again.
    """
    options = UploadOptions.from_json(session.header)
    spec = spec_of(services.config, options, session.upload_id, session.started_us)
    executor = services.pool.executor(session.tenant, session.upload_id)
    blocks = [block.result for block in session.blocks]
    try:
        settled = await settle_duplicates(executor, spec, blocks, session.findings)
        parts = [block.data for block in settled.blocks if block.data is not None]
        rejects = [block.rejects for block in settled.blocks if block.rejects]
        await _verify(executor, [*parts, *(part for group in rejects for part in group)])
    except PartLostError as error:
        # Whoever took over may have finished, and swept what this attempt wrote.
        await asyncio.to_thread(sessions.check_newest, services.config, session)
        await _verify(executor, [part for block in blocks for part in block.parts])
        raise StoreUnavailableError("What finish wrote is gone from the store; finish again.") from error
    findings = settled.findings
    _check_counts(session, findings, parts)
    refusal = options.refusal(findings.received, findings.bad_records)
    body = {
        "outcome": "REFUSED" if refusal else "COMMITTED" if parts else "EMPTY",
        "refusal": refusal,
        "total_size": total_size,
        "crc32c": crc32c,
        "received": findings.received,
        "accepted": findings.accepted,
        "rejected": findings.rejected,
        "duplicates": findings.duplicates,
        "parts": [asdict(part) for part in parts],
        "rejects": [[asdict(part) for part in group] for group in rejects],
        "findings": findings.to_json(),
    }
    return await asyncio.to_thread(sessions.append, services.config, session, "finish", body)


async def roll_forward(services: Services, session: Session, *, verified: bool = False) -> Session:
    """Makes the commits of a finished session and writes its done record, unless that is done.

    Args:
        verified: Whether `close` has just verified the parts. Else they are verified here: Delta takes
            files that are missing, and much may have happened since the finish record.

    Returns:
        The session with its `done` body: the versions committed.

    Raises:
        PartLostError: The store has lost a part; nothing is committed, now or later.
    """
    if session.finish is None:
        raise ValueError(f"upload {session.upload_id} has no finish record to roll forward from")
    if session.done is not None:
        return session
    options = UploadOptions.from_json(session.header)
    finish = session.finish
    if not verified:
        groups = [finish["parts"], *finish["rejects"]]
        executor = services.pool.executor(session.tenant, session.upload_id)
        await _verify(executor, [part_from_json(part) for group in groups for part in group])
    published = finish["outcome"] == "COMMITTED"
    metadata = {
        "headrace.upload_id": session.upload_id,
        "headrace.rows": str(finish["accepted"]),
        "headrace.received": str(finish["received"]),
        "headrace.rejected": str(finish["rejected"]),
        "headrace.code_version": __version__,
    }
    done: dict[str, Any] = {"rejects_version": None, "version": None}
    if finish["rejects"]:
        commit = TableCommit(
            key=tables.rejects_key(services.config, options.tenant),
            kind="rejects",
            schema=tables.SCHEMAS["rejects"],
            parts=tuple(part_from_json(part) for group in finish["rejects"] for part in group),
            transaction=f"{session.upload_id}/rejects",
            metadata=metadata,
            partition={"published": "true" if published else "false"},
        )
        done["rejects_version"] = await services.commit(options.tenant, commit)
    if published:
        commit = TableCommit(
            key=tables.table_key(services.config, options.tenant, options.data_type),
            kind=options.data_type,
            schema=tables.SCHEMAS[options.data_type],
            parts=tuple(part_from_json(part) for part in finish["parts"]),
            transaction=f"{session.upload_id}/data",
            metadata=metadata,
        )
        done["version"] = await services.commit(options.tenant, commit)
    try:
        session = await asyncio.to_thread(sessions.append, services.config, session, "done", done)
    except FencedError:
        # Another roll-forward of the same finish record came first; its record says the same.
        again = await asyncio.to_thread(sessions.load, services.config, session.tenant, session.upload_id)
        if again is None or again.done is None:
            raise
        return again
    _count(options, finish)
    services.spawn(asyncio.to_thread(sweep.clear, services.config, session))
    return session


async def _verify(executor: Executor, parts: Sequence[Part]) -> None:
    """Reads every part back and compares size, rows and checksum, several at a time."""
    chunks = [tuple(parts[i : i + VERIFY_PARTS]) for i in range(0, len(parts), VERIFY_PARTS)]
    await asyncio.gather(*(executor.run(verify_parts, chunk) for chunk in chunks))


def _check_counts(session: Session, findings: Findings, parts: Sequence[Part]) -> None:
    """Refuses to fix an outcome in which a row was lost or doubled.

    Three counts that nobody derives from each other: what was framed, what was validated, what
    the parts hold. received = accepted + rejected holds of them, or nothing is committed.
    """
    framed = sum(block.result.block.rows for block in session.blocks)
    stored = sum(part.rows for part in parts)
    if not framed == findings.received == stored + findings.rejected:
        raise AssertionError(
            f"{framed} rows were received and {findings.received} validated, of which "
            f"{findings.rejected} were rejected, but the parts hold {stored}"
        )


def _count(options: UploadOptions, finish: Mapping[str, Any]) -> None:
    metrics.UPLOADS.labels(options.data_type, finish["outcome"]).inc()
    for result in ("accepted", "rejected", "duplicates"):
        metrics.ROWS.labels(options.data_type, result).inc(finish[result])
    _log.info(
        "upload ended", outcome=finish["outcome"], received=finish["received"], accepted=finish["accepted"]
    )
