"""A server that is asked for more than it can do, called off, or told to stop: calls, memory, rows."""

import asyncio
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from bench.memory import own_bytes
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness.dialogue import HEADER, Dialogue, chunk, failure_of, finish, header, info_of, lines
from harness.phoenix import Phoenix
from harness.server import Server
from harness.watch import eventually, files_below, until

from headrace import Client
from headrace.v1 import upload_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

if TYPE_CHECKING:
    from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceAsyncStub

MIB = 1 << 20
ROWS = lines(20_000).encode()


class _Flood:
    """Streams of a tenant that write as fast as they can, until told to stop."""

    def __init__(
        self, stub: "PipelineServiceAsyncStub", tenant: str, count: int, blocks: int = 1 << 30
    ) -> None:
        self._stub = stub
        self._tenant = tenant
        self._blocks = blocks
        self.acks = 0
        self.failures: list[str] = []
        self.tasks = [asyncio.create_task(self._stream()) for _ in range(count)]

    async def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _stream(self) -> None:
        offset = -1
        async for response in self._stub.Upload(self._requests()):
            if response.WhichOneof("response") == "ack" and response.ack.persisted_offset > offset:
                self.acks += 1
                offset = response.ack.persisted_offset
            elif response.WhichOneof("response") == "error":
                self.failures.append(response.error.message)

    async def _requests(self) -> AsyncIterator[upload_pb2.UploadRequest]:
        yield header(self._tenant)
        yield chunk(HEADER)
        for _ in range(self._blocks):
            yield chunk(ROWS)


async def test_fifty_streams_of_one_tenant_leave_another_its_share(server: Server, tenant: str) -> None:
    async with aio.insecure_channel(server.address) as channel:
        stub = PipelineServiceStub(channel)
        big = _Flood(stub, f"{tenant}-big", 50)
        await until(lambda: big.acks > 100)
        before = big.acks
        small = _Flood(stub, f"{tenant}-small", 1, blocks=4)
        await asyncio.gather(*small.tasks)
        meanwhile = big.acks - before
        await big.cancel()
    assert big.failures == small.failures == []
    # Blocks of equal size: with fair turns each tenant gets half of the workers. In one line the
    # big one would have had fifty times as many; acks may stand for more blocks than one.
    assert small.acks >= 10
    print(f"{small.acks} acks of the small tenant, {meanwhile} of the big one meanwhile")  # noqa: T201
    assert meanwhile <= 8 * small.acks


async def test_header_only_streams_of_forty_tenants_keep_no_other_tenant_out(
    server: Server, tenant: str
) -> None:
    # A connection of their own: it takes no more streams than these.
    apart = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        aio.insecure_channel(server.address, apart) as channel,
        aio.insecure_channel(server.address, apart) as other,
    ):
        # The stubs know only calls whose requests are all at hand.
        stub, silent = cast(Any, PipelineServiceStub(channel)), list[Any]()
        for number in range(256):
            call = stub.Upload()
            await call.write(header(f"{tenant}-{number % 40}"))
            silent.append(call)
        started = await asyncio.gather(*(call.read() for call in silent))
        assert all(answer.WhichOneof("response") == "started" for answer in started)
        results = []
        for number in range(5):
            requests = [header(f"{tenant}-new-{number}"), chunk(HEADER + lines(7)), finish()]
            answers = [answer async for answer in PipelineServiceStub(other).Upload(iter(requests))]
            results.append(answers[-1].result.rows_accepted)
        assert results == [7] * 5
        for call in silent:
            call.cancel()


async def test_fifty_fast_streams_keep_memory_bounded_and_unary_calls_answered(
    own_server: Callable[..., Server],
) -> None:
    server = own_server()
    idle = own_bytes(server.process.pid)
    async with aio.insecure_channel(server.address) as channel, aio.insecure_channel(server.address) as other:
        flood = _Flood(PipelineServiceStub(channel), "big", 50)
        stub = PipelineServiceStub(other)
        peak, waits = 0, []
        for _ in range(100):
            started = time.monotonic()
            await stub.GetSchema(validation_pb2.GetSchemaRequest(data_type="items"), timeout=10)
            request = upload_pb2.GetUploadRequest(tenant_id="small", upload_id=str(uuid.uuid4()))
            with pytest.raises(aio.AioRpcError) as caught:
                await stub.GetUpload(request, timeout=10)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            waits.append(time.monotonic() - started)
            peak = max(peak, own_bytes(server.process.pid))
            await asyncio.sleep(0.1)
        await flood.cancel()
    assert flood.failures == []
    assert flood.acks > 0
    print(f"peak {peak >> 20} MiB, slowest {max(waits):.2f} s, {flood.acks} acks")  # noqa: T201
    assert peak < 640 * MIB
    await until(lambda: own_bytes(server.process.pid) < idle + 64 * MIB)


@pytest.mark.slow
async def test_ten_thousand_cancelled_calls_leave_nothing_behind(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = own_server(HEADRACE_BLOCK_BYTES=str(256 << 10), HEADRACE_UPLOAD_TTL_SECONDS="20")
    body = chunk(HEADER.encode() + ROWS)
    kinds: Counter[str] = Counter()

    async def one(stub: "PipelineServiceAsyncStub", number: int) -> None:
        kind = ("at once", "after the header", "amid a block", "unary")[number % 4]
        kinds[kind] += 1
        if kind == "unary":
            request = upload_pb2.GetUploadRequest(tenant_id="acme", upload_id=str(uuid.uuid4()))
            unary = stub.GetUpload(request)
            await asyncio.sleep(0)
            unary.cancel()
            return
        call: Any = cast(Any, stub).Upload()  # Written to by hand, which the stubs do not know.
        if kind == "at once":
            call.cancel()
            return
        await call.write(header(f"t{number % 7}"))
        if kind == "amid a block" and number % 40 == 2:
            await call.write(body)
            await call.read()
        call.cancel()

    async with aio.insecure_channel(server.address) as channel:
        stub = PipelineServiceStub(channel)

        async def many(first: int, last: int) -> int:
            for start in range(first, last, 100):
                calls = [one(stub, number) for number in range(start, start + 100)]
                await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(1)
            return own_bytes(server.process.pid)

        warm = await many(0, 2_000)
        after = await many(2_000, 12_000)
    print(f"{warm >> 20} MiB after 2,000 calls, {after >> 20} MiB after 12,000: {dict(kinds)}")  # noqa: T201
    assert after - warm < 40 * MIB
    with grpc.insecure_channel(server.address) as plain:
        assert (
            Dialogue(
                PipelineServiceStub(plain), [header("acme"), chunk(HEADER + lines(7)), finish()]
            ).result.rows_accepted
            == 7
        )
        with Client(server.address) as client:
            assert client.health().status == "healthy"
        # Their uploads go the way of all that nobody goes on with.
        entries = tmp_path / "data/raw-data/_headrace/open"
        await until(lambda: not any(path.match("*-*-*-*-*") for path in files_below(entries)), 120)


@dataclass
class _Uploader:
    """A client that goes on wherever a server is, and remembers what it was told is safe."""

    tenant: str
    data: bytes
    upload_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    acked: int = 0
    begun: bool = False
    drained: bool = False
    ended_with: tuple[int, str] = (0, "")
    result: upload_pb2.UploadResult | None = None
    resumed_below_ack: bool = False

    def run(self, address: str, pause: float = 0.0) -> None:
        self._started = threading.Event()
        with grpc.insecure_channel(address) as channel:
            try:
                for response in PipelineServiceStub(channel).Upload(self._requests(pause), timeout=120):
                    self._take(response)
            except grpc.RpcError:
                self._started.set()

    def _take(self, response: upload_pb2.UploadResponse) -> None:
        match response.WhichOneof("response"):
            case "started":
                self.resumed_below_ack |= response.started.persisted_offset < self.acked
                self.acked = response.started.persisted_offset
                self.begun = True
                self._started.set()
            case "ack":
                self.acked = max(self.acked, response.ack.persisted_offset)
            case "draining":
                self.drained = True
            case "error":
                self.ended_with = response.error.code, info_of(response.error)[0]
                self._started.set()
            case "result":
                self.result = response.result

    def _requests(self, pause: float) -> Iterator[upload_pb2.UploadRequest]:
        yield header(self.tenant, upload_id=self.upload_id)
        assert self._started.wait(60)
        offset = self.acked
        while offset < len(self.data) and not self.ended_with[0]:
            piece = self.data[offset : offset + 30_000]
            yield chunk(piece, offset=offset)
            offset += len(piece)
            time.sleep(pause)
        if not self.ended_with[0]:
            yield finish(total_size=len(self.data))


def test_a_stop_under_load_loses_no_row_and_doubles_none(phoenix: Phoenix, tenant: str) -> None:
    first = phoenix.server
    data = (HEADER + lines(40_000)).encode()
    uploaders = [_Uploader(f"{tenant}-{number}", data) for number in range(8)]
    # Slow enough to be amid it when the server stops; a last one waits for nothing but a message.
    threads = [threading.Thread(target=each.run, args=(first.address, 0.4)) for each in uploaders]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while not all(each.acked for each in uploaders) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(each.acked for each in uploaders)

    first.process.send_signal(signal.SIGTERM)
    while not all(each.drained for each in uploaders) and time.monotonic() < deadline:
        time.sleep(0.02)
    with grpc.insecure_channel(first.address) as channel:
        stub = PipelineServiceStub(channel)
        probe = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert probe.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetSchema(validation_pb2.GetSchemaRequest(data_type="items"), timeout=10)
        assert failure_of(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        late = Dialogue(stub, [header("late"), finish()])
        assert late.failure[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    for thread in threads:
        thread.join(60)
    assert first.process.wait(60) == 0
    assert all(each.drained for each in uploaders)
    unavailable = grpc.StatusCode.UNAVAILABLE.value[0]
    assert {each.ended_with for each in uploaders} == {(unavailable, "DRAINING")}
    assert all(each.result is None for each in uploaders)

    second = phoenix.rest()
    acked = [each.acked for each in uploaders]
    for each in uploaders:
        each.ended_with = (0, "")
        each.run(second.address)
    # What the last ack said was there, to the byte: nothing was safe that the client did not know of.
    assert not any(each.resumed_below_ack for each in uploaders)
    assert all(offset > 0 for offset in acked)
    with Client(second.address) as client:
        for each in uploaders:
            assert each.result is not None
            assert each.result.rows_accepted == 40_000
            rows = client.read_table(each.tenant, "interactions")["row_number"].to_pylist()
            assert sorted(rows) == list(range(40_000))


def test_an_upload_that_finishes_while_the_server_drains_gets_its_result(
    phoenix: Phoenix, tenant: str
) -> None:
    server = phoenix.server
    uploader = _Uploader(tenant, (HEADER + lines(5_000)).encode())
    thread = threading.Thread(target=uploader.run, args=(server.address, 0.2))
    thread.start()
    eventually(lambda: uploader.begun)
    assert server.stop() == 0
    thread.join(30)
    assert uploader.drained
    assert uploader.result is not None
    assert uploader.result.rows_accepted == 5_000
