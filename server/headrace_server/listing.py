"""Lists tenants' tables."""

import asyncio
from collections import OrderedDict
from contextlib import ExitStack, suppress
from threading import Lock

from headrace.v1 import table_pb2
from headrace_compute.delta import tables
from headrace_compute.errors import OverloadedError, TableNotFoundError
from headrace_compute.model import Snapshot, StoreConfig
from headrace_server.rpc import requests
from headrace_server.rpc.limits import Limit

LISTED_TABLES = 5_000
"""Tables of a list at most: 2 MiB, if the store's root has a name of usual length."""

LISTS_AT_ONCE = 2
"""Lists being made: each opens all tables of a tenant, and must leave threads to other calls."""

KEPT_TABLES = 20_000
"""Tables whose newest versions are known, those last listed; about 500 bytes each."""

_Question = tuple[str, str, int]


class TableLists:
    """Lists tenants' tables. Whoever asks while the same list is waiting to be made shares it.

    A list that is being made already may lack what was committed since, so it is shared with nobody new:
    of each there are two at most. Belongs to one event loop.

    Args:
        limit: On lists that wait or are made, whether somebody still waits for them or not.
    """

    def __init__(self, config: StoreConfig, limit: Limit) -> None:
        self._newest = NewestVersions(config)
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
                    return await asyncio.to_thread(self._newest.page, *question)
                finally:
                    del self._making[question]


def _seen(task: asyncio.Task[table_pb2.ListTablesResponse]) -> None:
    """Takes an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


class NewestVersions:
    """The newest versions of tables; threads share it.

    To open a table costs milliseconds, to see that none followed the version that was opened a tenth of one.
    """

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._known = OrderedDict[str, table_pb2.Table]()
        self._changing = Lock()

    def page(self, tenant: str, after: str, count: int) -> table_pb2.ListTablesResponse:
        """At most `count` of a tenant's tables, by name, those behind a name.

        Raises:
            InvalidFieldError: No table has that name, so no page has ended with it.
        """
        names = tables.table_names(self._config, tenant)
        if after and after not in names:
            raise requests.bad_page_token(after)
        names = [name for name in names if name > after]
        response = table_pb2.ListTablesResponse()
        for name in names[:count]:
            with suppress(TableNotFoundError):
                response.tables.append(self._table(tables.table_key(self._config, tenant, name)))
        if len(names) > count:
            # A name without a commit may be gone by the next page; a table is never dropped.
            response.next_page_token = response.tables[-1].name if response.tables else names[count - 1]
        return response

    def _table(self, key: str) -> table_pb2.Table:
        with self._changing:
            known = self._known.pop(key, None)
        if known is None or not tables.is_newest(
            self._config, key, known.version, known.update_time.ToMicroseconds()
        ):
            known = _summed_up(tables.open_table(self._config, key))
        with self._changing:
            self._known[key] = known
            while len(self._known) > KEPT_TABLES:
                self._known.popitem(last=False)
        return known


def _summed_up(snapshot: Snapshot) -> table_pb2.Table:
    table = table_pb2.Table(
        name=tables.table_name(snapshot.table_key),
        kind=snapshot.kind,
        uri=snapshot.uri,
        version=snapshot.version,
        rows=snapshot.rows,
        size_bytes=sum(file.size_bytes for file in snapshot.files),
        files=len(snapshot.files),
    )
    table.update_time.FromMicroseconds(snapshot.committed_us)
    return table
