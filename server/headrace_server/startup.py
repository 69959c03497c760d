"""The server's start: what it waits for, for how long, and the way out of it at any moment."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import structlog

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

LOOK_SECONDS = 0.2
"""How often deadlines are looked at."""

TELL_SECONDS = 10.0
"""How often a start that takes long says what it waits for."""

_log = structlog.get_logger(__name__)


class StartError(Exception):
    """The server cannot start; the message says what to change."""


@dataclass(frozen=True)
class _Step:
    """One thing that is waited for.

    Attributes:
        name: What it is.
        remedy: What to look at when it does not come.
        deadline: When that is, of the monotonic clock.
    """

    name: str
    remedy: str = ""
    deadline: float = float("inf")


class Startup:
    """Watches over the start from a thread of its own.

    The main thread may be deep in a call of Ray's, or of a disk that is dead, where it runs no handler.
    Python notes signals all the same, in a socket, and the thread that reads it ends the process: a start
    has begun nothing that `kill -9` would not leave whole.

    Args:
        service: Name of the service, for /health.
        version: The same.
        seconds: How long each step may take.
    """

    def __init__(self, service: str, version: str, seconds: float) -> None:
        self._about = {"service": service, "version": version}
        self.seconds = seconds
        self._step = _Step("its turn")
        self._is_over = False
        self._signals, self._noted = socket.socketpair()
        self._signals.settimeout(LOOK_SECONDS)
        self._noted.setblocking(False)

    def watch(self) -> None:
        """Begins to watch; call it on the main thread.

        Signals are watched until an event loop takes them over, deadlines until the start is over.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._noted.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="startup", daemon=True).start()

    @contextmanager
    def step(self, name: str, remedy: str) -> Iterator[None]:
        """Waits for something on the main thread; at its deadline the process ends.

        Args:
            name: What is waited for, to follow "waiting for".
            remedy: A sentence that says what to look at when it does not come.
        """
        self._step = _Step(name, remedy, time.monotonic() + self.seconds)
        yield
        self._step = _Step("what comes next")

    def waits_for(self, name: str) -> None:
        """Tells what is waited for, by somebody who keeps to a deadline of his own."""
        self._step = _Step(name)

    def over(self) -> None:
        """The server serves."""
        self._is_over = True

    def health(self) -> dict[str, str]:
        """The body of /health until the server serves."""
        return {"status": "starting", **self._about, "waiting_for": self._step.name}

    def _watch(self) -> None:
        told = time.monotonic()
        while not self._is_over:
            try:
                if set(self._signals.recv(64)) & set(STOP_SIGNALS):
                    _log.info("stopped", reason="signal", waiting_for=self._step.name)
                    end(0)
            except TimeoutError:
                pass
            now, step = time.monotonic(), self._step
            if now > step.deadline:
                tell_failure(f"Waited {self.seconds:g} s for {step.name}, in vain. {step.remedy}")
                end(2)
            if now - told > TELL_SECONDS:
                told = now
                _log.info("still starting", waiting_for=step.name)


def tell_failure(message: str) -> None:
    """Says, for logs and for people, why the server does not start."""
    _log.error(message)
    print(f"headrace-server: {message}", file=sys.stderr)  # noqa: T201


def end(status: int) -> NoReturn:
    """Ends the process without waiting for threads, which a dead disk may hold for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
