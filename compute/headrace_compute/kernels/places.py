"""Candidates laid out so that whatever may be drawn from is a range.

Each candidate has a place: its number. If draws are also made from candidates of one category, it has a
second one, behind all of these, in the order of (category, number). All first places are a segment, and the
second places of each category are one, with an alias table each; one tree has the weights of all. Whatever is
available to a positive, numbers below some number, is the beginning of each segment.
"""

import math
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numba import types

from headrace_compute.kernels.alias import alias_tables
from headrace_compute.kernels.types import INT32S, INT32S_OUT, INT64S, INT64S_OUT
from headrace_compute.kernels.weight_tree import weight_tree


class Places(NamedTuple):
    """The candidates in their places; nothing writes to it.

    Attributes:
        bounds: int64, segments + 1: where each segment begins. Segment 0 has all candidates, c + 1 those of
            category c, and the last, if there are any, those without one.
        totals: float64, the sum of each segment's weights, rounded once.
        weights: float64 by place.
        thresholds, aliases: Of their alias tables; see `alias_tables`.
        tree: Their `weight_tree`.
        twins: int32, the other place of the same candidate by place; empty if there is only one.
    """

    bounds: np.ndarray
    totals: np.ndarray
    weights: np.ndarray
    thresholds: np.ndarray
    aliases: np.ndarray
    tree: np.ndarray
    twins: np.ndarray


def lay_out(weights: np.ndarray, categories: np.ndarray | None = None) -> Places:
    """Lays candidates out.

    Args:
        weights: float64, positive, one per candidate by number; fewer than 2**30.
        categories: int32, the category of each, from 0 without gaps, -1 = none; None if draws are from
            all alone.
    """
    count = weights.size
    bounds, twins = np.array([0, count]), np.empty(0, np.int32)
    if categories is not None:
        # Numbers below 0 that count as the highest come last.
        in_order = np.argsort(categories.view(np.uint32), kind="stable")
        sizes = np.unique(categories.view(np.uint32), return_counts=True)[1]
        bounds = np.concatenate([bounds, count + np.cumsum(sizes)])
        seconds = np.empty(count, np.int64)
        seconds[in_order] = np.arange(count, 2 * count)
        twins = np.concatenate([seconds, in_order]).astype(np.int32)
        weights = np.concatenate([weights, weights[in_order]])
    totals = np.array([math.fsum(each) for each in np.split(weights, bounds[1:-1])])
    return Places(
        bounds, totals, weights, *alias_tables(weights, bounds, totals), weight_tree(weights), twins
    )


@nb.njit(nogil=True, inline="always")
def below(places: Any, first: Any, last: Any, end: Any) -> Any:
    """How many of places[first:last], which ascend, are below `end`."""
    low, high = first, last
    if low < high and places[high - 1] < end:
        return high - low
    while low < high:
        middle = (low + high) >> 1
        if places[middle] < end:
            low = middle + 1
        else:
            high = middle
    return low - first


@nb.njit(
    types.int64(INT64S, INT32S, types.Array(types.int32, 2, "C", readonly=True), INT64S_OUT, INT32S_OUT),
    nogil=True,
    cache=True,
)
def _find(starts: Any, items: Any, places: Any, found_starts: Any, found: Any) -> Any:
    total = 0
    for user in range(starts.size - 1):
        first = total
        ascend = True
        for row in range(places.shape[0]):
            for pair in range(starts[user], starts[user + 1]):
                place = places[row, items[pair]]
                if place >= 0:
                    ascend &= total == first or found[total - 1] < place
                    found[total] = place
                    total += 1
        if not ascend:
            found[first:total].sort()
        found_starts[user + 1] = total
    return total


def known_places(starts: np.ndarray, items: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the candidates lie that users know.

    Args:
        starts: int64, users + 1: where each user's items begin.
        items: int32, item numbers.
        places: int32 (places of a candidate, items), -1 = no candidate.

    Returns:
        Where each user's places begin (int64, users + 1), and the places (int32), ascending per user.
    """
    found_starts = np.zeros(starts.size, np.int64)
    found = np.empty(places.shape[0] * items.size, np.int32)
    total = _find(starts, items, places, found_starts, found)
    return found_starts, found[:total]
