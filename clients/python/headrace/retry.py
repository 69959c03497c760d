"""When calls without a stream are made again."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import grpc

from headrace.backoff import Backoff
from headrace.errors import HeadraceError, OverloadedError, SuspendedError, UnavailableError


@dataclass(frozen=True)
class Retry:
    """How often a call without a stream is tried; uploads, runs and reads go on by themselves, as they tell.

    A try that fails because the connection broke or cannot be made, or because the server shuts down, cannot
    reach its store or its workers, or has too much to do (`UnavailableError` but for timeouts,
    `OverloadedError`, `SuspendedError`) is followed by another one. All calls can be repeated: those that
    store rows have a `request_id`, the client's own unless one is given. Between tries lies a random time: at
    most 0.2 s at first, then twice as long each time up to 10 s; or as long as the server says, if that is
    more. Whatever tries are left, a call ends with its timeout, which is that of all its tries together.

    Attributes:
        attempts: How many tries there are at most, 1 or more.

    Example:
        client = headrace.Client(retry=headrace.Retry(attempts=1))  # never again
    """

    attempts: int = 5

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be 1, which is no retry, or more.")


class Tries:
    """The tries of one call.

    Args:
        retry: How many.
        timeout_s: Seconds for all of them together; None = no limit.
        clock: Seconds that only grow.
        jitter: A random number between two.
    """

    def __init__(
        self,
        retry: Retry,
        timeout_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._left = retry.attempts
        self._clock = clock
        self._end_s = None if timeout_s is None else clock() + timeout_s
        self._backoff = Backoff(inf, clock, jitter)

    @property
    def left_s(self) -> float | None:
        """Seconds that are left; None = no limit."""
        return None if self._end_s is None else max(0.0, self._end_s - self._clock())

    def pause_s(self, error: HeadraceError) -> float:
        """How many seconds to wait before the next try.

        Args:
            error: What the last one failed with.

        Raises:
            HeadraceError: `error`: there is no other try.
        """
        self._left -= 1
        if self._left == 0 or not _passes(error):
            raise error
        delay_s = max(self._backoff.failed() or 0.0, error.retry_after_s or 0.0)
        if self.left_s is not None and delay_s >= self.left_s:
            raise error
        return delay_s


def _passes(error: HeadraceError) -> bool:
    if isinstance(error, UnavailableError):
        return error.code is not grpc.StatusCode.DEADLINE_EXCEEDED
    return isinstance(error, OverloadedError | SuspendedError)
