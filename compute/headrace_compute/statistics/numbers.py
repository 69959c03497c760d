"""What some numbers are like: exact moments, a histogram of fixed edges, distinct values."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from headrace_compute.distinct import REGISTERS, estimate, merge_sketches
from headrace_compute.kernels.doubles import BIN_BITS, MAX_ROWS, describe, edges_of

QUANTILE_ERROR = 2.0 ** -(BIN_BITS + 1)
"""A quantile that is not exact is the middle of its bin: off by at most so much of itself, or so little as
QUANTILE_UNIT."""

QUANTILE_UNIT = 2.0 ** -(1022 + BIN_BITS + 1)
"""Half the width of the bins below 2^-1022, where doubles are too near to zero to have 53 bits."""

DISTINCT_ERROR = 0.016
"""Standard error of an estimated number of distinct values, relative."""

_UNIT = Fraction(1, 1 << 1074)


@dataclass(frozen=True)
class Numbers:
    """Finite doubles. The room they take grows with the bins they fall into, never with how many they are.

    Attributes:
        codes, counts, inside: Bins, as of `kernels.doubles.Described`.
        total, squares: Exact sums, in the same units.
        minimum, maximum: Of all; 0 without any.
        registers: HyperLogLog sketch.
    """

    codes: np.ndarray
    counts: np.ndarray
    inside: np.ndarray
    total: int
    squares: int
    minimum: float
    maximum: float
    registers: bytes

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    @property
    def is_exact(self) -> bool:
        """Whether the bins tell every number exactly."""
        return not self.inside.any()

    @property
    def distinct(self) -> int:
        """Distinct values; approximate unless `is_exact`."""
        return len(self.codes) if self.is_exact else estimate(self.registers)

    @property
    def mean(self) -> float | None:
        """The double nearest to the mean; None without numbers."""
        return float(Fraction(self.total, self.count) * _UNIT) if self.count else None

    @property
    def stddev(self) -> float | None:
        """The standard deviation of them as a whole population; None without numbers."""
        if not self.count:
            return None
        variance = Fraction(self.squares, self.count) - Fraction(self.total, self.count) ** 2
        return _root(variance * _UNIT**2)

    def quantiles(self, probabilities: tuple[float, ...]) -> list[float]:
        """The ceil(p * count)-th smallest number of each p.

        Unless `is_exact`, off by QUANTILE_ERROR of it at most, or by QUANTILE_UNIT where that is more.
        """
        if not self.count:
            return []
        # Bins of a sign lie in the order of their codes.
        ends = np.cumsum(self.counts)
        ranks = [max(1, math.ceil(Fraction(str(p)) * self.count)) for p in probabilities]
        bins = np.searchsorted(ends, np.array(ranks, np.int64))
        low, high = bin_bounds(self.codes, 0)
        middle = np.where(self.inside > 0, low + (high - low) / 2, edges_of(self.codes))
        return [min(max(float(middle[at]), self.minimum), self.maximum) for at in bins]

    def histogram(self, shift: int) -> list[tuple[int, int]]:
        """Counts of bins that are 2^shift times as wide, by code, those that have any."""
        codes, places = np.unique(self.codes >> shift, return_inverse=True)
        counts = np.zeros(len(codes), np.int64)
        np.add.at(counts, places, self.counts)
        return list(zip(codes.tolist(), counts.tolist(), strict=True))


def numbers_of(values: np.ndarray) -> Numbers:
    """Describes finite numbers; integers as the doubles nearest to them."""
    doubles = values.astype(np.float64, copy=False)
    found = NO_NUMBERS
    for first in range(0, len(doubles), MAX_ROWS):
        some = doubles[first : first + MAX_ROWS]
        told = describe(some)
        sketch = told.registers.tobytes()
        # There is one zero.
        low, high = float(some.min()) + 0.0, float(some.max()) + 0.0
        numbers = Numbers(told.codes, told.counts, told.inside, told.total, told.squares, low, high, sketch)
        found = merge_numbers(found, numbers)
    return found


def merge_numbers(a: Numbers, b: Numbers) -> Numbers:
    """All numbers of both."""
    if not a.count or not b.count:
        return a if a.count else b
    codes, places = np.unique(np.concatenate([a.codes, b.codes]), return_inverse=True)
    counts, inside = np.zeros(len(codes), np.int64), np.zeros(len(codes), np.int64)
    np.add.at(counts, places, np.concatenate([a.counts, b.counts]))
    np.add.at(inside, places, np.concatenate([a.inside, b.inside]))
    return Numbers(
        codes,
        counts,
        inside,
        a.total + b.total,
        a.squares + b.squares,
        min(a.minimum, b.minimum),
        max(a.maximum, b.maximum),
        merge_sketches(a.registers, b.registers),
    )


def bin_bounds(codes: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper edge of bins 2^shift times as wide; the outermost end at the largest double."""
    negative = codes < 0
    inner = edges_of(codes, shift)
    outer = np.nan_to_num(edges_of(np.where(negative, codes - 1, codes + 1), shift))
    return np.where(negative, outer, inner), np.where(negative, inner, outer)


def _root(square: Fraction) -> float:
    """The square root of a fraction, to the last bit or two."""
    missing = 128 - square.numerator.bit_length() + square.denominator.bit_length()
    half = max(0, missing // 2 + 1)
    return float(Fraction(math.isqrt((square.numerator << 2 * half) // square.denominator), 1 << half))


NO_NUMBERS = Numbers(*(np.zeros(0, np.int64),) * 3, 0, 0, 0.0, 0.0, bytes(REGISTERS))
