"""How long to wait before another try, and when to give up."""

import math
import random
import time
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter: those who failed together do not come back together.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter

    Args:
        first_pause_seconds: The longest pause after one failure; it doubles with each that follows.
        max_pause_seconds: The longest pause after many.
        max_tries: Tries in all, the first included.
        seconds: No try begins later than this after this object was made.
        clock: Seconds that only grow.
        jitter: A random number between two.
        sleep: Waits so many seconds.

    Attributes:
        failures: How many there were since there was progress.
    """

    def __init__(
        self,
        first_pause_seconds: float,
        max_pause_seconds: float = math.inf,
        *,
        max_tries: float = math.inf,
        seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.failures = 0
        self._first_pause = first_pause_seconds
        self._max_pause = max_pause_seconds
        self._max_tries = max_tries
        self._clock = clock
        self._jitter = jitter
        self._sleep = sleep
        self._end = clock() + seconds

    def progressed(self) -> None:
        """Forgets the failures: what was tried works."""
        self.failures = 0

    def failed(self) -> float | None:
        """Notes a failure; the seconds to wait before the next try, or None if there is to be none."""
        pause = self._jitter(0.0, min(self._max_pause, self._first_pause * 2.0 ** min(self.failures, 32)))
        self.failures += 1
        if self.failures >= self._max_tries or self._clock() + pause > self._end:
            return None
        return pause

    def again(self) -> bool:
        """Notes a failure and waits for the next try; False, and at once, if there is to be none."""
        pause = self.failed()
        if pause is None:
            return False
        self._sleep(pause)
        return True
