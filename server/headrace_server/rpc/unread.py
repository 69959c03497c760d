"""Clients that do not take what they are sent.

While a response waits for room at the client, gRPC keeps it, and nobody can take it back: a status, too,
waits behind it. So a call that is given up here lets go of everything else at once, and ends when the client
reads on. If it does not, its connection is severed, once no other call is under way on it.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from headrace_compute.errors import UnreadTimeoutError
from headrace_server.rpc.connections import sever

GRACE_SECONDS = 10.0
"""How long a client may take to read the status of a call that was given up."""

MAX_GIVEN_UP = 64
"""Calls given up that may wait for their clients; with more, connections are severed whatever is on them."""

_log = structlog.get_logger(__name__)


class Unread:
    """Knows the calls of each connection, and which of them were given up. Belongs to one event loop.

    Args:
        seconds: How long a client may leave a response untaken.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: defaultdict[str, set[OpenCall]] = defaultdict(set)
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def entered(self, peer: str) -> Iterator["OpenCall"]:
        """Counts a call in for as long as the context lasts.

        Args:
            peer: Whose connection it came by, as gRPC names it.
        """
        call = OpenCall(self._seconds, lambda: self._gave_up(peer, call))
        self._calls[peer].add(call)
        try:
            yield call
        finally:
            self._calls[peer].discard(call)
            if not self._calls[peer]:
                del self._calls[peer]

    def _gave_up(self, peer: str, call: "OpenCall") -> None:
        _log.warning("the client does not read; its call is given up", peer=peer)
        self._spawn(call.close())
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._look_again, peer, call)

    def _look_again(self, peer: str, call: "OpenCall") -> None:
        """Severs the connection of a call that still has not ended, unless others would suffer."""
        if call not in self._calls.get(peer, ()):
            return
        given_up = sum(each.given_up for calls in self._calls.values() for each in calls)
        if given_up > MAX_GIVEN_UP or all(each.given_up for each in self._calls[peer]):
            _log.warning("the client does not read; its connection is severed", peer=peer)
            self._spawn(asyncio.to_thread(sever, peer))
        else:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._look_again, peer, call)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class OpenCall:
    """A call under way.

    Args:
        seconds: How long the client may leave a response untaken.
        give_up: Called when it has.

    Attributes:
        given_up: Whether that has happened.
    """

    def __init__(self, seconds: float, give_up: Callable[[], None]) -> None:
        self._seconds = seconds
        self._give_up = give_up
        self._responses: AsyncGenerator[Any, None] | None = None
        self.given_up = False

    @contextmanager
    def sending(self, responses: AsyncGenerator[Any, None]) -> Iterator[None]:
        """Bounds the time that the context takes, in which gRPC has one of the responses.

        Args:
            responses: What makes them; closed when the time is over, so that it holds nothing any more.

        Raises:
            UnreadTimeoutError: The time was over before the client took the response.
        """
        self._responses = responses
        timer = asyncio.get_running_loop().call_later(self._seconds, self._over)
        try:
            yield
        finally:
            timer.cancel()
        if self.given_up:
            raise UnreadTimeoutError(
                f"The client took no response for {self._seconds:g} seconds, so the call was given up; "
                f"call again, and read on.",
                {"unread_seconds": f"{self._seconds:g}"},
            )

    def _over(self) -> None:
        self.given_up = True
        self._give_up()

    async def close(self) -> None:
        """Ends what makes the responses."""
        assert self._responses is not None
        try:
            await self._responses.aclose()
        except Exception as error:
            _log.error("a call that was given up does not end well", exc_info=error)
