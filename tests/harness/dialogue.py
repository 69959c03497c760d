"""Upload messages in few words, for tests that speak the protocol themselves."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from harness.watch import eventually
from headrace.v1 import run_pb2, upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

HEADER = "user_id,item_id,interaction_type,timestamp,rating\n"


def lines(count: int, first: int = 0) -> str:
    """Distinct valid interactions as CSV lines."""
    return "".join(
        f"u{n % 97},i{n},view,2026-01-01T00:00:{n % 60:02d}Z,\n" for n in range(first, first + count)
    )


def header(tenant: str, **fields: Any) -> upload_pb2.UploadRequest:
    """Opens an upload of interactions unless told otherwise."""
    fields = {"data_type": "interactions", **fields}
    return upload_pb2.UploadRequest(header=upload_pb2.UploadHeader(tenant_id=tenant, **fields))


def chunk(text: str | bytes, **fields: Any) -> upload_pb2.UploadRequest:
    """Appends bytes or text."""
    content = {"text": text} if isinstance(text, str) else {"data": text}
    return upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(**content, **fields))


def flush() -> upload_pb2.UploadRequest:
    """Asks for an ack."""
    return upload_pb2.UploadRequest(flush=upload_pb2.UploadFlush())


def finish(**fields: Any) -> upload_pb2.UploadRequest:
    """Ends the upload."""
    return upload_pb2.UploadRequest(finish=upload_pb2.UploadFinish(**fields))


def negatives(tenant: str, ratio: int) -> run_pb2.SampleNegativesRequest:
    """Asks for that many negatives of every view, whoever has few of them."""
    return run_pb2.SampleNegativesRequest(
        tenant_id=tenant,
        negative_ratio=ratio,
        positive_interaction_types=["view"],
        max_interactions_per_user=0,
        min_interactions_per_user=0,
        min_interactions_per_item=0,
    )


class Dialogue:
    """What a whole stream of requests was answered with.

    Args:
        on_response: Called with every response as it comes, for requests that wait for one.
        timeout: Seconds that the call may take.
    """

    def __init__(
        self,
        stub: PipelineServiceStub,
        requests: Iterable[upload_pb2.UploadRequest],
        on_response: Callable[[upload_pb2.UploadResponse], None] = lambda _: None,
        timeout: float = 60,
    ) -> None:
        self.responses: list[upload_pb2.UploadResponse] = []
        self.error: grpc.RpcError | None = None
        try:
            for response in stub.Upload(iter(requests), timeout=timeout):
                self.responses.append(response)
                on_response(response)
        except grpc.RpcError as error:
            self.error = error

    def all(self, kind: str) -> list[Any]:
        """Responses of one kind."""
        return [getattr(each, kind) for each in self.responses if each.WhichOneof("response") == kind]

    @property
    def result(self) -> upload_pb2.UploadResult:
        """The result; there must be one, and no error."""
        assert self.error is None, self.error
        (result,) = self.all("result")
        assert isinstance(result, upload_pb2.UploadResult)
        return result

    @property
    def started(self) -> upload_pb2.UploadStarted:
        """The answer to the header; there must be one."""
        assert self.all("started"), self.error
        (started,) = self.all("started")
        assert isinstance(started, upload_pb2.UploadStarted)
        return started

    @property
    def failure(self) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        """Code, reason and metadata of the fatal error, the same in band and at the call's end."""
        assert self.error is not None, self.responses
        code, reason, metadata = failure_of(self.error)
        in_band = self.all("error")[-1]
        assert (in_band.code, *info_of(in_band)) == (code.value[0], reason, metadata)
        return code, reason, metadata


class Talk:
    """An Upload call kept in hand: requests go out when the test says so.

    Args:
        requests: The first ones.
    """

    def __init__(self, stub: PipelineServiceStub, *requests: upload_pb2.UploadRequest) -> None:
        self._requests = list(requests)
        self._more = threading.Condition()
        self._ended = False
        self.responses: list[upload_pb2.UploadResponse] = []
        self.error: grpc.RpcError | None = None
        self.call = stub.Upload(self._send(), timeout=120)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def say(self, *requests: upload_pb2.UploadRequest) -> None:
        """Sends more."""
        with self._more:
            self._requests.extend(requests)
            self._more.notify()

    def end(self) -> None:
        """Half-closes and waits for the call's end."""
        with self._more:
            self._ended = True
            self._more.notify()
        self._reader.join(60)

    def wait_for(self, kind: str, seconds: float = 30) -> Any:
        """The newest response of a kind, once there is one."""
        eventually(lambda: bool(self.all(kind)), seconds)
        return self.all(kind)[-1]

    def all(self, kind: str) -> list[Any]:
        """Responses of one kind so far."""
        return [getattr(each, kind) for each in list(self.responses) if each.WhichOneof("response") == kind]

    def _send(self) -> Iterator[upload_pb2.UploadRequest]:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._requests or self._ended or self.error is not None)
                if not self._requests:
                    return
                request = self._requests.pop(0)
            yield request

    def _read(self) -> None:
        try:
            for response in self.call:
                self.responses.append(response)
        except grpc.RpcError as error:
            with self._more:
                self.error = error
                self._more.notify()


def failure_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Code, reason and metadata of a failed call."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    return (error.code(), *info_of(status))


def info_of(status: status_pb2.Status) -> tuple[str, dict[str, str]]:
    """Reason and metadata of a status, which has exactly one ErrorInfo."""
    infos = []
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            infos.append(info)
    (found,) = infos
    assert found.domain == "headrace"
    return found.reason, dict(found.metadata)


def cut(data: bytes, *places: int) -> Iterator[bytes]:
    """Data in pieces."""
    edges = [0, *sorted(places), len(data)]
    for start, end in itertools.pairwise(edges):
        yield data[start:end]
