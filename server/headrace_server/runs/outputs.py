"""The outputs of a run: one overwriting commit for each table, and its rows if the caller asks for them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pyarrow as pa

from headrace.v1 import run_pb2
from headrace_compute.delta import tables
from headrace_compute.model import Part, Snapshot
from headrace_server.reading import arrow_streams
from headrace_server.runs.registry import RunEntry
from headrace_server.services import Services, TableCommit


async def commit_output(
    services: Services,
    run: RunEntry,
    key: str,
    schema: pa.Schema,
    parts: Sequence[Part],
    lineage: Mapping[str, str],
) -> Snapshot:
    """Makes the parts the newest version of a derived table; older versions stay readable.

    Raises:
        WrongTableKindError: The table holds something else.
    """
    commit = TableCommit(
        key=key,
        kind=run.outputs[key],
        schema=schema,
        parts=tuple(parts),
        transaction=run.transaction(key),
        metadata={**lineage, "headrace.run_id": run.run_id},
        overwrite=True,
    )
    version = await services.commit(run.tenant, commit)
    return await asyncio.to_thread(tables.open_table, services.config, key, version)


async def row_messages(services: Services, snapshot: Snapshot) -> AsyncIterator[run_pb2.RunRows]:
    """All rows of an output."""
    table = tables.table_name(snapshot.table_key)
    async for stream in arrow_streams(services, snapshot):
        yield run_pb2.RunRows(table=table, arrow_ipc=stream)
