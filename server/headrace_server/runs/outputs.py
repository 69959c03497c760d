"""The outputs of a run: one overwriting commit for each table, and its rows if the caller asks for them."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from headrace.v1 import run_pb2
from headrace_compute.delta import tables
from headrace_compute.model import Snapshot
from headrace_server.reading import arrow_streams
from headrace_server.runs.job import MadeTable
from headrace_server.services import Services, TableCommit


async def commit_output(
    services: Services, tenant: str, table: MadeTable, transaction: str, metadata: Mapping[str, str]
) -> Snapshot:
    """Makes the parts the newest version of a derived table; older versions stay readable.

    Raises:
        WrongTableKindError: The table holds something else.
    """
    commit = TableCommit(
        key=table.key,
        kind=table.kind,
        schema=table.schema,
        parts=table.parts,
        transaction=transaction,
        metadata=metadata,
        overwrite=True,
    )
    version = await services.commit(tenant, commit)
    return await asyncio.to_thread(tables.open_table, services.config, table.key, version)


async def row_messages(
    services: Services, tenant: str, output: run_pb2.TableVersion
) -> AsyncIterator[run_pb2.RunRows]:
    """All rows of an output."""
    key = tables.table_key(services.config, tenant, output.table)
    snapshot = await asyncio.to_thread(tables.open_table, services.config, key, output.version)
    async for stream in arrow_streams(services, snapshot):
        yield run_pb2.RunRows(table=output.table, arrow_ipc=stream)
