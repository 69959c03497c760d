"""Inbox and outbox: waiting for a client, and keeping what it does not read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from headrace_compute.errors import DrainingError, HeadraceError, IdleTimeoutError
from headrace_server.streams import OUTBOX_MESSAGES, Inbox, Outbox, converse


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
    inbox = Inbox(_Client(1, 2, None), 5)
    assert [message async for message in inbox] == [1, 2]


async def test_silence_ends_the_wait_and_loses_no_message() -> None:
    client = _Client()
    inbox = Inbox(client, 0.05)
    with pytest.raises(IdleTimeoutError) as caught:
        await anext(inbox)
    assert caught.value.attributes == {"idle_seconds": "0.05"}
    client.messages.put_nowait("late")
    assert await anext(inbox) == "late"
    inbox.close()


async def test_an_interruption_is_raised_once_in_place_of_a_message() -> None:
    client = _Client("kept")
    inbox = Inbox(client, 5)
    inbox.interrupt(DrainingError("first"))
    inbox.interrupt(DrainingError("second"))
    with pytest.raises(DrainingError, match="first"):
        await anext(inbox)
    assert await anext(inbox) == "kept"
    waiting = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    inbox.interrupt(DrainingError("third"))
    with pytest.raises(DrainingError, match="third"):
        await waiting
    inbox.close()


async def test_of_acks_only_the_newest_waits_and_nothing_else_is_dropped() -> None:
    outbox: Outbox[tuple[str, int]] = Outbox()
    outbox.send(("started", 0))
    for offset in range(100_000):
        outbox.send(("ack", offset), newest_of="ack")
    outbox.send(("result", 1))
    outbox.close()
    responses = []
    while (response := await outbox.get()) is not None:
        responses.append(response)
    assert responses == [("started", 0), ("ack", 99_999), ("result", 1)]


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    handled = 0

    async def serve(inbox: Inbox[int], outbox: Outbox[int]) -> None:
        nonlocal handled
        async for message in inbox:
            handled += 1
            outbox.send(message)
            await outbox.room()

    responses = converse(_Client(*range(1000), None), serve, lambda status: -1, idle_seconds=5)
    assert await anext(responses) == 0
    await asyncio.sleep(0.05)
    assert handled <= OUTBOX_MESSAGES + 2
    assert [response async for response in responses] == list(range(1, 1000))


async def test_an_error_goes_in_band_first_and_then_ends_the_call() -> None:
    async def serve(inbox: Inbox[int], outbox: Outbox[Any]) -> None:
        raise HeadraceError("what is wrong")

    async def collect(responses: AsyncIterator[Any]) -> list[Any]:
        seen = []
        with pytest.raises(HeadraceError):
            async for response in responses:
                seen.append(response.message)
        return seen

    work: Awaitable[list[Any]] = collect(converse(_Client(1, None), serve, lambda status: status, 5))
    assert await work == ["what is wrong"]
