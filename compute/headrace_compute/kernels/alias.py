"""Walker's alias method: a draw by weight in one step, whatever the number of candidates."""

from typing import Any

import numba as nb
import numpy as np
from numba import void

from headrace_compute.kernels.streams import U64, scaled
from headrace_compute.kernels.types import FLOATS, INT32S_OUT, INT64S, UINT64S_OUT


@nb.njit(nogil=True, inline="always")
def by_alias(bits: Any, thresholds: Any, aliases: Any, first: Any, columns: Any) -> Any:
    """A place of the segment of so many columns from `first` on, column and coin from one 64-bit number."""
    column, coin = scaled(bits, columns)
    place = first + column
    return place if coin < thresholds[place] else np.int64(aliases[place])


@nb.njit(void(FLOATS, INT64S, FLOATS, UINT64S_OUT, INT32S_OUT), nogil=True, cache=True)
def _fill(weights: Any, bounds: Any, totals: Any, thresholds: Any, aliases: Any) -> None:
    """Vose (1991): each column holds its own place up to a threshold, and one other."""
    small = np.empty(weights.size, np.int32)
    large = np.empty(weights.size, np.int32)
    heights = np.empty(weights.size, np.float64)
    for segment in range(totals.size):
        smalls = larges = 0
        columns = bounds[segment + 1] - bounds[segment]
        for place in range(bounds[segment], bounds[segment + 1]):
            aliases[place] = place
            thresholds[place] = U64(0xFFFFFFFFFFFFFFFF)
            heights[place] = weights[place] * (columns / totals[segment])
            if heights[place] < 1.0:
                small[smalls] = place
                smalls += 1
            else:
                large[larges] = place
                larges += 1
        while smalls > 0 and larges > 0:
            smalls -= 1
            low, high = small[smalls], large[larges - 1]
            thresholds[low] = U64(heights[low] * 2.0**64)
            aliases[low] = high
            heights[high] = (heights[high] + heights[low]) - 1.0
            if heights[high] < 1.0:
                larges -= 1
                small[smalls] = high
                smalls += 1


def alias_tables(
    weights: np.ndarray, bounds: np.ndarray, totals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """An alias table for each segment of some places.

    Args:
        weights: float64, positive; fewer than 2**31.
        bounds: int64, segments + 1: where each segment of them begins.
        totals: float64, the sum of each segment's weights.

    Returns:
        thresholds (uint64) and aliases (int32, places), one each per weight. What rounding
        leaves over keeps its own column: every alias is a place of the segment.
    """
    thresholds = np.empty(weights.size, np.uint64)
    aliases = np.empty(weights.size, np.int32)
    _fill(weights, bounds, totals, thresholds, aliases)
    return thresholds, aliases
