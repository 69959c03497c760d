"""Small ingests: one unary call, one upload of one block."""

import asyncio
import uuid
from collections.abc import Sequence

from headrace.v1 import upload_pb2
from headrace_compute.model import DataType
from headrace_server import messages, requests
from headrace_server.services import Services
from headrace_server.uploads import finish
from headrace_server.uploads import session as sessions
from headrace_server.uploads.blocks import BlockQueue
from headrace_server.uploads.intake import RowMessage, RowsIntake
from headrace_server.uploads.options import UploadOptions, spec_of
from headrace_server.uploads.session import PersistedBlock, Session, open_session

MAX_ROWS = 10_000
ERRORS = 20


async def ingest_rows(
    services: Services, tenant_id: str, data_type: DataType, rows: Sequence[RowMessage], request_id: str
) -> tuple[upload_pb2.UploadResult, upload_pb2.RowErrors]:
    """Stores a batch as an upload of its own; a request_id is that upload's id.

    Returns:
        How the batch ended, and the first bad rows.
    """
    requests.check_row_count("rows", rows, MAX_ROWS)
    options = UploadOptions(tenant=requests.check_tenant(tenant_id), data_type=data_type, format="rows")
    upload_id = requests.check_uuid("request_id", request_id) if request_id else str(uuid.uuid4())
    session = await open_session(services.config, options.tenant, upload_id, options.to_json())
    if session.finish is None:
        session = await _store(services, session, options, rows)
    session = await finish.roll_forward(services, session)
    result = messages.result_message(services.config, session)
    samples = [sample for check in result.report.checks for sample in check.samples]
    samples.sort(key=lambda reject: reject.row_number)
    return result, upload_pb2.RowErrors(errors=samples[:ERRORS])


async def _store(
    services: Services, session: Session, options: UploadOptions, rows: Sequence[RowMessage]
) -> Session:
    """Persists the rows a repeated call finds missing, and fixes the outcome."""

    async def persist(block: PersistedBlock) -> None:
        nonlocal session
        session = await asyncio.to_thread(sessions.append, services.config, session, "block", block.to_json())

    spec = spec_of(services.config, options, session.upload_id, session.started_us)
    queue = BlockQueue(services.pool, persist)
    intake = RowsIntake(queue, spec, session.blocks)
    await intake.feed(rows[intake.received :])
    await intake.finish()
    return await finish.close(services, session, intake.received)
