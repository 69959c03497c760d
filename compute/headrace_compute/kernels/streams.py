"""Counter-based randomness: a number is a function of a stream's key and its place, and of nothing else."""

from typing import Any

import numba as nb
import numpy as np

U64 = np.uint64

STEP = U64(0x9E3779B97F4A7C15)
"""Between two places of a stream: SplitMix64's odd constant."""

LOW = U64(0xFFFFFFFF)
HALF = U64(32)


@nb.njit(nogil=True, inline="always")
def mix(x: Any) -> Any:
    """SplitMix64's finaliser: a bijection of 64 bits in which every bit moves every other.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014),
    with Stafford's constants (Mix13).
    """
    x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    return x ^ (x >> U64(31))


@nb.njit(nogil=True, inline="always")
def scaled(bits: Any, count: Any) -> Any:
    """A place below `count`, which has 32 bits, from 64 random bits, and 64 bits uniform within the place.

    bits * count has 96 bits: the upper 32 are the place, the lower 64 are what is within it.
    """
    low = (bits & LOW) * U64(count)
    product = (bits >> HALF) * U64(count) + (low >> HALF)
    return np.int64(product >> HALF), (product << HALF) | (low & LOW)


@nb.njit(nogil=True, inline="always")
def fraction(bits: Any) -> Any:
    """A double in [0, 1), a multiple of 2^-53, from 64 random bits."""
    return np.float64(bits >> U64(11)) * 2.0**-53
