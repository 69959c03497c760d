"""Small ingests: unary calls whose rows share commits, and questions about them afterwards."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NoReturn, TypeAlias

from headrace.v1 import ingest_pb2, upload_pb2
from headrace_compute.delta import tables
from headrace_compute.errors import IdInUseError, UploadFinishedError, UploadNotFoundError
from headrace_compute.ingest.group import read_upload_rejects
from headrace_compute.model import DataType
from headrace_compute.workers.pool import Pool
from headrace_server.ingest import answers
from headrace_server.ingest.answers import Answer
from headrace_server.ingest.batcher import Batcher, Request
from headrace_server.rows.intake import RowMessage
from headrace_server.rows.objects import json_lines
from headrace_server.rows.options import UploadOptions
from headrace_server.rpc import ids, messages, requests
from headrace_server.rpc.bounds import MAX_INGEST_ROWS
from headrace_server.services import Services

LOOKUP_US = 86_400_000_000
"""How long GetUpload and ListRejects are sure to know a small ingest."""

MAX_TABLES = 1_000
"""Tables remembered at a time; more only while all of them have work."""

IDLE_SECONDS = 3_600.0
"""After this a table without work is forgotten; the log has what it knew."""

OBJECTS_ON_THE_LOOP = 16
OBJECT_BYTES_ON_THE_LOOP = 8 << 10
"""More rows or bytes of JSON objects than this are written as JSON off the event loop."""

Ended: TypeAlias = tuple[upload_pb2.UploadResult, upload_pb2.RowErrors]
"""How a batch ended, and the first bad rows."""


class SmallIngests:
    """The small ingests of all tenants, gathered table by table.

    Args:
        pool: Workers for small things, which bulk uploads do not occupy.
    """

    def __init__(self, services: Services, pool: Pool) -> None:
        self._services = services
        self._pool = pool
        self._batchers: dict[tuple[str, DataType], Batcher] = {}

    async def ingest(
        self, tenant_id: str, data_type: DataType, rows: Sequence[RowMessage], request_id: str
    ) -> Ended:
        """Stores a batch as an upload of its own, under the request_id if there is one."""
        requests.check_row_count("rows", rows, MAX_INGEST_ROWS)
        tenant = requests.check_tenant(tenant_id)
        upload_id = _upload_id(data_type, request_id)
        if request_id:
            digest, size_bytes = _digest(row.SerializeToString(deterministic=True) for row in rows)
        else:
            digest, size_bytes = "", sum(row.ByteSize() for row in rows)
        return await self._answered(
            tenant, data_type, Request(upload_id, rows, digest, size_bytes), request_id
        )

    async def ingest_objects(self, request: ingest_pb2.IngestRowsRequest) -> Ended:
        """The same of a batch of JSON objects."""
        requests.check_row_count("rows", request.rows, MAX_INGEST_ROWS)
        tenant = requests.check_tenant(request.tenant_id)
        data_type = requests.check_data_type(request.data_type)
        upload_id = _upload_id(data_type, request.request_id)
        small = len(request.rows) <= OBJECTS_ON_THE_LOOP and request.ByteSize() <= OBJECT_BYTES_ON_THE_LOOP
        lines = json_lines(request.rows) if small else await self._services.packed(json_lines, request.rows)
        digest, size_bytes = _digest(lines)
        ingest = Request(upload_id, lines, digest if request.request_id else "", size_bytes, "json_lines")
        return await self._answered(tenant, data_type, ingest, request.request_id)

    async def _answered(self, tenant: str, data_type: DataType, request: Request, request_id: str) -> Ended:
        try:
            answer = await self._batcher(tenant, data_type).ingest(request)
        except IdInUseError:
            raise _id_in_use(data_type, request_id) from None
        result = answers.result_message(self._services.config, tenant, data_type, answer)
        return result, answers.row_errors(answer.report)

    async def get_upload(self, request: upload_pb2.GetUploadRequest) -> upload_pb2.GetUploadResponse:
        """Tells how a small ingest ended.

        Raises:
            UploadNotFoundError: No commit of the last day tells of it.
        """
        tenant = requests.check_tenant(request.tenant_id)
        data_type, answer = await self._find(tenant, request.upload_id)
        options = UploadOptions(tenant=tenant, data_type=data_type, format="rows")
        response = upload_pb2.GetUploadResponse(
            upload_id=answer.upload_id,
            state=upload_pb2.UPLOAD_STATE_DONE,
            header=options.to_header(answer.upload_id),
            persisted_offset=answer.report.rows_received,
            result=answers.result_message(self._services.config, tenant, data_type, answer),
        )
        response.create_time.FromMicroseconds(answer.started_us)
        return response

    async def abort_upload(self, request: upload_pb2.AbortUploadRequest) -> NoReturn:
        """Refuses to abort a small ingest: it has finished when it can first be found.

        Raises:
            UploadFinishedError: Always, but for one that is not known.
            UploadNotFoundError: No commit of the last day tells of it.
        """
        tenant = requests.check_tenant(request.tenant_id)
        _, answer = await self._find(tenant, request.upload_id)
        raise UploadFinishedError.of(answer.upload_id)

    async def list_rejects(
        self, request: upload_pb2.ListRejectsRequest
    ) -> AsyncIterator[upload_pb2.ListRejectsResponse]:
        """Streams a small ingest's rejects in order of row_number.

        Raises:
            UploadNotFoundError: No commit of the last day tells of it.
        """
        tenant = requests.check_tenant(request.tenant_id)
        _, answer = await self._find(tenant, request.upload_id)
        if not answer.rejects_key:
            return
        rows = await self._pool.run(
            read_upload_rejects, answer.rejects_key, answer.upload_id, min(request.limit, 1 << 62) or None
        )
        for page in await self._services.packed(messages.reject_pages, rows):
            yield page

    async def settle(self) -> None:
        """Completes what a former server left between the two commits of a group."""
        for tenant in await asyncio.to_thread(tables.tenants, self._services.config):
            for data_type in requests.DATA_TYPES:
                # Not one that is kept: those of tenants that only rest here would stay.
                await Batcher(self._services, self._pool, tenant, data_type).ledger.settle()

    def close(self) -> None:
        """Begins to end what outlasts calls, in the background; no call may be under way."""
        for batcher in self._batchers.values():
            self._services.spawn(batcher.close())

    async def _find(self, tenant: str, upload_id: str) -> tuple[DataType, Answer]:
        upload_id = requests.check_uuid("upload_id", upload_id)
        for data_type in requests.DATA_TYPES:
            answer = await self._batcher(tenant, data_type).ledger.find(upload_id, LOOKUP_US)
            if answer is not None:
                return data_type, answer
        raise UploadNotFoundError(f"Tenant {tenant} has no upload {upload_id}.", {"upload_id": upload_id})

    def _batcher(self, tenant: str, data_type: DataType) -> Batcher:
        batcher = self._batchers.get((tenant, data_type))
        if batcher is None:
            self._forget_idle()
            batcher = Batcher(self._services, self._pool, tenant, data_type)
        # Most recently used last.
        self._batchers.pop((tenant, data_type), None)
        self._batchers[tenant, data_type] = batcher
        return batcher

    def _forget_idle(self) -> None:
        oldest, surplus = time.monotonic() - IDLE_SECONDS, len(self._batchers) - MAX_TABLES + 1
        for key, batcher in list(self._batchers.items()):
            if batcher.idle and (batcher.used < oldest or surplus > 0):
                self._services.spawn(self._batchers.pop(key).close())
                surplus -= 1


def _upload_id(data_type: DataType, request_id: str) -> str:
    """The id of a batch's upload: derived from its request_id, else a new one."""
    if not request_id:
        return ids.new_small_id()
    return ids.small_id(data_type, requests.check_uuid("request_id", request_id))


def _id_in_use(data_type: DataType, request_id: str) -> IdInUseError:
    return IdInUseError(
        f"Field request_id is {request_id}, which belongs to a request with other {data_type}; "
        "choose a new id.",
        {"request_id": request_id, "upload_id": request_id},
    )


def _digest(rows: Iterable[bytes]) -> tuple[str, int]:
    """A digest of encoded rows, and their size in bytes."""
    digest, size_bytes = hashlib.blake2b(digest_size=16), 0
    for data in rows:
        digest.update(len(data).to_bytes(4, "little"))
        digest.update(data)
        size_bytes += len(data)
    return digest.hexdigest(), size_bytes
