"""A server that is killed and comes back while a client goes on trying."""

import signal
import socket
import threading
from pathlib import Path

from harness.server import Server, start_server


class Phoenix:
    """A server that is killed with SIGKILL and comes back on the same port with the same data."""

    def __init__(self, folder: Path, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._folder = folder
        self._settings = settings
        # Requests are made in a thread of gRPC's: a kill amid them has ended before anybody looks.
        self._changing = threading.RLock()
        self._rising: threading.Thread | None = None
        self.server = self.start()

    def start(self, **settings: str) -> Server:
        """Starts it, with settings instead of those that it was made with."""
        given = {"HEADRACE_GRPC_ADDRESS": self.address, "HEADRACE_BLOCK_BYTES": "65536"}
        return start_server(self._folder / "data", **given | self._settings | settings)

    def kill(self) -> None:
        with self._changing:
            self.rest().stop(signal.SIGKILL)

    def kill_and_rise(self) -> None:
        """Kills it, and lets it come back while the client goes on trying."""
        self.kill()

        def rise() -> None:
            self.server = self.start()

        self._rising = threading.Thread(target=rise)
        self._rising.start()

    def rest(self) -> Server:
        """Waits until it is back, starts it if nobody did, and returns it."""
        with self._changing:
            if self._rising is not None:
                self._rising.join()
                self._rising = None
            if self.server.process.poll() is not None:
                self.server = self.start()
            return self.server
