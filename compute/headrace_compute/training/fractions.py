"""Cut times of a split by fractions: exact order statistics of times that lie in many shards."""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from headrace_compute.inputs.workers import Workers
from headrace_compute.model import StoreConfig

EDGES = 4096
"""Times that one question asks about: five questions find one of 2^60."""


async def find_cuts(workers: Workers, shards: Sequence[Any], fractions: Sequence[float]) -> tuple[int, ...]:
    """For each fraction f the time of place floor(f * N), from 0, of N times in order.

    Args:
        workers: Where stages run.
        shards: Held arrays of times (int64, ascending).
        fractions: 0 to 1, exclusive; as the decimals that they are written as.

    Returns:
        The times; none if there are none.
    """
    ranges = [await workers.run(measure_times, shard) for shard in shards]
    count = sum(size for size, _, _ in ranges)
    if count == 0:
        return ()
    oldest = min(first for size, first, _ in ranges if size)
    newest = max(last for size, _, last in ranges if size)
    places = [math.floor(Decimal(repr(fraction)) * count) for fraction in fractions]
    return tuple([await _find(workers, shards, place, oldest, newest) for place in places])


async def _find(workers: Workers, shards: Sequence[Any], place: int, oldest: int, newest: int) -> int:
    """The smallest time with more than `place` times at or before it."""
    while oldest < newest:
        step = -(-(newest - oldest) // EDGES)
        edges = np.arange(oldest, newest, step)
        at_or_before = sum([await workers.run(count_times, shard, edges) for shard in shards])
        found = int(np.searchsorted(at_or_before, place, side="right"))
        if found < edges.size:
            newest = int(edges[found])
        if found > 0:
            oldest = int(edges[found - 1]) + 1
    return newest


def measure_times(config: StoreConfig, times_us: np.ndarray) -> tuple[int, int, int]:
    """How many times a shard has, its first and its last; 0 if it has none."""
    return (times_us.size, int(times_us[0]), int(times_us[-1])) if times_us.size else (0, 0, 0)


def count_times(config: StoreConfig, times_us: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many times of a shard are at or before each edge: int64."""
    return np.searchsorted(times_us, edges, side="right")
