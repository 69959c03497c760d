"""Who waits for the uploads of a server to end."""

import asyncio

import pytest

from headrace_server.rpc.live import LiveUploads

FOR_EVER = 1e9


class Stream:
    def interrupt(self, error: Exception) -> None:
        raise error


async def test_without_uploads_nobody_waits() -> None:
    assert await LiveUploads().ended(FOR_EVER)


async def test_the_last_upload_s_end_is_waited_for_and_no_longer() -> None:
    live = LiveUploads()
    with live.joined("acme", "a", Stream()), live.joined("acme", "b", Stream()):
        waiting = asyncio.create_task(live.ended(FOR_EVER))
        assert not await live.ended(0)
    assert await waiting


async def test_an_upload_that_was_left_can_be_joined_again() -> None:
    live = LiveUploads()
    with pytest.raises(ValueError, match="lost"), live.joined("acme", "a", Stream()):
        raise ValueError("lost")
    with live.joined("acme", "a", Stream()):
        assert live.has("acme", "a")
        assert not await live.ended(0)
    assert not live.has("acme", "a")
