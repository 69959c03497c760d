"""Refusals wait for each other, and nobody waits for them."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio
from harness.dialogue import failure_of

from headrace_compute.errors import OverloadedError
from headrace_server.rpc import refusals
from headrace_server.rpc.calls import CallInterceptor
from headrace_server.rpc.refusals import Refusals
from headrace_server.rpc.shutdown import Shutdown
from headrace_server.rpc.unread import Unread


class _Service(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses one method and serves the other."""

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            self._refuse if details.method.endswith("Refuse") else self._serve
        )

    async def _refuse(self, request: bytes, context: Any) -> bytes:
        raise OverloadedError("There are too many; wait until one has ended.", {"limit": "0"})

    async def _serve(self, request: bytes, context: Any) -> bytes:
        return b"served"


def _flood(port: int) -> list[tuple[str, Any]]:
    """Two hundred calls that are refused, then one that is served, in the order in which they ended."""
    ended = list[tuple[str, Any]]()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        calls = []
        for method in (*["Refuse"] * 200, "Serve"):
            call: Any = channel.unary_unary(f"/test.Service/{method}", None, None).future(b"")
            call.add_done_callback(lambda call, method=method: ended.append((method, call)))
            calls.append(call)
        for call in calls:
            call.exception(timeout=60)
    return ended


async def test_a_call_that_comes_after_many_refused_ones_is_answered_before_them() -> None:
    server = aio.server(interceptors=[CallInterceptor(Shutdown(), Unread(60.0))])
    server.add_generic_rpc_handlers((_Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended = await asyncio.to_thread(_flood, port)
    await server.stop(None)
    assert [method for method, _ in ended].index("Serve") < 100
    expected = (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", {"limit": "0"})
    assert [failure_of(call.exception()) for method, call in ended if method == "Refuse"] == [expected] * 200


async def test_connections_take_turns() -> None:
    waiting, told = Refusals(), list[str]()

    async def refuse(peer: str) -> None:
        await waiting.turn(peer)
        told.append(peer)

    await asyncio.gather(*(refuse("busy") for _ in range(20)), refuse("quiet"))
    assert told.index("quiet") <= refusals.AT_ONCE + 1
    assert told.count("busy") == 20


async def test_one_that_is_given_up_leaves_its_turn_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "AT_ONCE", 1)
    waiting = Refusals()
    turns = [asyncio.create_task(waiting.turn("a")) for _ in range(5)]
    await turns[0]
    turns[1].cancel()
    await asyncio.gather(*turns[2:])


async def test_those_beyond_what_may_wait_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "AT_ONCE", 1)
    monkeypatch.setattr(refusals, "MAX_WAITING", 2)
    monkeypatch.setattr(refusals, "REST_SECONDS", 3600.0)
    waiting = Refusals()
    await waiting.turn("a")
    others = [asyncio.create_task(waiting.turn("a")) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.wait(others[2:], timeout=20)
    assert [each.done() for each in others] == [False, False, True, True, True]
    for each in others[:2]:
        each.cancel()
