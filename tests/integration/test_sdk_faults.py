"""The SDK against a server that misbehaves on cue: what is tried again, what ends an upload, what is kept."""

import asyncio
import io
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pyarrow as pa
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

import headrace
from headrace import errors, upload
from headrace.source import BATCH_BYTES, CHUNK_BYTES
from headrace.transfer import WINDOW_BYTES
from headrace.v1 import upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import (
    PipelineServiceServicer,
    add_PipelineServiceServicer_to_server,
)

pytestmark = pytest.mark.timeout(60)

CHUNK = CHUNK_BYTES
CONTENT = os.urandom(5 * CHUNK + 17)

# Called at "header", "started", "chunk" (before it is taken), "finish" (before it counts) and "result".
# It may end the call, or give a response to be sent in band, after which the stream is drained and, if
# the response is an error, ends with it.
Fault = Callable[[str, int, grpc.ServicerContext], upload_pb2.UploadResponse | None]


def status(code: grpc.StatusCode, reason: str) -> status_pb2.Status:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="headrace"))
    return status_pb2.Status(code=code.value[0], message=f"on cue: {reason}", details=[info])


def fails(at: str, code: grpc.StatusCode, reason: str = "", after: int = 0) -> Fault:
    """Ends the call: with a reason as Headrace does, in band first, without as a connection that breaks."""

    def fault(point: str, offset: int, context: grpc.ServicerContext) -> upload_pb2.UploadResponse | None:
        if point != at or offset < after:
            return None
        if not reason:
            context.abort(code, "broken")
        return upload_pb2.UploadResponse(error=status(code, reason))

    return fault


def breaks(at: str, after: int = 0) -> Fault:
    return fails(at, grpc.StatusCode.UNAVAILABLE, after=after)


def says(at: str, response: upload_pb2.UploadResponse, after: int = 0) -> Fault:
    """Sends something in band."""

    def fault(point: str, offset: int, context: grpc.ServicerContext) -> upload_pb2.UploadResponse | None:
        return response if point == at and offset >= after else None

    return fault


def _refuse(self: object, request: object, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "only uploads are served here")


_unimplemented: Any = _refuse


class UploadsOnly(PipelineServiceServicer):
    """Refuses every call but `Upload` and `GetUpload`, which a subclass brings."""

    AbortUpload = ListRejects = IngestInteractions = IngestItems = Validate = _unimplemented
    ValidateSample = GetSchema = DescribeFeatures = ComputeFeatures = SampleNegatives = CancelRun = (
        _unimplemented
    )
    GetRun = ListRuns = GetFeatureStatistics = _unimplemented
    ListTables = ReadTable = VerifyTable = CheckHealth = IngestRows = ListUploads = _unimplemented


@dataclass
class FakeServer(UploadsOnly):
    """Keeps one upload in memory. Its nth stream suffers the nth fault.

    Attributes:
        keeps_checksum: Whether it tells persisted_crc32c.
        lag_bytes: How much of what came is neither acknowledged nor kept when a stream breaks.
        acks: Whether chunks are acknowledged as they come; else a flush is, once `may_flush` is set.
    """

    faults: list[Fault | None] = field(default_factory=list)
    keeps_checksum: bool = True
    lag_bytes: int = 0
    acks: bool = True
    may_flush: threading.Event = field(default_factory=threading.Event)
    state: upload_pb2.UploadState.ValueType = upload_pb2.UPLOAD_STATE_OPEN
    content: bytearray = field(default_factory=bytearray)
    rows: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    streams: int = 0
    questions: int = 0
    headers: list[upload_pb2.UploadHeader] = field(default_factory=list)
    finishes: list[upload_pb2.UploadFinish] = field(default_factory=list)

    def Upload(
        self, requests: Iterator[upload_pb2.UploadRequest], context: grpc.ServicerContext
    ) -> Iterator[upload_pb2.UploadResponse]:
        number, self.streams = self.streams, self.streams + 1
        fault = (self.faults[number] if number < len(self.faults) else None) or (lambda *_: None)
        header = next(requests).header
        self.headers.append(header)
        if response := fault("header", 0, context):
            yield from self.end(response, requests, context)
        yield upload_pb2.UploadResponse(started=self.start(header))
        if response := fault("started", 0, context):
            yield from self.end(response, requests, context)
        if self.state == upload_pb2.UPLOAD_STATE_DONE:
            yield self.result()
            return
        for message in requests:
            match message.WhichOneof("request"):
                case "finish":
                    self.finishes.append(message.finish)
                    if response := fault("finish", 0, context):
                        yield from self.end(response, requests, context)
                    self.state = upload_pb2.UPLOAD_STATE_DONE
                    yield self.ack(len(self.rows) or len(self.content))
                    if response := fault("result", 0, context):
                        yield from self.end(response, requests, context)
                    yield self.result()
                    return
                case "flush":
                    self.may_flush.wait(30)
                    yield self.ack(len(self.content))
                case "chunk":
                    if response := fault("chunk", message.chunk.offset, context):
                        yield from self.end(response, requests, context)
                        return
                    self.take(message.chunk)
                    if self.acks:
                        yield self.ack(len(self.rows) or max(0, len(self.content) - self.lag_bytes))

    def end(
        self,
        response: upload_pb2.UploadResponse,
        requests: Iterator[upload_pb2.UploadRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[upload_pb2.UploadResponse]:
        yield response
        for _ in requests:
            pass
        if response.HasField("error"):
            context.abort_with_status(rpc_status.to_status(response.error))

    def start(self, header: upload_pb2.UploadHeader) -> upload_pb2.UploadStarted:
        if self.lag_bytes and self.offsets:
            del self.content[-self.lag_bytes :]
        offset = len(self.rows) if header.format == upload_pb2.FORMAT_ROWS else len(self.content)
        self.offsets.append(offset)
        crc32c = google_crc32c.value(bytes(self.content)) if self.keeps_checksum else None
        return upload_pb2.UploadStarted(
            upload_id=header.upload_id,
            persisted_offset=offset,
            persisted_crc32c=crc32c,
            max_chunk_bytes=8 << 20,
        )

    def take(self, chunk: upload_pb2.UploadChunk) -> None:
        if chunk.HasField("rows"):
            assert not chunk.HasField("crc32c")
            assert chunk.offset <= len(self.rows)
            self.rows += [row.item_id for row in chunk.rows.items][len(self.rows) - chunk.offset :]
        else:
            assert google_crc32c.value(chunk.data) == chunk.crc32c
            assert chunk.offset <= len(self.content)
            self.content += chunk.data[len(self.content) - chunk.offset :]

    def ack(self, offset: int) -> upload_pb2.UploadResponse:
        return upload_pb2.UploadResponse(
            ack=upload_pb2.UploadAck(persisted_offset=offset, rows_accepted=offset)
        )

    def result(self) -> upload_pb2.UploadResponse:
        return upload_pb2.UploadResponse(result=upload_pb2.UploadResult(rows_received=7))

    def GetUpload(
        self, request: upload_pb2.GetUploadRequest, context: grpc.ServicerContext
    ) -> upload_pb2.GetUploadResponse:
        self.questions += 1
        answer = upload_pb2.GetUploadResponse(upload_id=request.upload_id, state=self.state)
        if self.state == upload_pb2.UPLOAD_STATE_DONE:
            answer.result.CopyFrom(self.result().result)
        return answer


@pytest.fixture
def serve() -> Iterator[Callable[[FakeServer], str]]:
    """Serves a fake; gives its address."""
    servers = []

    def start(fake: FakeServer) -> str:
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 16 << 20)])
        add_PipelineServiceServicer_to_server(fake, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0)


Serve = Callable[[FakeServer], str]
Send = Callable[..., upload_pb2.UploadResult]


def send_sync(address: str, method: str, *arguments: Any, **options: Any) -> upload_pb2.UploadResult:
    with headrace.Client(address) as client:
        found: upload_pb2.UploadResult = getattr(client, method)("acme", "items", *arguments, **options)
        return found


def send_aio(address: str, method: str, *arguments: Any, **options: Any) -> upload_pb2.UploadResult:
    async def run() -> upload_pb2.UploadResult:
        async with headrace.AsyncClient(address) as client:
            call = getattr(client, method)("acme", "items", *arguments, **options)
            found: upload_pb2.UploadResult = await call
            return found

    return asyncio.run(run())


@pytest.fixture(params=[send_sync, send_aio], ids=["sync", "aio"])
def send(request: pytest.FixtureRequest) -> Send:
    found: Send = request.param
    return found


class Pipe(io.RawIOBase):
    """Bytes that come in pieces and cannot be sought."""

    def __init__(self, content: bytes, piece_bytes: int = 64 << 10) -> None:
        self._content = io.BytesIO(content)
        self._piece_bytes = piece_bytes

    def read(self, size: int = -1) -> bytes:
        return self._content.read(self._piece_bytes if size < 0 else min(size, self._piece_bytes))

    def readable(self) -> bool:
        return True


@pytest.fixture(params=["path", "open file", "pipe"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = tmp_path / "x.csv"
    path.write_bytes(CONTENT)
    return {"path": path, "open file": io.BytesIO(CONTENT), "pipe": Pipe(CONTENT)}[request.param]


@pytest.mark.parametrize("keeps_checksum", [True, False])
def test_an_upload_goes_on_where_the_server_stands_after_every_break(
    serve: Serve, send: Send, file: Any, keeps_checksum: bool
) -> None:
    fake = FakeServer(
        faults=[
            breaks("header"),
            breaks("started"),
            breaks("chunk", after=CHUNK),
            breaks("chunk", after=3 * CHUNK),
            fails("chunk", grpc.StatusCode.INTERNAL, "INTERNAL", after=4 * CHUNK),
            breaks("finish"),
        ],
        keeps_checksum=keeps_checksum,
        lag_bytes=1_000,
    )
    assert send(serve(fake), "upload", file).rows_received == 7
    assert bytes(fake.content) == CONTENT
    assert len({each.SerializeToString(deterministic=True) for each in fake.headers}) == 1
    assert fake.offsets == sorted(fake.offsets)
    (_, finish) = fake.finishes
    assert finish.total_size == len(CONTENT)
    assert finish.HasField("crc32c") == keeps_checksum
    if keeps_checksum:
        assert finish.crc32c == google_crc32c.value(CONTENT)


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_rows_are_asked_for_once_and_none_is_lost_or_doubled(serve: Serve, send: Send, kind: str) -> None:
    asked: list[int] = []

    def rows() -> Iterator[dict[str, str]]:
        for n in range(30_000):
            asked.append(n)
            yield {"item_id": f"i{n}", "title": "t" * 60}

    fake = FakeServer(faults=[breaks("chunk", after=offset) for offset in (1, 9_000, 20_000)])
    send(serve(fake), "upload_rows", list(rows()) if kind == "list" else rows())
    assert fake.rows == [f"i{n}" for n in range(30_000)]
    assert asked == list(range(30_000))
    assert fake.finishes[-1].total_size == 30_000
    assert not fake.finishes[-1].HasField("crc32c")


def test_an_async_iterable_is_not_broken_off_when_a_stream_breaks_while_it_is_awaited(serve: Serve) -> None:
    broken = threading.Event()
    cancelled: list[bool] = []

    async def rows() -> AsyncIterator[dict[str, str]]:
        for n in range(30_000):
            if n == 15_000:
                try:
                    while not broken.is_set():
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0.5)
                except asyncio.CancelledError:
                    cancelled.append(True)
                    raise
            yield {"item_id": f"i{n}", "title": "t" * 60}

    def fault(point: str, offset: int, context: grpc.ServicerContext) -> None:
        if point == "chunk" and offset > 5_000:
            broken.set()
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

    fake = FakeServer(faults=[fault])
    send_aio(serve(fake), "upload_rows", rows())
    assert fake.rows == [f"i{n}" for n in range(30_000)]
    assert not cancelled


def test_a_reader_of_batches_is_encoded_once_and_resumed(serve: Serve, send: Send) -> None:
    table = pa.table({"item_id": [f"i{n}" for n in range(200_000)], "title": ["t" * 20] * 200_000})
    reader = pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(max_chunksize=10_000)))
    fake = FakeServer(faults=[breaks("chunk", after=CHUNK), breaks("chunk", after=4 * CHUNK)], lag_bytes=100)
    send(serve(fake), "upload_table", reader)
    assert pa.ipc.open_stream(bytes(fake.content)).read_all().equals(table)
    assert fake.headers[0].format == upload_pb2.FORMAT_ARROW_IPC
    assert fake.finishes[-1].crc32c == google_crc32c.value(bytes(fake.content))


def test_progress_reports_what_is_safe_and_never_goes_back(serve: Serve, send: Send, file: Any) -> None:
    faults = [breaks("chunk", after=2 * CHUNK), breaks("started"), breaks("chunk", after=4 * CHUNK)]
    fake = FakeServer(faults=faults, lag_bytes=99)  # type: ignore[arg-type]
    progress: list[headrace.Progress] = []
    send(serve(fake), "upload", file, on_progress=progress.append)
    assert [each.offset for each in progress] == sorted(each.offset for each in progress)
    assert [each.rows_accepted for each in progress] == sorted(each.rows_accepted for each in progress)
    interruptions = [each.interruption for each in progress if each.interruption]
    assert [type(each) for each in interruptions] == [errors.UnavailableError] * 3
    assert progress[-1].interruption is None
    assert progress[-1].offset == len(CONTENT)


def test_a_chunk_that_was_damaged_on_its_way_is_sent_again(serve: Serve, send: Send, file: Any) -> None:
    damaged = upload_pb2.UploadResponse(error=status(grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH"))
    fake = FakeServer(faults=[says("chunk", damaged, after=2 * CHUNK)])
    send(serve(fake), "upload", file)
    assert bytes(fake.content) == CONTENT
    assert fake.streams == 2


def test_a_draining_server_is_left_at_once_and_the_next_one_goes_on(
    serve: Serve, send: Send, file: Any
) -> None:
    draining = upload_pb2.UploadResponse(draining=upload_pb2.UploadDraining())
    fake = FakeServer(faults=[says("chunk", draining, after=2 * CHUNK)])
    progress: list[headrace.Progress] = []
    send(serve(fake), "upload", file, on_progress=progress.append)
    assert bytes(fake.content) == CONTENT
    assert [type(each.interruption) for each in progress if each.interruption] == [errors.DrainingError]


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.INTERNAL, "POISON_BLOCK", errors.PoisonBlockError),
        (grpc.StatusCode.DATA_LOSS, "PART_LOST", errors.PartLostError),
        (grpc.StatusCode.INVALID_ARGUMENT, "NO_HEADER", errors.BadDataError),
        (grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_CLOSED", errors.UploadClosedError),
        (grpc.StatusCode.ALREADY_EXISTS, "ID_IN_USE", errors.IdInUseError),
        (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED", errors.UnsupportedError),
        (grpc.StatusCode.ABORTED, "FENCED", errors.FencedError),
    ],
)
def test_what_does_not_pass_ends_the_upload_at_once(
    serve: Serve, send: Send, code: grpc.StatusCode, reason: str, kind: type[errors.HeadraceError]
) -> None:
    fake = FakeServer(faults=[fails("chunk", code, reason)])
    with pytest.raises(kind) as raised:
        send(serve(fake), "upload", io.BytesIO(CONTENT))
    assert raised.value.metadata["upload_id"] == fake.headers[0].upload_id
    assert fake.streams == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED])
def test_what_grpc_itself_refuses_ends_the_upload_at_once(
    serve: Serve, send: Send, code: grpc.StatusCode
) -> None:
    fake = FakeServer(faults=[fails("header", code)])
    with pytest.raises(headrace.HeadraceError) as raised:
        send(serve(fake), "upload", io.BytesIO(CONTENT))
    assert raised.value.code is code
    assert fake.streams == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "COMPUTE_UNAVAILABLE"),
        (grpc.StatusCode.UNAVAILABLE, "COMMIT_CONTENDED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"),
        (grpc.StatusCode.ABORTED, ""),
        (grpc.StatusCode.UNKNOWN, ""),
        (grpc.StatusCode.OUT_OF_RANGE, "OFFSET_GAP"),
    ],
)
def test_what_passes_is_waited_for(serve: Serve, send: Send, code: grpc.StatusCode, reason: str) -> None:
    fake = FakeServer(faults=[fails("chunk", code, reason, after=CHUNK)] * 2)
    send(serve(fake), "upload", io.BytesIO(CONTENT))
    assert bytes(fake.content) == CONTENT
    assert fake.streams == 3


def test_an_error_that_stays_is_given_up_after_a_few_tries_without_progress(
    serve: Serve, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.backoff.CAP_S", 0.05)
    fake = FakeServer(faults=[fails("chunk", grpc.StatusCode.INTERNAL, "INTERNAL", after=CHUNK)] * 50)
    with pytest.raises(errors.InternalError, match=rf"\[upload .*safe up to {CHUNK}"):
        send(serve(fake), "upload", io.BytesIO(CONTENT))
    assert fake.streams == upload.DOUBTFUL_TRIES + 1


def test_a_server_that_stays_away_ends_the_upload_when_patience_ends(
    serve: Serve, send: Send, file: Any
) -> None:
    fake = FakeServer(faults=[breaks("chunk", after=2 * CHUNK), *[breaks("header")] * 1_000])
    address, upload_id = serve(fake), "11111111-1111-4111-8111-111111111111"
    with pytest.raises(headrace.UnavailableError, match=r"given up after 1\.5 s without progress") as raised:
        send(address, "upload", file, upload_id=upload_id, patience_s=1.5)
    # A pipe comes in pieces of another size.
    assert 2 * CHUNK <= len(fake.content) < 3 * CHUNK
    assert raised.value.metadata == {
        "upload_id": upload_id,
        "persisted_offset": str(len(fake.content)),
    }
    fake.faults = []
    send(address, "upload", io.BytesIO(CONTENT), upload_id=upload_id)
    assert bytes(fake.content) == CONTENT


def test_without_patience_nothing_is_tried_again(serve: Serve, send: Send) -> None:
    fake = FakeServer(faults=[breaks("chunk")])
    with pytest.raises(headrace.UnavailableError):
        send(serve(fake), "upload", io.BytesIO(CONTENT), patience_s=0)
    assert fake.streams == 1


def test_a_result_that_was_lost_on_its_way_is_asked_for(serve: Serve, send: Send, file: Any) -> None:
    fake = FakeServer(faults=[breaks("result")])
    assert send(serve(fake), "upload", file).rows_received == 7
    assert (fake.streams, fake.questions) == (1, 1)


def test_an_upload_that_was_aborted_meanwhile_is_not_begun_anew(serve: Serve, send: Send) -> None:
    fake = FakeServer()

    def fault(point: str, offset: int, context: grpc.ServicerContext) -> None:
        if point == "finish":
            fake.state = upload_pb2.UPLOAD_STATE_ABORTED
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

    fake.faults = [fault]
    with pytest.raises(errors.UploadClosedError, match="was aborted"):
        send(serve(fake), "upload", io.BytesIO(CONTENT))
    assert fake.streams == 1


def test_a_fence_after_finish_is_no_error_if_the_upload_was_finished(
    serve: Serve, send: Send, file: Any
) -> None:
    finished = FakeServer(faults=[fails("result", grpc.StatusCode.ABORTED, "FENCED")])
    assert send(serve(finished), "upload", file).rows_received == 7
    unfinished = FakeServer(faults=[fails("finish", grpc.StatusCode.ABORTED, "FENCED")])
    with pytest.raises(errors.FencedError):
        send(serve(unfinished), "upload", io.BytesIO(CONTENT))
    assert unfinished.streams == 1


def test_a_fence_that_a_late_header_of_our_own_may_have_set_is_lifted_once(
    serve: Serve, send: Send, file: Any
) -> None:
    fenced = fails("chunk", grpc.StatusCode.ABORTED, "FENCED", after=CHUNK)
    fake = FakeServer(faults=[breaks("header"), fenced])
    send(serve(fake), "upload", file)
    assert bytes(fake.content) == CONTENT
    contested = FakeServer(faults=[breaks("header"), fenced, fenced])
    with pytest.raises(errors.FencedError):
        send(serve(contested), "upload", io.BytesIO(CONTENT))
    assert contested.streams == 3


@pytest.mark.parametrize("kind", ["path", "open file", "table"])
def test_another_file_under_the_same_id_is_refused_before_anything_is_sent(
    serve: Serve, send: Send, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(CONTENT)
    fake = FakeServer(content=bytearray(b"x" * (CHUNK + 100)))
    address, before = serve(fake), bytes(fake.content)
    with pytest.raises(
        ValueError, match=rf"first {CHUNK + 100:,} bytes have crc32c 0x.*not the same content"
    ):
        if kind == "table":
            send(address, "upload_table", pa.table({"item_id": ["i" * 100] * 100_000}))
        else:
            send(address, "upload", path if kind == "path" else io.BytesIO(CONTENT))
    assert bytes(fake.content) == before
    assert not fake.finishes


def test_a_shorter_source_under_the_same_id_is_refused(serve: Serve, send: Send, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(CONTENT[:5])
    address = serve(FakeServer(content=bytearray(CONTENT)))
    for file in (path, io.BytesIO(CONTENT[:5])):
        with pytest.raises(ValueError, match=f"only 5 bytes, but {5 * CHUNK + 17:,} were stored"):
            send(address, "upload", file)
    with pytest.raises(ValueError, match="only 1 rows, but 2 were stored"):
        send(serve(FakeServer(rows=["i0", "i1"])), "upload_rows", [{"item_id": "i0"}])


def test_a_file_that_changes_while_the_server_is_away_is_refused(
    serve: Serve, send: Send, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(CONTENT)

    def change(progress: headrace.Progress) -> None:
        if progress.interruption:
            path.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])

    fake = FakeServer(faults=[breaks("chunk", after=2 * CHUNK)])
    with pytest.raises(ValueError, match="not the same content"):
        send(serve(fake), "upload", path, on_progress=change)


def test_what_was_acknowledged_and_is_gone_can_be_sent_again_from_a_file_only(
    serve: Serve, send: Send, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(CONTENT)

    def forgetful() -> FakeServer:
        fake = FakeServer()

        def fault(point: str, offset: int, context: grpc.ServicerContext) -> None:
            if point == "chunk" and offset >= 3 * CHUNK:
                time.sleep(0.5)  # Until the acks have been read.
                fake.content.clear()
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

        fake.faults = [fault]
        return fake

    with pytest.raises(errors.DataLossError, match="The server has 0 bytes of the upload, but acknowledged"):
        send(serve(forgetful()), "upload", Pipe(CONTENT))
    fake = forgetful()
    send(serve(fake), "upload", path)
    assert bytes(fake.content) == CONTENT


def test_an_error_of_the_source_is_raised_as_it_is_and_never_tried_again(serve: Serve, send: Send) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield {"item_id": "i1"}
        raise errors.UnavailableError("of another server")

    fake = FakeServer()
    with pytest.raises(errors.UnavailableError, match="of another server"):
        send(serve(fake), "upload_rows", rows())
    assert fake.streams == 1
    assert not fake.finishes


def test_a_source_that_fails_between_two_streams_does_not_look_like_one_that_ended(
    serve: Serve, send: Send
) -> None:
    broken = threading.Event()

    class Failing(Pipe):
        def read(self, size: int = -1) -> bytes:
            content = super().read(size)
            if not content:
                broken.wait(10)
                time.sleep(0.1)  # Until the first stream is over.
                raise OSError("the pipe burst")
            return content

    def fault(point: str, offset: int, context: grpc.ServicerContext) -> None:
        if point == "chunk":
            broken.set()
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

    fake = FakeServer(faults=[fault])
    with pytest.raises(OSError, match="the pipe burst"):
        send(serve(fake), "upload", Failing(CONTENT[: BATCH_BYTES * 2]))
    assert not fake.finishes


def test_an_error_of_the_callback_ends_the_upload(serve: Serve, send: Send) -> None:
    def callback(progress: headrace.Progress) -> None:
        raise errors.UnavailableError("my own")

    fake = FakeServer()
    with pytest.raises(errors.UnavailableError, match="my own"):
        send(serve(fake), "upload", io.BytesIO(CONTENT), on_progress=callback)
    assert fake.streams == 1


def test_no_more_than_the_window_is_read_while_the_server_acknowledges_nothing(
    serve: Serve, send: Send
) -> None:
    class Long(Pipe):
        given = 0

        def read(self, size: int = -1) -> bytes:
            if self.given >= 3 * WINDOW_BYTES:
                return b""
            self.given += CHUNK
            return bytes(CHUNK)

    fake, source = FakeServer(acks=False, keeps_checksum=False), Long(b"")
    address = serve(fake)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, address, "upload", source)
        deadline_s = time.monotonic() + 30
        while source.given < WINDOW_BYTES and time.monotonic() < deadline_s:
            time.sleep(0.05)
        time.sleep(1.5)  # Long enough for the flush that a full window asks for.
        assert source.given == WINDOW_BYTES
        fake.may_flush.set()
        assert sending.result(30).rows_received == 7
    assert len(fake.content) == source.given == 3 * WINDOW_BYTES


async def test_cancelling_ends_an_upload_that_waits_for_its_server(serve: Serve) -> None:
    fake = FakeServer(faults=[breaks("chunk")] * 1_000)
    waiting = asyncio.Event()

    def note(progress: headrace.Progress) -> None:
        if progress.interruption:
            waiting.set()

    async def rows() -> AsyncIterator[dict[str, str]]:
        for n in range(100_000):
            yield {"item_id": f"i{n}", "title": "t" * 60}

    async with headrace.AsyncClient(serve(fake)) as client:
        task = asyncio.create_task(client.upload_rows("acme", "items", rows(), on_progress=note))
        await asyncio.wait_for(waiting.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        streams = fake.streams
        await asyncio.sleep(0.5)
        assert fake.streams == streams
        assert not [each for each in asyncio.all_tasks() if "read_next" in repr(each)]


def test_ctrl_c_ends_an_upload_at_once(serve: Serve) -> None:
    def interrupt(progress: headrace.Progress) -> None:
        if progress.interruption:
            raise KeyboardInterrupt

    fake = FakeServer(faults=[breaks("chunk")] * 1_000)
    with pytest.raises(KeyboardInterrupt):
        send_sync(serve(fake), "upload", io.BytesIO(CONTENT), on_progress=interrupt)
    assert fake.streams == 1


def test_a_finished_upload_repeated_does_not_read_its_source_to_the_end(serve: Serve, send: Send) -> None:
    asked = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal asked
        for n in range(50_000_000):
            asked += 1
            yield {"item_id": f"i{n}"}

    fake = FakeServer(state=upload_pb2.UPLOAD_STATE_DONE, rows=["x"] * 40_000_000)
    assert send(serve(fake), "upload_rows", rows()).rows_received == 7
    time.sleep(0.3)
    seen = asked
    time.sleep(0.2)
    assert asked == seen < 40_000_000


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "IDLE_TIMEOUT"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "GAVE_WAY"),
    ],
)
def test_an_idle_source_is_waited_for_however_long(
    serve: Serve, send: Send, code: grpc.StatusCode, reason: str
) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield {"item_id": "i0"}
        time.sleep(1.5)
        yield {"item_id": "i1"}

    idle = fails("started", code, reason)
    fake = FakeServer(faults=[idle] * 20)
    send(serve(fake), "upload_rows", rows(), patience_s=0.3)
    assert fake.rows == ["i0", "i1"]
