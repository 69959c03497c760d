"""Reading tables back: which there are, and their rows, a row group at a time."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from google.protobuf import json_format

from headrace.v1 import table_pb2
from headrace_compute.errors import InvalidFieldError, TableNotFoundError
from headrace_compute.model import ROW_GROUP_ROWS, DataFile, Snapshot
from headrace_compute.stages.reading import column_names, read_ipc, read_json
from headrace_compute.storage import tables
from headrace_server import requests
from headrace_server.services import Services

JSON_ROWS = 1_000
"""Rows of a JSON message at most."""


async def list_tables(services: Services, tenant: str) -> table_pb2.ListTablesResponse:
    """The newest version of each of a tenant's tables."""
    found = await asyncio.to_thread(tables.list_tables, services.config, requests.check_tenant(tenant))
    response = table_pb2.ListTablesResponse()
    for name, snapshot in found:
        table = response.tables.add(
            name=name,
            kind=snapshot.kind,
            uri=snapshot.uri,
            version=snapshot.version,
            rows=snapshot.rows,
            size_bytes=sum(file.size_bytes for file in snapshot.files),
            files=len(snapshot.files),
        )
        table.update_time.FromMicroseconds(snapshot.committed_us)
    return response


async def read_table(
    services: Services, request: table_pb2.ReadTableRequest
) -> AsyncIterator[table_pb2.ReadTableResponse]:
    """Streams rows of one version of a table; how fast the client reads decides how fast we do."""
    tenant = requests.check_tenant(request.tenant_id)
    if request.encoding not in table_pb2.RowEncoding.values():
        raise requests.invalid("encoding", f"encoding is {request.encoding}; it must be a RowEncoding")
    version = request.version if request.HasField("version") else None
    snapshot = await open_by_name(services, tenant, request.table, version)
    columns = await _columns(services, snapshot, request.columns)
    yield table_pb2.ReadTableResponse(
        started=table_pb2.ReadTableStarted(
            table_uri=snapshot.uri, version=snapshot.version, rows=snapshot.rows, columns=columns
        )
    )
    left = request.limit or snapshot.rows
    if request.encoding == table_pb2.ROW_ENCODING_ARROW_IPC:
        for file, group, count in _row_groups(snapshot.files, left):
            stream = await services.pool.run(read_ipc, file, group, columns, count)
            yield table_pb2.ReadTableResponse(arrow_ipc=stream)
        return
    for file, group, count in _row_groups(snapshot.files, left):
        rows = await services.pool.run(read_json, file, group, columns, count)
        for start in range(0, len(rows), JSON_ROWS):
            text = f'{{"rows":[{",".join(rows[start : start + JSON_ROWS])}]}}'
            message = await asyncio.to_thread(json_format.Parse, text, table_pb2.JsonRows())
            yield table_pb2.ReadTableResponse(json=message)


async def arrow_streams(services: Services, snapshot: Snapshot) -> AsyncIterator[bytes]:
    """All rows of a table version as Arrow IPC streams, each complete in itself."""
    columns = await services.pool.run(column_names, snapshot.files)
    for file, group, count in _row_groups(snapshot.files, snapshot.rows):
        yield await services.pool.run(read_ipc, file, group, columns, count)


async def open_by_name(services: Services, tenant: str, name: str, version: int | None) -> Snapshot:
    """Opens a tenant's table by the name ListTables gives it.

    Raises:
        TableNotFoundError: The tenant has no such table, or the name could never be one.
        VersionNotFoundError: The table has no such version.
    """
    try:
        key = tables.table_key(services.config, tenant, name)
    except InvalidFieldError:
        raise TableNotFoundError(f"there is no table {name[:80]!r}", {"table": name}) from None
    return await asyncio.to_thread(tables.open_table, services.config, key, version)


async def _columns(services: Services, snapshot: Snapshot, wanted: Sequence[str]) -> list[str]:
    """The columns to read, all if none are named."""
    names = await services.pool.run(column_names, snapshot.files)
    if unknown := [name for name in wanted if name not in names]:
        raise requests.invalid(
            "columns", f"the table has no column {unknown[0][:80]!r}; it has {', '.join(names)}"
        )
    return list(wanted) or names


def _row_groups(files: Sequence[DataFile], limit: int) -> list[tuple[DataFile, int, int]]:
    """File, row group and rows to take of it, until there are `limit`."""
    found: list[tuple[DataFile, int, int]] = []
    for file in files:
        for group in range(-(-file.rows // ROW_GROUP_ROWS)):
            rows = min(ROW_GROUP_ROWS, file.rows - group * ROW_GROUP_ROWS, limit)
            if rows <= 0:
                return found
            found.append((file, group, rows))
            limit -= rows
    return found
