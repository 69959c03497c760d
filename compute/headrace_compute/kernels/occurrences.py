"""How often each item occurs in some events, and when first."""

from typing import Any

import numba as nb
import numpy as np
from numba import void

from headrace_compute.kernels.types import INT32S, INT64S, INT64S_OUT


@nb.njit(void(INT32S, INT64S, INT64S_OUT, INT64S_OUT), nogil=True, cache=True)
def _count(items: Any, times_us: Any, counts: Any, first_us: Any) -> None:
    for row in range(items.size):
        item = items[row]
        counts[item] += 1
        first_us[item] = min(first_us[item], times_us[row])


def count_occurrences(
    items: np.ndarray, times_us: np.ndarray, never_us: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts the events of each item.

    Args:
        items: int32, the item of each event, from 0.
        times_us: int64, its time.
        never_us: The first time of what does not occur: not before any other.

    Returns:
        How many events each item has, and the time of its first one: int64, up to the highest item.
    """
    size = int(items.max(initial=-1)) + 1
    counts, first_us = np.zeros(size, np.int64), np.full(size, never_us)
    _count(items, times_us, counts, first_us)
    return counts, first_us
