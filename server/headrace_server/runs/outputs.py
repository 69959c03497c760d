"""What a run writes: one overwriting commit a table, and its rows for callers who want them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pyarrow as pa

from headrace.v1 import run_pb2
from headrace_compute.model import Kind, Part, Snapshot
from headrace_compute.storage import tables
from headrace_server.reading import arrow_streams
from headrace_server.services import Services, TableCommit


async def commit_output(
    services: Services,
    tenant: str,
    key: str,
    kind: Kind,
    schema: pa.Schema,
    parts: Sequence[Part],
    run_id: str,
    lineage: Mapping[str, str],
) -> Snapshot:
    """Makes the parts the newest version of a derived table; older versions stay readable.

    Raises:
        WrongTableKindError: The table holds something else.
    """
    commit = TableCommit(
        key=key,
        kind=kind,
        schema=schema,
        parts=tuple(parts),
        transaction=f"{run_id}/{kind}",
        metadata={**lineage, "headrace.run_id": run_id},
        overwrite=True,
    )
    version = await services.commit(tenant, commit)
    return await asyncio.to_thread(tables.open_table, services.config, key, version)


async def row_messages(services: Services, snapshot: Snapshot) -> AsyncIterator[run_pb2.RunRows]:
    """All rows of an output."""
    table = tables.table_name(snapshot.table_key)
    async for stream in arrow_streams(services, snapshot):
        yield run_pb2.RunRows(table=table, arrow_ipc=stream)
