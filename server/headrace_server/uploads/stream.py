"""The Upload call: one client stream of one upload, from header to result."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import google_crc32c
import structlog
from google.rpc import status_pb2

from headrace.v1 import upload_pb2
from headrace_compute.errors import (
    ChecksumMismatchError,
    DrainingError,
    FencedError,
    GaveWayError,
    HeadraceError,
    IdInUseError,
    IdleTimeoutError,
    OffsetGapError,
    PoisonBlockError,
    SizeMismatchError,
    UnreadableStreamError,
    UnsupportedError,
    UploadClosedError,
)
from headrace_compute.model import StagedObject
from headrace_server.rows.blocks import BlockQueue, PersistedBlock
from headrace_server.rows.intake import CsvIntake, Intake, JsonLinesIntake, RowsIntake
from headrace_server.rows.options import UploadOptions
from headrace_server.rpc import call_log, requests
from headrace_server.rpc.bounds import MAX_CHUNK_BYTES
from headrace_server.rpc.ids import is_small
from headrace_server.rpc.messages import reject_message
from headrace_server.rpc.status import to_status
from headrace_server.rpc.streams import RequestStream, ResponseQueue, serve_stream, unexpected
from headrace_server.services import Services
from headrace_server.uploads import finish, sweep
from headrace_server.uploads import session as sessions
from headrace_server.uploads.result import result_message
from headrace_server.uploads.session import Session
from headrace_server.uploads.spec import spec_of
from headrace_server.uploads.staged import StagedIntake

ERRORS_PER_BLOCK = 20
ERRORS_PER_STREAM = 100

Requests = RequestStream[upload_pb2.UploadRequest]
Responses = ResponseQueue[upload_pb2.UploadResponse]

_log = structlog.get_logger(__name__)


async def serve_upload(
    services: Services, messages: AsyncIterator[upload_pb2.UploadRequest]
) -> AsyncIterator[upload_pb2.UploadResponse]:
    """Serves one Upload call: what goes back to the client; raises what the call ends with."""

    async def serve(requests: Requests, responses: Responses) -> None:
        services.shutdown.check()
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") != "header":
            raise unexpected("header", first.WhichOneof("request") if first else "the end of the stream")
        options = UploadOptions.from_header(first.header)
        upload_id = _upload_id(first.header)
        call_log.note(upload_id=upload_id, tenant=options.tenant)
        async with services.uploads.enter_stream(options.tenant, requests):
            session = await sessions.open_session(
                services.config, options.tenant, upload_id, options.to_json()
            )
            if session.finish is None:
                # An older stream of it may be here, waiting for its client: it has lost the upload.
                services.live.interrupt(options.tenant, upload_id, sessions.fenced(upload_id))
            with services.live.joined(options.tenant, upload_id, requests):
                await _serve(UploadStream(services, options, session, requests, responses))

    def in_band(status: status_pb2.Status) -> upload_pb2.UploadResponse:
        return upload_pb2.UploadResponse(error=status)

    async for response in serve_stream(messages, serve, in_band, services.settings.idle_seconds):
        yield response


async def _serve(stream: "UploadStream") -> None:
    try:
        await stream.serve()
    finally:
        await stream.close()


class UploadStream:
    """One stream of an open session.

    Args:
        session: The session, owned by this stream.
        requests: What follows the header.
        responses: Takes what goes back.
    """

    def __init__(
        self,
        services: Services,
        options: UploadOptions,
        session: Session,
        requests: Requests,
        responses: Responses,
    ) -> None:
        self._services = services
        self._session = session
        self._requests = requests
        self._responses = responses
        self._errors_shown = 0
        self._executor = services.pool.executor(session.tenant, session.upload_id)
        self._queue = BlockQueue(self._executor, self._persist, services.places)
        self._intake = self._make_intake(options)
        self._taking = asyncio.Lock()  # Who holds it may use the intake.
        self._appending = asyncio.Lock()  # Who holds it may append to the session.

    async def serve(self) -> None:
        """Serves what follows the header, up to finish or the client's half-close."""
        started = upload_pb2.UploadStarted(
            upload_id=self._session.upload_id,
            persisted_offset=self._session.persisted_offset,
            persisted_crc32c=self._session.persisted_crc32c,
            max_chunk_bytes=MAX_CHUNK_BYTES,
        )
        self._responses.send(upload_pb2.UploadResponse(started=started))
        if self._session.finish is not None:
            await self._end()
            return
        # Said before anything is sent that would only be refused at its end.
        self._services.pool.quarantine.check(self._session.tenant)
        with self._beside(self._stay_alive(), self._tell_draining()):
            try:
                await self._take_all()
            except (IdleTimeoutError, DrainingError, GaveWayError):
                await self._settle()
                raise
            except UnreadableStreamError as error:
                await self._give_up(error)
                raise
            except PoisonBlockError as error:
                # What is staged cannot be replaced; any other stream may be gone on with differently.
                if self._session.staged:
                    await self._give_up(error)
                raise

    async def close(self) -> None:
        """Gives up blocks that are still in flight."""
        await self._queue.close()

    async def _take_all(self) -> None:
        async for message in self._requests:
            async with self._taking:
                match message.WhichOneof("request"):
                    case "chunk":
                        taking = self._take(message.chunk)
                        del message  # Fifty streams that wait for workers would hold it all twice.
                        await taking
                    case "flush":
                        await self._intake.flush()
                        self._acknowledge()
                    case "finish":
                        await self._finish(message.finish)
                        return
                    case other:
                        raise unexpected("chunk, flush or finish", other)
            await self._responses.room()
        # Half-closed without finish: what is whole is kept for whoever resumes.
        await self._settle()

    async def _settle(self) -> None:
        """Persists what is whole, and acknowledges it."""
        async with self._taking:
            await self._intake.flush()
            self._acknowledge()

    @contextmanager
    def _beside(self, *works: Coroutine[Any, Any, None]) -> Iterator[None]:
        """Runs background tasks while the context lasts."""
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _stay_alive(self) -> None:
        """Appends a record periodically, so that the upload is not taken for abandoned."""
        while True:
            seen = self._session.next_seq
            await asyncio.sleep(self._services.settings.alive_seconds)
            try:
                async with self._appending:
                    if self._session.next_seq == seen:
                        await self._append("alive", {})
            except (FencedError, UploadClosedError) as error:
                self._requests.interrupt(error)
                return
            except HeadraceError as error:
                _log.warning("the session takes no record", reason=error.reason)

    async def _tell_draining(self) -> None:
        """Tells the client when the server is about to stop, and makes what it has sent safe."""
        await self._services.shutdown.begun.wait()
        self._responses.send(upload_pb2.UploadResponse(draining=upload_pb2.UploadDraining()))
        try:
            await self._settle()
        except HeadraceError as error:
            self._requests.interrupt(error)

    def _make_intake(self, options: UploadOptions) -> Intake:
        session = self._session
        spec = spec_of(self._services.config, options, session.upload_id, session.started_us)
        if options.format == "rows":
            return RowsIntake(self._queue, spec, session.blocks)
        if options.staged:
            return StagedIntake(
                self._services.config,
                self._executor,
                self._queue,
                spec,
                options,
                self._services.block_bytes,
                session,
                self._stage,
            )
        block_bytes = self._services.block_bytes
        if options.format == "json_lines":
            return JsonLinesIntake(self._queue, spec, block_bytes, session.blocks)
        return CsvIntake(self._executor, self._queue, spec, block_bytes, session.columns, session.blocks)

    def _take(self, chunk: upload_pb2.UploadChunk) -> Awaitable[None]:
        """Appends a chunk when awaited; a gap or a wrong checksum drops it and leaves the stream usable."""
        content = self._intake.content(chunk)
        received = self._intake.received
        offset = chunk.offset if chunk.HasField("offset") else received
        try:
            _check_crc32c(chunk, received)
            if offset > received:
                raise OffsetGapError(
                    f"The chunk begins at {offset:,}, but the stream has {received:,} so far; go on there.",
                    {"expected_offset": str(received), "offset": str(offset)},
                )
        except (OffsetGapError, ChecksumMismatchError) as error:
            self._responses.send(upload_pb2.UploadResponse(error=to_status(error, "")))
            return asyncio.sleep(0)
        known = min(received - offset, len(content))
        if known:
            self._acknowledge()
        return self._intake.feed(content[known:]) if known < len(content) else asyncio.sleep(0)

    async def _finish(self, message: upload_pb2.UploadFinish) -> None:
        received = self._intake.received
        if message.HasField("total_size") and message.total_size != received:
            raise SizeMismatchError(
                f"Finish says that the stream has {message.total_size:,} {self._intake.unit}, but "
                f"{received:,} came; {_remedy(message.total_size, received)}.",
                {"total_size": str(message.total_size), "received": str(received)},
            )
        crc32c = self._intake.crc32c
        if message.HasField("crc32c"):
            _check_whole(message.crc32c, crc32c, self._intake, self._session.persisted_offset)
        await self._intake.finish()
        self._acknowledge()
        async with self._appending:
            self._session = await finish.close(self._services, self._session, received, crc32c)
        await self._end(verified=True)

    async def _end(self, *, verified: bool = False) -> None:
        self._session = await finish.roll_forward(self._services, self._session, verified=verified)
        result = result_message(self._services.config, self._session)
        self._responses.send(upload_pb2.UploadResponse(result=result))

    async def _persist(self, block: PersistedBlock) -> None:
        """Makes a block part of the session; only then may it be acknowledged."""
        body = block.to_json()
        if self._session.columns is None:
            body["columns"] = self._intake.header
        async with self._appending:
            await self._append("block", body)
        self._acknowledge()
        room = min(ERRORS_PER_BLOCK, ERRORS_PER_STREAM - self._errors_shown)
        if samples := block.result.findings.first_rejects(room):
            self._errors_shown += len(samples)
            errors = upload_pb2.RowErrors(errors=map(reject_message, samples))
            self._responses.send(upload_pb2.UploadResponse(row_errors=errors))

    async def _append(self, kind: str, body: Mapping[str, Any]) -> None:
        self._session = await asyncio.to_thread(
            sessions.append, self._services.config, self._session, kind, body
        )

    async def _give_up(self, error: HeadraceError) -> None:
        """Closes the upload and deletes what it has stored: the same bytes would fail again."""
        try:
            # Blocks in flight end first: they would write into what is being swept.
            await self._queue.drain()
        except HeadraceError as cause:
            _log.info("a block failed beside the stream", reason=cause.reason)
        config = self._services.config
        try:
            async with self._appending:
                self._session = await asyncio.to_thread(sessions.give_up, config, self._session, error)
            await asyncio.to_thread(sweep.clear, config, self._session)
        except HeadraceError as cause:
            # Left for the sweeper; the client hears of what is wrong with its stream all the same.
            _log.warning("an unreadable upload is not cleared", reason=cause.reason)

    async def _stage(self, piece: StagedObject) -> None:
        """Makes a staged object part of the session; only then may it be acknowledged."""
        async with self._appending:
            await self._append("staged", asdict(piece))
        self._acknowledge()

    def _acknowledge(self) -> None:
        ack = upload_pb2.UploadAck(
            persisted_offset=self._session.persisted_offset,
            persisted_crc32c=self._session.persisted_crc32c,
            rows_accepted=self._session.findings.accepted,
            rows_rejected=self._session.findings.rejected,
            rows_duplicate=self._session.findings.duplicates,
        )
        self._responses.send(upload_pb2.UploadResponse(ack=ack), newest_of="ack")


def _remedy(said: int, received: int) -> str:
    if received < said:
        return "resume the upload and send what is missing"
    return "if they belong to it, finish with their number; else abort the upload and send it anew"


def _upload_id(header: upload_pb2.UploadHeader) -> str:
    if not header.upload_id:
        return str(uuid.uuid4())
    upload_id = requests.check_uuid("upload_id", header.upload_id)
    if is_small(upload_id):
        raise IdInUseError(
            f"Field upload_id is {upload_id}, which has the form of a small ingest's id; "
            "choose a UUID of version 4.",
            {"upload_id": upload_id},
        )
    return upload_id


def _check_crc32c(chunk: upload_pb2.UploadChunk, received: int) -> None:
    if not chunk.HasField("crc32c"):
        return
    if chunk.WhichOneof("content") == "rows":
        raise requests.invalid("chunk.crc32c", "Field chunk.crc32c covers bytes; leave it out for rows.")
    found = google_crc32c.value(chunk.data or chunk.text.encode())
    if found != chunk.crc32c:
        raise ChecksumMismatchError(
            f"The chunk's crc32c is {chunk.crc32c:#010x}, its content has {found:#010x}; send it again.",
            {"expected_offset": str(received)},
        )


def _check_whole(sent: int, found: int | None, intake: Intake, persisted: int) -> None:
    """Compares the checksum of finish with that of what was received."""
    if intake.unit == "rows":
        raise requests.invalid("finish.crc32c", "Field finish.crc32c covers bytes; leave it out for rows.")
    if found is None:
        raise UnsupportedError(
            "The upload began on a version that kept no checksum of it; finish without crc32c.",
            {"feature": "finish.crc32c"},
        )
    if found != sent:
        raise ChecksumMismatchError(
            f"Finish says that the stream's crc32c is {sent:#010x}, but what came has {found:#010x}; "
            "resume if persisted_crc32c is your file's, else abort the upload and send it anew.",
            {"expected_offset": str(persisted)},
        )
