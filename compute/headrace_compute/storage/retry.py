"""How long to go on asking a store that fails in passing."""

import random
import time

TRIES = 5
SECONDS = 8.0
FIRST_PAUSE_SECONDS = 0.3


class Patience:
    """The tries of one operation: few, spread at random, and over soon.

    Args:
        most: Tries in all, the first included.
        seconds: No try begins later than this after the first.

    Attributes:
        tries: The number of the try under way.
    """

    def __init__(self, most: int = TRIES, seconds: float = SECONDS) -> None:
        self.tries = 1
        self._most = most
        self._pause = FIRST_PAUSE_SECONDS
        self._end = time.monotonic() + seconds

    def again(self) -> bool:
        """Waits before the next try; False, and at once, if there is to be none.

        The pause is anything up to a bound that doubles (full jitter), so that those
        who failed together do not come back together.
        """
        pause = random.uniform(0, self._pause)
        if self.tries >= self._most or time.monotonic() + pause > self._end:
            return False
        self.tries += 1
        self._pause *= 2
        time.sleep(pause)
        return True
