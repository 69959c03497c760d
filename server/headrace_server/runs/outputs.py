"""The outputs of a run: one overwriting commit for each table, and its rows if the caller asks for them."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from headrace.v1 import run_pb2
from headrace_compute.delta import tables
from headrace_compute.model import Part, Snapshot
from headrace_server.reading import arrow_streams
from headrace_server.runs import statistics
from headrace_server.runs.job import Made, MadeTable, RunResult
from headrace_server.services import Services, TableCommit


async def commit_output(
    services: Services, tenant: str, table: MadeTable[Part], transaction: str, metadata: Mapping[str, str]
) -> Snapshot:
    """Makes the parts the newest version of a derived table; older versions stay readable.

    Raises:
        WrongTableKindError: The table holds something else.
    """
    if table.statistics:
        metadata = {**metadata, tables.STATISTICS: table.statistics}
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


async def settled(
    services: Services, tenant: str, run_id: str, made: Made[Part], outputs: list[Snapshot]
) -> RunResult:
    """What is told of a run whose tables are committed, once the table of statistics has them too."""
    result = made.committed(outputs)
    if isinstance(result, run_pb2.FeaturesResult) and made.has_statistics:
        await statistics.record(services, tenant, run_id, outputs)
        result.warnings.extend(await statistics.drift_warnings(services, made.limits, outputs))
    return result


async def row_messages(
    services: Services, tenant: str, output: run_pb2.TableVersion
) -> AsyncIterator[run_pb2.RunRows]:
    """All rows of an output."""
    key = tables.table_key(services.config, tenant, output.table)
    snapshot = await asyncio.to_thread(tables.open_table, services.config, key, output.version)
    async for stream in arrow_streams(services, snapshot):
        yield run_pb2.RunRows(table=output.table, arrow_ipc=stream)
