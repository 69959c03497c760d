"""The server's shutdown, as calls under way observe it."""

import asyncio

from headrace_compute.errors import DrainingError


class Shutdown:
    """Tells streams first that the server is about to stop, then that they must end.

    Attributes:
        begun: Set when new calls are refused; streams under way may come to their end.
    """

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    def check(self) -> None:
        """Refuses a new call.

        Raises:
            DrainingError: The server is about to stop.
        """
        if self.begun.is_set():
            raise draining()


def draining() -> DrainingError:
    """The error for calls that the server no longer serves."""
    return DrainingError("The server is shutting down; repeat the call on another server, or in a moment.")
