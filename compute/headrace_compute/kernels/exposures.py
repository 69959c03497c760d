"""Draws from what a user has only viewed, alike likely and without replacement: one user's items at a time.

A user's exposures lie in compressed rows, as pairs do. Those of a positive are the ones first viewed at or
before its time. Draw d of a positive is a step of Fisher and Yates's shuffle of them, with a number of a
stream of its own.
"""

from typing import Any

import numba as nb
import numpy as np

from headrace_compute.kernels.streams import STEP, U64, mix, scaled

_STREAM = U64(0xA0761D6478BD642F)
"""Sets these draws apart from those of candidates by weight."""

_I32, _I64, _U64 = (nb.types.Array(kind, 1, "C", readonly=True) for kind in (nb.int32, nb.int64, nb.uint64))
_OUT_I32, _OUT_I64 = nb.int32[::1], nb.int64[::1]


@nb.njit(nb.void(_I64, _I64, _I64, _I32, _I64, _OUT_I64), nogil=True, cache=True)
def _count(users: Any, times_us: Any, starts: Any, candidates: Any, first_us: Any, sizes: Any) -> None:
    for positive in range(users.size):
        size = 0
        for place in range(starts[users[positive]], starts[users[positive] + 1]):
            size += candidates[place] >= 0 and first_us[place] <= times_us[positive]
        sizes[positive] = size


@nb.njit(
    nb.void(_U64, _I64, _I64, _I64, _I32, _I64, _I64, _OUT_I32, _OUT_I32),
    nogil=True,
    cache=True,
)
def _draw(
    keys: Any,
    users: Any,
    times_us: Any,
    starts: Any,
    candidates: Any,
    first_us: Any,
    counts: Any,
    pool: Any,
    drawn: Any,
) -> None:
    end = 0
    for positive in range(users.size):
        left = 0
        for place in range(starts[users[positive]], starts[users[positive] + 1]):
            if candidates[place] >= 0 and first_us[place] <= times_us[positive]:
                pool[left] = candidates[place]
                left += 1
        stream = mix(keys[positive] ^ _STREAM)
        for draw in range(counts[positive]):
            chosen, _ = scaled(mix(stream + STEP * U64(draw + 1)), left)
            left -= 1
            drawn[end] = pool[chosen]
            pool[chosen] = pool[left]
            end += 1


def count_exposures(
    users: np.ndarray, times_us: np.ndarray, starts: np.ndarray, candidates: np.ndarray, first_us: np.ndarray
) -> np.ndarray:
    """How many exposures each positive may draw from.

    Args:
        users: int64, the user of each positive.
        times_us: int64, of each positive.
        starts: int64, users + 1: where each user's exposures begin.
        candidates: int32, the candidate of each exposure, -1 = none.
        first_us: int64, when each was first viewed.

    Returns:
        int64, one per positive.
    """
    sizes = np.empty(users.size, np.int64)
    _count(users, times_us, starts, candidates, first_us, sizes)
    return sizes


def draw_exposures(
    keys: np.ndarray,
    users: np.ndarray,
    times_us: np.ndarray,
    starts: np.ndarray,
    candidates: np.ndarray,
    first_us: np.ndarray,
    counts: np.ndarray,
) -> np.ndarray:
    """Draws some of each positive's exposures.

    Args:
        keys: uint64 generator key of each positive.
        users, times_us, starts, candidates, first_us: As of `count_exposures`.
        counts: int64, how many to draw for each; no more than it has.

    Returns:
        Candidate numbers (int32), in draw order.
    """
    drawn = np.empty(int(counts.sum()), np.int32)
    pool = np.empty(int(np.diff(starts).max(initial=0)), np.int32)
    _draw(keys, users, times_us, starts, candidates, first_us, counts, pool, drawn)
    return drawn
