"""Queries about uploads: their state, and the rows they rejected."""

import asyncio
from collections.abc import AsyncIterator

from headrace.v1 import upload_pb2
from headrace_compute.errors import UploadNotFoundError, UploadOpenError
from headrace_compute.ingest.block_result import part_from_json
from headrace_compute.inputs.reading import read_rejects, reject_rows
from headrace_compute.model import ROW_GROUP_ROWS
from headrace_server import metrics
from headrace_server.rows.options import UploadOptions
from headrace_server.rpc import messages, requests
from headrace_server.rpc.pages import consumed
from headrace_server.services import Services
from headrace_server.uploads import finish, sweep
from headrace_server.uploads import session as sessions
from headrace_server.uploads.result import result_message
from headrace_server.uploads.session import Session


async def get_upload(
    services: Services, request: upload_pb2.GetUploadRequest
) -> upload_pb2.GetUploadResponse:
    """Tells where an upload stands; one that was left finishing is rolled forward first."""
    session = await _find(services, request.tenant_id, request.upload_id)
    if session.finish is not None:
        session = await finish.roll_forward(services, session)
    response = upload_pb2.GetUploadResponse(
        upload_id=session.upload_id,
        state=_state(session),
        header=UploadOptions.from_json(session.header).to_header(session.upload_id),
        persisted_offset=session.persisted_offset,
    )
    response.create_time.FromMicroseconds(session.started_us)
    if session.done is not None:
        response.result.CopyFrom(result_message(services.config, session))
    return response


async def abort_upload(services: Services, request: upload_pb2.AbortUploadRequest) -> None:
    """Gives an upload up: ends its streams here, and deletes what it has stored. Again is no error.

    Raises:
        UploadFinishedError: It has finished.
    """
    session = await _find(services, request.tenant_id, request.upload_id)
    if not session.aborted:
        session = await asyncio.to_thread(sessions.abort, services.config, session, "aborted")
        metrics.UPLOADS_ABORTED.labels("aborted").inc()
    services.live.interrupt(session.tenant, session.upload_id, sessions.ending(session))
    await asyncio.to_thread(sweep.clear, services.config, session)


async def list_rejects(
    services: Services, request: upload_pb2.ListRejectsRequest
) -> AsyncIterator[upload_pb2.ListRejectsResponse]:
    """Streams an ended upload's rejects in order of row_number; of a row group all but a page is packed.

    Raises:
        UploadOpenError: The upload has not ended.
        HeadraceError: It was given up: UploadClosedError, or what it failed with.
    """
    session = await _find(services, request.tenant_id, request.upload_id)
    if session.aborted:
        raise sessions.ending(session)
    if session.finish is None:
        raise UploadOpenError(
            f"Upload {session.upload_id} has not ended; its rejects can be listed after finish.",
            {"upload_id": session.upload_id},
        )
    session = await finish.roll_forward(services, session)
    # As for reads of tables, tenants take turns.
    executor = services.pool.executor(f"{session.tenant}/reads", "")
    left = request.limit or (1 << 63)
    for group in session.finish["rejects"] if session.finish else ():
        parts = [part_from_json(part) for part in group]
        stored = sum(part.rows for part in parts)
        for place in range(-(-stored // ROW_GROUP_ROWS)):
            count = min(left, ROW_GROUP_ROWS, stored - place * ROW_GROUP_ROWS)
            for packed in consumed(await executor.run(read_rejects, parts, place, count)):
                for page in await services.packed(_reject_pages, packed):
                    yield page
            left -= count
            if left <= 0:
                return


def _reject_pages(packed: bytes) -> list[upload_pb2.ListRejectsResponse]:
    return messages.reject_pages(reject_rows(packed))


async def _find(services: Services, tenant_id: str, upload_id: str) -> Session:
    tenant = requests.check_tenant(tenant_id)
    upload = requests.check_uuid("upload_id", upload_id)
    session = await asyncio.to_thread(sessions.load, services.config, tenant, upload)
    if session is None:
        raise UploadNotFoundError(f"Tenant {tenant} has no upload {upload}.", {"upload_id": upload})
    return session


def _state(session: Session) -> upload_pb2.UploadState.ValueType:
    if session.aborted:
        return upload_pb2.UPLOAD_STATE_ABORTED
    if session.done is not None:
        return upload_pb2.UPLOAD_STATE_DONE
    return upload_pb2.UPLOAD_STATE_FINISHING if session.finish is not None else upload_pb2.UPLOAD_STATE_OPEN
