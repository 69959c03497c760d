"""Exponential backoff between tries, and when to give up."""

import random
import time
from collections.abc import Callable

BASE_S = 0.2
CAP_S = 10.0

PATIENCE_S = 120.0
"""Seconds without progress after which an upload is given up unless told otherwise."""


class Backoff:
    """Exponential backoff with full jitter: clients that failed together do not retry together.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter

    Args:
        patience_s: Seconds after the first failure without progress after which there is no other try.
            0 = no other try at all.
        clock: Seconds that only grow.
        jitter: A random number between two.

    Attributes:
        failures: How many there were since there was progress.
    """

    def __init__(
        self,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.patience_s = patience_s
        self.failures = 0
        self._clock = clock
        self._jitter = jitter
        self._failing_since_s = 0.0

    def progressed(self) -> None:
        """Forgets the failures: what was tried works."""
        self.failures = 0

    def failed(self) -> float | None:
        """Notes a failure; the seconds to wait before the next try, or None if patience is at its end."""
        now_s = self._clock()
        if self.failures == 0:
            self._failing_since_s = now_s
        left_s = self._failing_since_s + self.patience_s - now_s
        if left_s <= 0:
            return None
        delay_s = self._jitter(0.0, min(CAP_S, BASE_S * 2.0 ** min(self.failures, 16)))
        self.failures += 1
        # The last try comes when patience ends, not before.
        return min(delay_s, left_s)
