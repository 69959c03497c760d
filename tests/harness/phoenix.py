"""A server that is killed and comes back while a client goes on trying."""

import signal
import socket
import threading
from pathlib import Path

from harness.server import Server, start_server


class Phoenix:
    """A server that is killed with SIGKILL and comes back on the same port with the same data."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._folder = folder
        self._rising: threading.Thread | None = None
        self.server = self.start()

    def start(self) -> Server:
        return start_server(
            self._folder / "data", HEADRACE_GRPC_ADDRESS=self.address, HEADRACE_BLOCK_BYTES="65536"
        )

    def kill(self) -> None:
        self.rest()
        self.server.stop(signal.SIGKILL)

    def kill_and_rise(self) -> None:
        """Kills it, and lets it come back while the client goes on trying."""
        self.kill()

        def rise() -> None:
            self.server = self.start()

        self._rising = threading.Thread(target=rise)
        self._rising.start()

    def rest(self) -> None:
        """Waits until it is back."""
        if self._rising is not None:
            self._rising.join()
