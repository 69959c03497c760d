"""A client that does not give up: the generated stub, an upload_id, and where the server says to go on."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import grpc

from chaos.ledger import Ledger
from chaos.source import Source
from headrace.v1 import upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)

CHUNK_BYTES = 256 << 10
WINDOW_BYTES = 32 << 20
PAUSE_SECONDS = 0.2

Pace = Callable[[int], None]
"""Called with the offset before every chunk; may wait, or do harm."""


@dataclass
class Uploader:
    """Uploads for one tenant, over whatever the line and the server do.

    Args:
        address: Where to connect to, asked before every try.
        heal: Called after every failure: starts the server again if it is dead.
        silence_seconds: A call that says nothing for so long is given up.
        window_bytes: What may be sent and not acknowledged; above a block, or nothing moves.
        tries: Failures without any progress after which it does give up.
    """

    tenant: str
    ledger: Ledger
    address: Callable[[], str]
    heal: Callable[[], None]
    silence_seconds: float = 60.0
    tries: int = 20
    chunk_bytes: int = CHUNK_BYTES
    window_bytes: int = WINDOW_BYTES
    failures: list[grpc.StatusCode] = field(default_factory=list)

    def in_small_steps(self) -> "Uploader":
        """The same, never far ahead of what is acknowledged: harm can be done in the middle of an upload."""
        return replace(self, chunk_bytes=64 << 10, window_bytes=256 << 10)

    def upload(self, source: Source, upload_id: str, pace: Pace = lambda _: None) -> upload_pb2.UploadResult:
        """Sends a source to its end, once or as often as it takes."""
        self.ledger.open(upload_id, source)
        left = self.tries
        while True:
            acked = self.ledger.accounts[upload_id].acked
            try:
                result = self.once(source, upload_id, pace)
                assert result is not None
                return result
            except grpc.RpcError as error:
                code = error.code()
                self.failures.append(code)
                left = self.tries if self.ledger.accounts[upload_id].acked > acked else left - 1
                if code not in PASSING or left <= 0:
                    raise
                time.sleep(PAUSE_SECONDS)
                self.heal()

    def once(
        self, source: Source, upload_id: str, pace: Pace = lambda _: None, *, finish: bool = True
    ) -> upload_pb2.UploadResult | None:
        """One call: from where the server says to the end; None if it is not to finish."""
        self.ledger.open(upload_id, source)
        options = (("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500))
        with grpc.insecure_channel(self.address(), options) as channel:
            talk = _Talk(self, source, upload_id, pace, finish)
            return talk.run(PipelineServiceStub(channel))


class _Talk:
    """One call of an upload."""

    def __init__(self, uploader: Uploader, source: Source, upload_id: str, pace: Pace, finish: bool) -> None:
        self._uploader = uploader
        self._ledger = uploader.ledger
        self._source = source
        self._upload_id = upload_id
        self._pace = pace
        self._finish = finish
        self._news = threading.Condition()
        self._start: int | None = None
        self._acked = 0
        self._heard = time.monotonic()
        self._over = False

    def run(self, stub: PipelineServiceStub) -> upload_pb2.UploadResult | None:
        call = stub.Upload(self._requests())
        threading.Thread(target=self._listen_for_silence, args=(call,), daemon=True).start()
        result = None
        try:
            for response in call:
                self._take(response)
                if response.WhichOneof("response") == "result":
                    result = response.result
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()
        if self._finish and result is None:
            raise AssertionError("the call ended well, but without a result")
        return result

    def _take(self, response: upload_pb2.UploadResponse) -> None:
        match response.WhichOneof("response"):
            case "started":
                self._ledger.started(self._upload_id, response.started.persisted_offset)
                with self._news:
                    self._start = self._acked = response.started.persisted_offset
            case "ack":
                self._ledger.ack(self._upload_id, response.ack.persisted_offset)
                with self._news:
                    self._acked = response.ack.persisted_offset
            case "result":
                self._ledger.finished(self._upload_id, response.result)
            case "error":
                # None of ours is one to go on after: half-close, and the server ends the call with it.
                with self._news:
                    self._over = True
        with self._news:
            self._heard = time.monotonic()
            self._news.notify_all()

    def _requests(self) -> Iterator[upload_pb2.UploadRequest]:
        header = upload_pb2.UploadHeader(
            tenant_id=self._uploader.tenant, data_type="interactions", upload_id=self._upload_id
        )
        yield upload_pb2.UploadRequest(header=header)
        if not self._wait(lambda: self._start is not None):
            return
        assert self._start is not None
        at, size = self._start, len(self._source.data)
        while at < size:
            self._pace(at)
            if not self._wait(lambda at=at: at - self._acked < self._uploader.window_bytes):  # type: ignore[misc]
                return
            data = self._source.data[at : at + self._uploader.chunk_bytes]
            yield upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(data=data, offset=at))
            at += len(data)
        self._pace(at)
        if self._finish:
            yield upload_pb2.UploadRequest(finish=upload_pb2.UploadFinish(total_size=size))

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Waits for a condition; False if the call is over before."""
        with self._news:
            self._news.wait_for(lambda: self._over or condition())
            return not self._over

    def _listen_for_silence(self, call: grpc.Call) -> None:
        with self._news:
            while not self._over:
                silent = time.monotonic() - self._heard
                if silent > self._uploader.silence_seconds:
                    call.cancel()  # type: ignore[no-untyped-call]
                    return
                self._news.wait(max(0.05, self._uploader.silence_seconds - silent))
