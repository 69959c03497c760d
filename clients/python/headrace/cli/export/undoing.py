"""What is to be there whole or not at all, whatever ends the command that writes it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a command, unless it was started with them ignored."""


class _EndedError(BaseException):
    """A signal that ends the process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def undoing(undo: Callable[[], object]) -> Iterator[None]:
    """Has what was begun undone if what is inside does not come to its end.

    If that is because of a signal, or nobody reads what is printed any more, the process ends by that signal
    then, as it would have at once.
    """
    try:
        with _raising():
            yield
    except BaseException as error:
        with _ignoring():
            undo()
        match error:
            case _EndedError(number=number):
                _die(number)
            case BrokenPipeError() if hasattr(signal, "SIGPIPE"):
                _die(signal.SIGPIPE)
        raise


@contextmanager
def _raising() -> Iterator[None]:
    """Has signals raise an error where they would end the process."""

    def end(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise _EndedError(number)

    ending = [each for each in ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    # Who writes to a pipe that nobody reads is told so.
    pipes = [signal.SIGPIPE] if hasattr(signal, "SIGPIPE") else []
    with _handled(ending, end), _handled(pipes, signal.SIG_IGN):
        yield


@contextmanager
def _ignoring() -> Iterator[None]:
    with _handled(ENDING, signal.SIG_IGN):
        yield


@contextmanager
def _handled(
    numbers: Sequence[int], handler: Callable[[int, FrameType | None], None] | signal.Handlers
) -> Iterator[None]:
    """Has signals handled in another way; in threads, which none reaches, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, how in former.items():
            signal.signal(number, how)


def _die(number: int) -> None:
    with suppress(ValueError):  # Not in the main thread: it has another way to end.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
