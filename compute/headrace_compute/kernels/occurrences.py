"""How often each code, of an item or a user, occurs in some events, and when first."""

from typing import Any

import numba as nb
import numpy as np
from numba import void

from headrace_compute.kernels.types import INT32S, INT64S, INT64S_OUT


@nb.njit(void(INT32S, INT64S, INT64S_OUT, INT64S_OUT), nogil=True, cache=True)
def _count(codes: Any, times_us: Any, counts: Any, first_us: Any) -> None:
    for row in range(codes.size):
        code = codes[row]
        counts[code] += 1
        first_us[code] = min(first_us[code], times_us[row])


def count_occurrences(
    codes: np.ndarray, times_us: np.ndarray, never_us: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts the events of each code.

    Args:
        codes: int32, the code of each event, from 0.
        times_us: int64, its time.
        never_us: The first time of what does not occur: not before any other.

    Returns:
        How many events each code has, and the time of its first one: int64, up to the highest code.
    """
    size = int(codes.max(initial=-1)) + 1
    counts, first_us = np.zeros(size, np.int64), np.full(size, never_us)
    _count(codes, times_us, counts, first_us)
    return counts, first_us
