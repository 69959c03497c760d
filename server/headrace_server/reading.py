"""Reads tables: streams their rows one row group at a time."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from headrace.v1 import table_pb2
from headrace_compute.delta import tables
from headrace_compute.errors import InvalidFieldError, PartLostError, TableNotFoundError
from headrace_compute.inputs.reading import (
    columns_of,
    no_rows,
    pieces_of,
    read_ipc,
    read_structs,
    unpacked,
)
from headrace_compute.model import DataFile, Snapshot
from headrace_compute.workers.pool import Executor
from headrace_server import lineage
from headrace_server.rpc import requests
from headrace_server.rpc.pages import consumed
from headrace_server.services import Services

JSON_ROWS = 250
"""Rows of a JSON message at most; the contract allows 1,000, of which each read would hold as many."""

KEPT_VERSIONS = 64
"""Versions that stay open for reads to come, the latest read."""

KEPT_FILES = 1_000
"""Files of one of these at most; about 300 bytes each."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Version:
    """A version of a table, opened.

    Attributes:
        schema: Its columns as they are sent.
        split_rows: Of each split, also of those without rows; empty without splits.
    """

    snapshot: Snapshot
    schema: pa.Schema
    split_rows: Mapping[str, int]


class TableReads:
    """Reads tables. Versions never change, so those read lately are not opened again.

    A trainer asks for a block of a few thousand rows at a time; to open the version costs as much.
    Belongs to one event loop.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lately = OrderedDict[tuple[str, str, int], _Version]()

    async def read(self, request: table_pb2.ReadTableRequest) -> AsyncIterator[table_pb2.ReadTableResponse]:
        """Streams rows of one version of a table, no faster than the client reads."""
        tenant = requests.check_tenant(request.tenant_id)
        requests.check_enum("encoding", table_pb2.RowEncoding, request.encoding)
        if not request.table:
            raise requests.invalid("table", "Field table is empty; name a table, as ListTables tells them.")
        # Tenants take turns: reads of one, each of which needs a worker for a while, keep no others waiting.
        executor = self._services.pool.executor(f"{tenant}/reads", "")
        version = await self._open(executor, tenant, request)
        snapshot = version.snapshot
        columns = _columns(version.schema.names, request.columns)
        files = _files(version, request)
        yield table_pb2.ReadTableResponse(
            started=table_pb2.ReadTableStarted(
                table_uri=snapshot.uri,
                version=snapshot.version,
                rows=snapshot.rows,
                columns=columns,
                split_rows=version.split_rows,
            )
        )
        pieces = list(pieces_of(files, request.offset, request.limit or snapshot.rows))
        if request.encoding == table_pb2.ROW_ENCODING_ARROW_IPC:
            if not pieces and columns:
                schema = pa.schema([version.schema.field(name) for name in columns])
                yield table_pb2.ReadTableResponse(arrow_ipc=no_rows(schema))
            for piece in pieces:
                reading = executor.run(read_ipc, piece, columns)
                for stream in consumed(await self._whole(snapshot, reading)):
                    yield table_pb2.ReadTableResponse(arrow_ipc=stream)
            return
        for piece in pieces:
            # Page by page: as messages the rows of a group take ten times their text.
            packing = executor.run(read_structs, piece, columns, JSON_ROWS)
            for page in consumed(await self._whole(snapshot, packing)):
                yield await self._services.packed(_json_page, page)

    async def _open(self, executor: Executor, tenant: str, request: table_pb2.ReadTableRequest) -> _Version:
        wanted = request.version if request.HasField("version") else None
        if wanted is not None and (found := self._lately.get((tenant, request.table, wanted))):
            self._lately.move_to_end((tenant, request.table, wanted))
            return found
        snapshot = await open_by_name(self._services, tenant, request.table, wanted)
        schema = await self._whole(snapshot, executor.run(columns_of, snapshot.files[:1]))
        rows_of = await asyncio.to_thread(lineage.split_rows, self._services.config, snapshot)
        opened = _Version(snapshot, schema, rows_of)
        if len(snapshot.files) <= KEPT_FILES:
            self._lately[tenant, request.table, snapshot.version] = opened
        while len(self._lately) > KEPT_VERSIONS:
            self._lately.popitem(last=False)
        return opened

    async def _whole(self, snapshot: Snapshot, reading: Awaitable[T]) -> T:
        """Some of a version; should that have lost a part, the error tells what to do about it."""
        try:
            return await reading
        except PartLostError as error:
            raise await asyncio.to_thread(lineage.lost, self._services.config, snapshot, error) from error


def _json_page(page: bytes) -> table_pb2.ReadTableResponse:
    return table_pb2.ReadTableResponse(json=table_pb2.JsonRows.FromString(unpacked(page)))


async def arrow_streams(services: Services, snapshot: Snapshot) -> AsyncIterator[bytes]:
    """All rows of a table version as Arrow IPC streams, each complete in itself."""
    columns = (await services.pool.run(columns_of, snapshot.files[:1])).names
    for piece in pieces_of(snapshot.files, 0, snapshot.rows):
        for stream in consumed(await services.pool.run(read_ipc, piece, columns)):
            yield stream


async def open_by_name(services: Services, tenant: str, name: str, version: int | None) -> Snapshot:
    """Opens a tenant's table by the name ListTables gives it.

    Raises:
        TableNotFoundError: The tenant has no such table, or the name could never be one.
        VersionNotFoundError: The table has no such version.
    """
    try:
        key = tables.table_key(services.config, tenant, name)
    except InvalidFieldError:
        raise TableNotFoundError(
            f"There is no table {name[:80]!r}; ListTables tells which there are.", {"table": name}
        ) from None
    return await asyncio.to_thread(tables.open_table, services.config, key, version)


def _columns(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The columns to read, all if none are named."""
    if unknown := [name for name in wanted if name not in names]:
        raise requests.invalid(
            "columns", f"The table has no column {unknown[0][:80]!r}; it has {', '.join(names)}."
        )
    if twice := [name for name, count in Counter(wanted).items() if count > 1]:
        raise requests.invalid(
            "columns", f"Field columns names {twice[0][:80]!r} twice; name each column once."
        )
    return list(wanted or names)


def _files(version: _Version, request: table_pb2.ReadTableRequest) -> Sequence[DataFile]:
    """The files whose rows the request is about."""
    snapshot = version.snapshot
    if not request.split:
        return snapshot.files
    if request.split not in version.split_rows:
        names = ", ".join(version.split_rows)
        there_are = f"it has {names}" if names else "it has no splits in files of their own"
        raise requests.invalid(
            "split",
            f"Version {snapshot.version} of table {request.table!r} has no split {request.split[:80]!r}; "
            f"{there_are}.",
        )
    return [file for file in snapshot.files if file.split == request.split]
