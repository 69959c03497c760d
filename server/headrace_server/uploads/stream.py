"""The Upload call: one client stream of one upload, from header to result."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import google_crc32c
import structlog
from google.rpc import status_pb2

from headrace.v1 import upload_pb2
from headrace_compute.errors import (
    ChecksumMismatchError,
    HeadraceError,
    OffsetGapError,
    SizeMismatchError,
    UnreadableStreamError,
    UnsupportedError,
)
from headrace_server import requests
from headrace_server.messages import reject_message, result_message
from headrace_server.services import Services
from headrace_server.status import to_status
from headrace_server.streams import converse, unexpected
from headrace_server.uploads import finish
from headrace_server.uploads import session as sessions
from headrace_server.uploads.intake import MAX_CHUNK_BYTES, BlockQueue, CsvIntake, Intake, RowsIntake
from headrace_server.uploads.options import UploadOptions, spec_of
from headrace_server.uploads.session import PersistedBlock, Session

ERRORS_A_BLOCK = 20
ERRORS_A_STREAM = 100

Requests = AsyncIterator[upload_pb2.UploadRequest]
Send = Callable[[upload_pb2.UploadResponse], None]

_log = structlog.get_logger(__name__)


async def serve_upload(services: Services, messages: Requests) -> AsyncIterator[upload_pb2.UploadResponse]:
    """Serves one Upload call: what goes back to the client; raises what the call ends with."""

    async def serve(requests: Requests, send: Send) -> None:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") != "header":
            raise unexpected("header", first.WhichOneof("request") if first else "the end of the stream")
        options = UploadOptions.from_header(first.header)
        upload_id = _upload_id(first.header)
        session = await sessions.open_session(services.config, options.tenant, upload_id, options.to_json())
        structlog.contextvars.bind_contextvars(upload_id=upload_id, tenant=options.tenant)
        stream = UploadStream(services, options, session, send)
        try:
            await stream.serve(requests)
        except UnreadableStreamError:
            await stream.discard()
            raise
        finally:
            await stream.close()

    def in_band(status: status_pb2.Status) -> upload_pb2.UploadResponse:
        return upload_pb2.UploadResponse(error=status)

    async for response in converse(messages, serve, in_band):
        yield response


class UploadStream:
    """One stream of an open session.

    Args:
        session: The session, owned by this stream.
        send: Puts a response on its way; never waits.
    """

    def __init__(self, services: Services, options: UploadOptions, session: Session, send: Send) -> None:
        self._services = services
        self._session = session
        self._send = send
        self._errors_shown = 0
        self._queue = BlockQueue(services.pool, self._persist)
        self._intake = self._make_intake(options)

    async def serve(self, messages: Requests) -> None:
        """Serves what follows the header, up to finish or the client's half-close."""
        started = upload_pb2.UploadStarted(
            upload_id=self._session.upload_id,
            persisted_offset=self._session.persisted_offset,
            max_chunk_bytes=MAX_CHUNK_BYTES,
        )
        self._send(upload_pb2.UploadResponse(started=started))
        if self._session.finish is not None:
            await self._end()
            return
        async for message in messages:
            match message.WhichOneof("request"):
                case "chunk":
                    await self._take(message.chunk)
                case "flush":
                    await self._intake.flush()
                    self._acknowledge()
                case "finish":
                    await self._finish(message.finish)
                    return
                case other:
                    raise unexpected("chunk, flush or finish", other)
        # Half-closed without finish: what is whole is kept for whoever resumes.
        await self._intake.flush()
        self._acknowledge()

    async def discard(self) -> None:
        """Deletes what came before the place where the stream turned out to be unreadable."""
        try:
            await self._queue.drain()
        except HeadraceError as error:
            _log.info("a block failed beside the stream", reason=error.reason)
        try:
            await asyncio.to_thread(sessions.discard, self._services.config, self._session)
        except HeadraceError as error:
            _log.warning("an unreadable upload is not discarded", reason=error.reason)

    async def close(self) -> None:
        """Gives up blocks that are still in flight."""
        await self._queue.close()

    def _make_intake(self, options: UploadOptions) -> Intake:
        session = self._session
        spec = spec_of(self._services.config, options, session.upload_id, session.started_us)
        if options.format == "rows":
            return RowsIntake(self._queue, spec, session.blocks)
        return CsvIntake(
            self._services.pool,
            self._queue,
            spec,
            block_bytes=self._services.settings.block_bytes,
            reject_unknown=options.reject_unknown,
            header=session.columns,
            blocks=session.blocks,
        )

    async def _take(self, chunk: upload_pb2.UploadChunk) -> None:
        """Appends a chunk; a gap or a wrong checksum drops it and leaves the stream usable."""
        content = self._intake.content(chunk)
        received = self._intake.received
        offset = chunk.offset if chunk.HasField("offset") else received
        try:
            _check_crc32c(chunk, received)
            if offset > received:
                raise OffsetGapError(
                    f"the chunk begins at {offset:,}, but the stream has {received:,} so far; go on there",
                    {"expected_offset": str(received), "offset": str(offset)},
                )
        except (OffsetGapError, ChecksumMismatchError) as error:
            self._send(upload_pb2.UploadResponse(error=to_status(error, "")))
            return
        known = min(received - offset, len(content))
        if known:
            self._acknowledge()
        if known < len(content):
            await self._intake.feed(content[known:])

    async def _finish(self, message: upload_pb2.UploadFinish) -> None:
        if message.HasField("crc32c"):
            raise UnsupportedError(
                "finish.crc32c is not implemented in this version; leave it out", {"feature": "finish.crc32c"}
            )
        received = self._intake.received
        if message.HasField("total_size") and message.total_size != received:
            raise SizeMismatchError(
                f"finish says that the stream has {message.total_size:,} {self._intake.unit}, but "
                f"{received:,} came; resume the upload and send what is missing",
                {"total_size": str(message.total_size), "received": str(received)},
            )
        await self._intake.finish()
        self._acknowledge()
        self._session = await finish.close(self._services, self._session, received)
        await self._end()

    async def _end(self) -> None:
        self._session = await finish.roll_forward(self._services, self._session)
        result = result_message(self._services.config, self._session)
        self._send(upload_pb2.UploadResponse(result=result))

    async def _persist(self, block: PersistedBlock) -> None:
        """Makes a block part of the session; only then may it be acknowledged."""
        body = block.to_json()
        if self._session.columns is None:
            body["columns"] = self._intake.header
        self._session = await asyncio.to_thread(
            sessions.append, self._services.config, self._session, "block", body
        )
        self._acknowledge()
        room = min(ERRORS_A_BLOCK, ERRORS_A_STREAM - self._errors_shown)
        if samples := block.result.findings.first_rejects(room):
            self._errors_shown += len(samples)
            errors = upload_pb2.RowErrors(errors=map(reject_message, samples))
            self._send(upload_pb2.UploadResponse(row_errors=errors))

    def _acknowledge(self) -> None:
        findings = [block.result.findings for block in self._session.blocks]
        ack = upload_pb2.UploadAck(
            persisted_offset=self._session.persisted_offset,
            rows_accepted=sum(found.accepted for found in findings),
            rows_rejected=sum(found.rejected for found in findings),
            rows_duplicate=sum(found.duplicates for found in findings),
        )
        self._send(upload_pb2.UploadResponse(ack=ack))


def _upload_id(header: upload_pb2.UploadHeader) -> str:
    return requests.check_uuid("upload_id", header.upload_id) if header.upload_id else str(uuid.uuid4())


def _check_crc32c(chunk: upload_pb2.UploadChunk, received: int) -> None:
    if not chunk.HasField("crc32c"):
        return
    if chunk.WhichOneof("content") == "rows":
        raise requests.invalid("chunk.crc32c", "chunk.crc32c covers bytes; leave it out for rows")
    found = google_crc32c.value(chunk.data or chunk.text.encode())
    if found != chunk.crc32c:
        raise ChecksumMismatchError(
            f"the chunk's crc32c is {chunk.crc32c:#010x}, its content has {found:#010x}; send it again",
            {"expected_offset": str(received)},
        )
