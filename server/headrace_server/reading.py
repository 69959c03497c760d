"""Reads tables: lists them, and streams their rows one row group at a time."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from headrace.v1 import table_pb2
from headrace_compute.delta import tables
from headrace_compute.errors import InvalidFieldError, OverloadedError, TableNotFoundError
from headrace_compute.inputs.reading import column_names, pieces_of, read_ipc, read_structs, unpacked
from headrace_compute.model import DataFile, Snapshot, StoreConfig
from headrace_compute.workers.pool import Executor
from headrace_server.rpc import requests
from headrace_server.rpc.limits import Limit
from headrace_server.rpc.pages import consumed
from headrace_server.services import Services

JSON_ROWS = 250
"""Rows of a JSON message at most; the contract allows 1,000, of which each read would hold as many."""

LISTED_TABLES = 5_000
"""Tables of a list at most: 2 MiB, if the store's root has a name of usual length."""

LISTS_AT_ONCE = 2
"""Lists being made: each opens all tables of a tenant, and must leave threads to other calls."""

KEPT_VERSIONS = 64
"""Versions that stay open for reads to come, the latest read."""

KEPT_FILES = 1_000
"""Files of one of these at most; about 300 bytes each."""

_Question = tuple[str, str, int]


class TableLists:
    """Lists tenants' tables. Whoever asks while the same list is waiting to be made shares it.

    A list that is being made already may lack what was committed since, so it is shared with nobody new:
    of each there are two at most. Belongs to one event loop.

    Args:
        limit: On lists that wait or are made, whether somebody still waits for them or not.
    """

    def __init__(self, config: StoreConfig, limit: Limit) -> None:
        self._config = config
        self._limit = limit
        self._turns = asyncio.Semaphore(LISTS_AT_ONCE)
        self._waiting: dict[_Question, asyncio.Task[table_pb2.ListTablesResponse]] = {}
        self._making: dict[_Question, asyncio.Task[table_pb2.ListTablesResponse]] = {}

    async def list(self, request: table_pb2.ListTablesRequest) -> table_pb2.ListTablesResponse:
        """The newest version of each of a tenant's tables, or of a page of them."""
        tenant = requests.check_tenant(request.tenant_id)
        question = tenant, request.page_token, min(request.page_size or LISTED_TABLES, LISTED_TABLES)
        task = self._waiting.get(question)
        if task is None:
            making = self._making.get(question)
            task = self._waiting[question] = asyncio.create_task(self._make(question, making))
            task.add_done_callback(_seen)
        # Whoever goes away does not call off what others wait for.
        return await asyncio.shield(task)

    async def _make(
        self, question: _Question, before: asyncio.Task[table_pb2.ListTablesResponse] | None
    ) -> table_pb2.ListTablesResponse:
        with ExitStack() as held:
            try:
                held.enter_context(self._limit.enter(question[0]))
            except OverloadedError:
                del self._waiting[question]
                raise
            if before is not None:
                await asyncio.wait((before,))
            async with self._turns:
                self._making[question] = self._waiting.pop(question)
                try:
                    return await asyncio.to_thread(_tables_of, self._config, *question)
                finally:
                    del self._making[question]


def _seen(task: asyncio.Task[table_pb2.ListTablesResponse]) -> None:
    """Takes an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _tables_of(config: StoreConfig, tenant: str, after: str, count: int) -> table_pb2.ListTablesResponse:
    """At most `count` of a tenant's tables, by name, those behind a name.

    Raises:
        InvalidFieldError: No table has that name, so no page has ended with it.
    """
    names = tables.table_names(config, tenant)
    if after and after not in names:
        raise requests.bad_page_token(after)
    names = [name for name in names if name > after]
    response = table_pb2.ListTablesResponse()
    for name, snapshot in tables.list_tables(config, tenant, names[:count]):
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
    if len(names) > count:
        # A name without a commit may be gone by the next page; a table is never dropped.
        response.next_page_token = response.tables[-1].name if response.tables else names[count - 1]
    return response


@dataclass(frozen=True)
class _Version:
    """A version of a table, opened.

    Attributes:
        columns: All of them, in order.
    """

    snapshot: Snapshot
    columns: tuple[str, ...]


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
        columns = _columns(version.columns, request.columns)
        files = _files(snapshot, request)
        yield table_pb2.ReadTableResponse(
            started=table_pb2.ReadTableStarted(
                table_uri=snapshot.uri,
                version=snapshot.version,
                rows=snapshot.rows,
                columns=columns,
                split_rows=snapshot.split_rows,
            )
        )
        pieces = pieces_of(files, request.offset, request.limit or snapshot.rows)
        if request.encoding == table_pb2.ROW_ENCODING_ARROW_IPC:
            for piece in pieces:
                for stream in consumed(await executor.run(read_ipc, piece, columns)):
                    yield table_pb2.ReadTableResponse(arrow_ipc=stream)
            return
        for piece in pieces:
            # Page by page: as messages the rows of a group take ten times their text.
            for page in consumed(await executor.run(read_structs, piece, columns, JSON_ROWS)):
                yield await self._services.packed(_json_page, page)

    async def _open(self, executor: Executor, tenant: str, request: table_pb2.ReadTableRequest) -> _Version:
        wanted = request.version if request.HasField("version") else None
        if wanted is not None and (found := self._lately.get((tenant, request.table, wanted))):
            self._lately.move_to_end((tenant, request.table, wanted))
            return found
        snapshot = await open_by_name(self._services, tenant, request.table, wanted)
        names = await executor.run(column_names, snapshot.files[:1])
        opened = _Version(snapshot, tuple(names))
        if len(snapshot.files) <= KEPT_FILES:
            self._lately[tenant, request.table, snapshot.version] = opened
        while len(self._lately) > KEPT_VERSIONS:
            self._lately.popitem(last=False)
        return opened


def _json_page(page: bytes) -> table_pb2.ReadTableResponse:
    return table_pb2.ReadTableResponse(json=table_pb2.JsonRows.FromString(unpacked(page)))


async def arrow_streams(services: Services, snapshot: Snapshot) -> AsyncIterator[bytes]:
    """All rows of a table version as Arrow IPC streams, each complete in itself."""
    columns = await services.pool.run(column_names, snapshot.files[:1])
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


def _files(snapshot: Snapshot, request: table_pb2.ReadTableRequest) -> Sequence[DataFile]:
    """The files whose rows the request is about."""
    if not request.split:
        return snapshot.files
    if request.split not in snapshot.split_rows:
        there_are = f"it has {', '.join(snapshot.split_rows)}" if snapshot.split_rows else "it has no splits"
        raise requests.invalid(
            "split",
            f"Version {snapshot.version} of table {request.table!r} has no rows of split "
            f"{request.split[:80]!r}; {there_are}.",
        )
    return [file for file in snapshot.files if file.split == request.split]
