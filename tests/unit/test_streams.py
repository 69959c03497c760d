"""Requests and responses of a stream: waiting for a client, and keeping what it does not read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from headrace_compute.errors import DrainingError, HeadraceError, IdleTimeoutError
from headrace_server.rpc.streams import (
    DRAIN_BYTES,
    MAX_QUEUED_RESPONSES,
    RequestStream,
    ResponseQueue,
    serve_stream,
)


class _Client:
    """A client's side: what it has sent comes, then it stays silent."""

    def __init__(self, *messages: Any) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if (message := await self.messages.get()) is None:
            raise StopAsyncIteration
        return message


async def test_messages_come_in_order_up_to_the_half_close() -> None:
    incoming = RequestStream(_Client(1, 2, None), 5)
    assert [message async for message in incoming] == [1, 2]


async def test_silence_ends_the_wait_and_loses_no_message() -> None:
    client = _Client()
    incoming = RequestStream(client, 0.05)
    with pytest.raises(IdleTimeoutError) as caught:
        await anext(incoming)
    assert caught.value.attributes == {"idle_seconds": "0.05"}
    client.messages.put_nowait("late")
    assert await anext(incoming) == "late"
    incoming.close()


async def test_an_interruption_is_raised_once_in_place_of_a_message() -> None:
    client = _Client("kept")
    incoming = RequestStream(client, 5)
    incoming.interrupt(DrainingError("first"))
    incoming.interrupt(DrainingError("second"))
    with pytest.raises(DrainingError, match="first"):
        await anext(incoming)
    assert await anext(incoming) == "kept"
    waiting = asyncio.ensure_future(anext(incoming))
    await asyncio.sleep(0)
    incoming.interrupt(DrainingError("third"))
    with pytest.raises(DrainingError, match="third"):
        await waiting
    incoming.close()


async def test_of_acks_only_the_newest_waits_and_nothing_else_is_dropped() -> None:
    responses: ResponseQueue[tuple[str, int]] = ResponseQueue()
    responses.send(("started", 0))
    for offset in range(100_000):
        responses.send(("ack", offset), newest_of="ack")
    responses.send(("result", 1))
    responses.close()
    received = []
    while (response := await responses.get()) is not None:
        received.append(response)
    assert received == [("started", 0), ("ack", 99_999), ("result", 1)]


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    handled = 0

    async def serve(incoming: RequestStream[Any], responses: ResponseQueue[int]) -> None:
        nonlocal handled
        async for message in incoming:
            handled += 1
            responses.send(message)
            await responses.room()

    responses = serve_stream(_Client(*range(1000), None), serve, lambda status: -1, idle_seconds=5)
    assert await anext(responses) == 0
    await asyncio.sleep(0.05)
    assert handled <= MAX_QUEUED_RESPONSES + 2
    assert [response async for response in responses] == list(range(1, 1000))


async def test_an_error_goes_in_band_first_and_then_ends_the_call() -> None:
    async def serve(incoming: RequestStream[Any], responses: ResponseQueue[Any]) -> None:
        raise HeadraceError("what is wrong")

    async def collect(responses: AsyncIterator[Any]) -> list[Any]:
        seen = []
        with pytest.raises(HeadraceError):
            async for response in responses:
                seen.append(response.message)
        return seen

    client = _Client(BytesValue(), None)
    work: Awaitable[list[Any]] = collect(serve_stream(client, serve, lambda status: status, 5))
    assert await work == ["what is wrong"]


async def test_of_a_client_that_does_not_listen_only_so_many_bytes_are_read() -> None:
    message = BytesValue(value=bytes(1 << 20))
    taken = 0

    async def endless() -> AsyncIterator[BytesValue]:
        nonlocal taken
        while True:
            taken += 1
            yield message

    async def serve(incoming: RequestStream[BytesValue], responses: ResponseQueue[Any]) -> None:
        raise HeadraceError("what is wrong")

    with pytest.raises(HeadraceError):
        [_ async for _ in serve_stream(endless(), serve, lambda status: status, 5)]
    assert taken <= DRAIN_BYTES // message.ByteSize() + 1
