"""A server process: started, waited for, stopped, killed, paused, and started again where it was."""

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from brokers.errors import BrokerStartError, BrokerUnavailableError
from brokers.tools import last_lines

START_SECONDS = 90
STOP_SECONDS = 30
POLL_SECONDS = 0.05
LOG_LINES = 15

# "Die with the starter" means, to Linux, with the thread that started it. A test may start one from a thread
# that ends before the tests do (asyncio.to_thread): one thread that lasts as long as Python starts them all.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="broker-starter")

# Turns itself into the server. Not a preexec_fn: that may deadlock in a process with threads, such as gRPC's.
_DIE_WITH_STARTER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the starter died first")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(kw_only=True)
class ServerProcess(ABC):
    """A running server: its data and log are in `folder`, and stay there when it ends.

    It dies with the Python that started it, unless `outlive`.
    """

    folder: Path
    log: Path
    ports: tuple[int, ...]
    """All it listens on, on 127.0.0.1."""
    command: list[str] = field(repr=False)
    environment: dict[str, str] = field(repr=False)
    outlive: bool = False
    process: subprocess.Popen[bytes] = field(init=False)

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server serves requests now; waits a second at most."""

    def start(self) -> None:
        """Starts the process and returns once it serves.

        Raises BrokerStartError if a port is taken, and, with the log's last lines, if the process ends or
        does not serve within 90 s.
        """
        if sys.platform != "linux":
            raise BrokerUnavailableError("brokers run on Linux only", "Run them there.")
        for port in self.ports:
            _check_free(port)
        self.process = _starter.submit(self._spawn).result()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Asks it to end (SIGTERM) and waits; raises BrokerStartError if it has to be killed after 30 s."""
        self._signal(signal.SIGTERM)
        self.resume()  # a paused process would keep the signal for later
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failure(f"did not end within {STOP_SECONDS} s and was killed") from None

    def kill(self) -> None:
        """Ends it as a power cut would (SIGKILL) and waits."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Starts it again on the same ports with the same data; stops it first if it runs."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freezes it (SIGSTOP): connections stay open and nothing answers once this returns."""
        self._signal(signal.SIGSTOP)
        # On a busy machine its threads go on for a while; the kernel tells when the last one has stopped.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Ends a pause (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def _spawn(self) -> subprocess.Popen[bytes]:
        tie = [] if self.outlive else [sys.executable, "-ISc", _DIE_WITH_STARTER, str(os.getpid())]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*tie, *self.command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for the starter, which then stops it
            )

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            status = self.process.poll()
            if status is not None:
                raise self._failure(f"ended with {status} before it served")
            if time.monotonic() > deadline:
                raise self._failure(f"did not serve within {START_SECONDS} s")
            time.sleep(POLL_SECONDS)

    def _failure(self, what: str) -> BrokerStartError:
        tail = last_lines(self.log.read_text(errors="replace"), LOG_LINES)
        return BrokerStartError(f"{type(self).__name__} {what}. The end of {self.log}:\n{tail}")


def _check_free(port: int) -> None:
    # Else the server that has the port would answer for ours, which is about to end.
    with socket.socket() as probe:
        # As servers do: connections of the last run that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            raise BrokerStartError(f"port {port} on 127.0.0.1 cannot be had: {error.strerror}") from None


def free_ports(count: int) -> list[int]:
    """Returns `count` different TCP ports that are free on 127.0.0.1 now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
