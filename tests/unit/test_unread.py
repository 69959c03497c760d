"""Clients that do not read, on a real gRPC server that has nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from headrace_server.rpc import connections, unread
from headrace_server.rpc.calls import CallInterceptor
from headrace_server.rpc.shutdown import Shutdown
from headrace_server.rpc.unread import Unread

RESPONSE = bytes(1 << 20)
SECONDS = 1.0
GRACE_SECONDS = 0.2


@dataclass
class _Service(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Sends for as long as the client reads, or waits until it is told."""

    sent: int = 0
    ended: int = 0
    wait_over: asyncio.Event = field(default_factory=asyncio.Event)

    def service(self, details: Any) -> Any:
        waits = details.method.endswith("Wait")
        return grpc.unary_stream_rpc_method_handler(self._wait if waits else self._send)

    async def _send(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            for _ in range(100):
                self.sent += 1
                yield RESPONSE
        finally:
            self.ended += 1

    async def _wait(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"waiting"
        await self.wait_over.wait()
        yield b"over"


@dataclass
class _Line:
    service: _Service
    channel: aio.Channel

    def call(self, method: str) -> Any:
        return self.channel.unary_stream(f"/test.Service/{method}", None, None)(b"")


async def _holds(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def line(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Line]:
    monkeypatch.setattr(unread, "GRACE_SECONDS", GRACE_SECONDS)
    service = _Service()
    server = aio.server(interceptors=[CallInterceptor(Shutdown(), Unread(SECONDS))])
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    # It sees the connection break, and does not make another one.
    options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
    async with aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield _Line(service, channel)
    await server.stop(None)


async def test_a_call_that_is_not_read_lets_go_and_tells_why_when_the_client_reads_on(
    line: _Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "GRACE_SECONDS", 60.0)
    call = line.call("Send")
    assert await call.read() == RESPONSE
    await _holds(lambda: line.service.ended == 1)
    assert line.service.sent < 10
    with pytest.raises(aio.AioRpcError) as caught:
        while True:
            await call.read()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    status = rpc_status.from_call(cast(Any, caught.value))
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("UNREAD_TIMEOUT", {"unread_seconds": "1"})


async def test_a_slow_reader_gets_everything(line: _Line) -> None:
    received = 0
    async for _ in line.call("Send"):
        received += 1
        if received % 20 == 0:
            await asyncio.sleep(SECONDS / 5)
    assert received == 100


async def test_the_connection_of_a_client_that_never_reads_is_severed(line: _Line) -> None:
    calls = [line.call("Send") for _ in range(5)]
    for call in calls:
        await call.read()
    for call in calls:
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
    assert line.service.ended == 5


async def test_a_connection_on_which_another_call_is_under_way_is_not_severed(line: _Line) -> None:
    waiting, idle = line.call("Wait"), line.call("Send")
    assert await waiting.read() == b"waiting"
    await idle.read()
    await _holds(lambda: line.service.ended == 1)
    await asyncio.sleep(5 * GRACE_SECONDS)
    line.service.wait_over.set()
    assert await waiting.read() == b"over"
    assert await waiting.code() == grpc.StatusCode.OK
    assert await idle.code() == grpc.StatusCode.UNAVAILABLE


async def test_of_calls_given_up_only_so_many_may_stay_on_a_connection_in_use(
    line: _Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "MAX_GIVEN_UP", 2)
    waiting = line.call("Wait")
    await waiting.read()
    idle = [line.call("Send") for _ in range(3)]
    for call in idle:
        await call.read()
    assert await waiting.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("peer", ["ipv4:192.0.2.1:9", "ipv6:%5B2001:db8::1%5D:9", "ipv6:[::1]:9"])
def test_a_peer_that_is_gone_already_is_no_error(peer: str) -> None:
    assert connections.sever(peer) is False
