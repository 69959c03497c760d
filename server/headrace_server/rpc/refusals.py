"""Refusals a few at a time, so that they leave the event loop to the calls that are served.

A refused call costs the loop half a millisecond, most of it for its status and its line in the log. Hundreds
at once would keep it from everybody else for as long as they take, over and over where callers ask again.
"""

import asyncio

from headrace_compute.fair_queue import FairQueue

AT_ONCE = 8
"""Refusals at a time: one by one each would have the loop wake for itself, at twice the cost."""

REST_SECONDS = 0.04
"""From these to the next: several times what they cost, also on a busy machine."""

MAX_WAITING = 1_000
"""Refusals that wait. Each is an open call with its memory, so what comes beyond is refused at once."""


class Refusals:
    """Turns of calls that are to be refused: a few at a time, by connection. Belongs to one event loop."""

    def __init__(self) -> None:
        self._turns = FairQueue(range(AT_ONCE))
        self._waiting = 0

    async def turn(self, peer: str) -> None:
        """Waits until a call may be refused; the first few need not.

        Args:
            peer: Whose connection it came by, as gRPC names it.
        """
        if self._waiting >= MAX_WAITING:
            return
        self._waiting += 1
        try:
            turn = await self._turns.acquire(peer, "")
        finally:
            self._waiting -= 1
        asyncio.get_running_loop().call_later(REST_SECONDS, self._turns.release, turn)
