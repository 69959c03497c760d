"""Finish: from the record that fixes what a run wrote to the one that tells its result.

Any server can roll any run forward, any number of times, with the same end; see the table of crashes in
ARCHITECTURE.md.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from google.protobuf import json_format

from headrace_compute.errors import HeadraceError
from headrace_compute.ingest.verify import verify_parts
from headrace_compute.inputs.workers import Progress
from headrace_compute.model import Part
from headrace_compute.objects.store import KeyMissingError
from headrace_compute.workers.pool import Executor
from headrace_server.runs import journals, registry
from headrace_server.runs.job import RunKind, made_from_json
from headrace_server.runs.journals import Ending, JournaledRun, OvertakenError
from headrace_server.runs.outputs import commit_output, settled
from headrace_server.services import Services

VERIFY_PARTS = 8
"""Parts that one task verifies."""

_log = structlog.get_logger(__name__)


async def roll_forward(
    services: Services, run: JournaledRun, kind: RunKind[Any], report: Progress, *, verified: bool = False
) -> None:
    """Makes the commits of a run whose parts are fixed and writes its done record, unless that is done.

    Args:
        verified: Whether the parts have just been written; else they are read back first: Delta takes files
            that are missing.

    Raises:
        PartLostError: The store has lost a part.
        WrongTableKindError: A table holds something else.
        OvertakenError: The run has ended otherwise.
    """
    if run.commit is None:
        raise ValueError(f"run {run.request_id} has no commit record to roll forward from")
    made = made_from_json(kind, run.commit)
    if not verified:
        executor = services.pool.executor(run.tenant, run.run_id)
        await _verify(executor, [part for table in made.tables for part in table.parts])
    metadata = {
        **run.commit["lineage"],
        "headrace.run_id": run.run_id,
        "headrace.request_id": run.request_id,
        registry.ATTEMPT: run.commit["attempt"],
    }
    outputs = []
    report("commit", 0, len(made.tables))
    for table in made.tables:
        transaction = registry.transaction(run.run_id, table.kind)
        outputs.append(await commit_output(services, run.tenant, table, transaction, metadata))
        report("commit", len(outputs), len(made.tables))
    told = await settled(services, run.tenant, run.run_id, made, outputs)
    result = json_format.MessageToDict(told, preserving_proto_field_name=True)
    try:
        await asyncio.to_thread(journals.end, services.config, run, "done", {"result": result})
    except OvertakenError:
        # Another roll-forward of the same record came first; its record says the same.
        again = await asyncio.to_thread(journals.load, services.config, run.tenant, run.request_id)
        if again is None or again.done is None:
            raise
    # Whose server may be dead: it has written all that it ever will.
    await asyncio.to_thread(registry.remove, services.config, run.tenant, run.commit["attempt"])


async def conclude(
    services: Services, run: JournaledRun, ending: Ending, body: Mapping[str, Any]
) -> JournaledRun | None:
    """Ends a run other than well, and returns it; unless it has an end, or another attempt than it had.

    One that is to stop ends cancelled, whatever became of it.
    """
    while True:
        newest = await asyncio.to_thread(journals.load, services.config, run.tenant, run.request_id)
        if newest is None or newest.is_over or newest.attempts != run.attempts:
            return newest
        told = ("cancelled", {}) if newest.is_cancelling else (ending, body)
        try:
            return await asyncio.to_thread(journals.end, services.config, newest, *told)
        except OvertakenError:
            continue


async def fail(services: Services, run: JournaledRun, error: HeadraceError) -> JournaledRun | None:
    """As `conclude`, with an error."""
    failure = {"reason": error.reason, "message": error.message, "attributes": error.attributes}
    return await conclude(services, run, "failed", {"failure": failure})


async def clear_attempts(services: Services, run: JournaledRun) -> None:
    """Deletes what the attempts at a run wrote, none of which will be committed.

    Their entries stay until they are old: a server that is only slow may still write for one of them.
    """
    config = services.config
    for attempt in run.attempts:
        try:
            key = registry.entry_key(config, run.tenant, attempt)
            entry = await asyncio.to_thread(registry.read, config, key)
        except KeyMissingError:
            continue
        parts = await asyncio.to_thread(registry.clear_parts, config, entry)
        _log.info("attempt cleared", tenant=run.tenant, request_id=run.request_id, parts=parts)


async def _verify(executor: Executor, parts: Sequence[Part]) -> None:
    """Reads every part back, several at a time."""
    chunks = [tuple(parts[i : i + VERIFY_PARTS]) for i in range(0, len(parts), VERIFY_PARTS)]
    await asyncio.gather(*(executor.run(verify_parts, chunk) for chunk in chunks))
