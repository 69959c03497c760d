"""Cancellation of a stage: the worker learns that nobody wants its result, and the stage asks.

A stage of a run calls `check` where it can stop, several times a second: between row groups that it reads
and writes, and rows that it draws; and it interrupts a query. Where nobody has set `watch`, as outside of a
worker, nothing is ever cancelled.
"""

from collections.abc import Callable


class StageCancelledError(Exception):
    """Nobody waits for this stage any more. It ends the stage, and reaches no caller."""


def _never() -> bool:
    return False


_is_cancelled: Callable[[], bool] = _never


def watch(is_cancelled: Callable[[], bool]) -> None:
    """Names what knows whether the stage that runs in this process is cancelled; it is asked often."""
    global _is_cancelled
    _is_cancelled = is_cancelled


def is_cancelled() -> bool:
    """Whether the stage that runs in this process is cancelled. Ask on the stage's own thread."""
    return _is_cancelled()


def check() -> None:
    """Ends the stage if it is cancelled.

    Raises:
        StageCancelledError: It is.
    """
    if _is_cancelled():
        raise StageCancelledError("Nobody waits for this stage any more.")
