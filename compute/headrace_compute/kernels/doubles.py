"""Describes doubles so that no order and no cutting of them changes a bit of what is told.

A double that is not negative falls into the bin `bits >> BIN_SHIFT`: its exponent and the first BIN_BITS bits
of its mantissa. So bins have the same edges for all data, 2^BIN_BITS of them between a power of two and the
next. Sums are exact: mantissas are added up as integers, by exponent.
"""

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numba import int64, void

from headrace_compute.distinct import REGISTERS
from headrace_compute.kernels.sketch import add_hash
from headrace_compute.kernels.types import BYTES_OUT, INT32S_OUT, INT64S_OUT, UINT64S

BIN_BITS = 7
BIN_SHIFT = 52 - BIN_BITS
BINS = 1 << (11 + BIN_BITS)
"""Bins of each sign. That of -x is the bitwise complement of that of x."""

MAX_ROWS = 1 << 24
"""Doubles of a call at most: sums of so many limbs stay below 2^63."""

LIMBS = 7
"""Sums for each exponent: two limbs of mantissas, and five of their squares."""

_U64 = np.uint64
_INSIDE = _U64((1 << BIN_SHIFT) - 1)
_MANTISSA = _U64((1 << 52) - 1)
_MAGNITUDE = _U64((1 << 63) - 1)
_LOW18, _LOW27 = _U64((1 << 18) - 1), _U64((1 << 27) - 1)


@nb.njit(nogil=True, inline="always")
def _mixed(bits: Any) -> Any:
    """A good hash of 64 bits: the finalizer of MurmurHash3 (A. Appleby, public domain)."""
    h = (bits ^ (bits >> _U64(33))) * _U64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> _U64(33))) * _U64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> _U64(33))


@nb.njit(int64(UINT64S, INT32S_OUT, INT32S_OUT, INT32S_OUT, INT64S_OUT, BYTES_OUT), nogil=True, cache=True)
def _describe(doubles: Any, counts: Any, inside: Any, places: Any, sums: Any, registers: Any) -> Any:
    """Fills all but `doubles`, and returns how many places there are."""
    found = 0
    for i in range(doubles.size):
        magnitude = doubles[i] & _MAGNITUDE
        # There is one zero.
        is_negative = magnitude != 0 and magnitude != doubles[i]
        code = np.int64(magnitude >> _U64(BIN_SHIFT))
        place = BINS - 1 - code if is_negative else BINS + code
        if counts[place] == 0:
            places[found] = place
            found += 1
        counts[place] += 1
        # Most are small whole numbers: their bin says all of them.
        if magnitude & _INSIDE == 0:
            continue
        inside[place] += 1
        add_hash(registers, _mixed(doubles[i]))
        exponent = np.int64(magnitude >> _U64(52))
        mantissa = magnitude & _MANTISSA
        if exponent > 0:
            mantissa |= _MANTISSA + _U64(1)
        # Those without an exponent count as those of the least one.
        at = max(exponent, np.int64(1)) * LIMBS
        sign = -1 if is_negative else 1
        sums[at] += sign * np.int64(mantissa & _LOW27)
        sums[at + 1] += sign * np.int64(mantissa >> _U64(27))
        a = np.int64(mantissa >> _U64(36))
        b = np.int64((mantissa >> _U64(18)) & _LOW18)
        c = np.int64(mantissa & _LOW18)
        sums[at + 2] += c * c
        sums[at + 3] += b * c
        sums[at + 4] += b * b + 2 * a * c
        sums[at + 5] += a * b
        sums[at + 6] += a * a
    return found


@nb.njit(void(UINT64S, BYTES_OUT), nogil=True, cache=True)
def _add_distinct(doubles: Any, registers: Any) -> None:
    for i in range(doubles.size):
        add_hash(registers, _mixed(doubles[i]))


class Described(NamedTuple):
    """What some doubles are like.

    Attributes:
        codes: int64, ascending; the bins that have any, the complement of its bin for one that is negative.
        counts: int64, how many are in each.
        inside: int64, how many of these are not at the bin's edge next to zero, which is a whole number of
            its width and the one value that the bin tells exactly.
        total: Their sum, in units of 2^-1074.
        squares: The sum of their squares, in units of 2^-2148.
        registers: uint8, their HyperLogLog sketch.
    """

    codes: np.ndarray
    counts: np.ndarray
    inside: np.ndarray
    total: int
    squares: int
    registers: np.ndarray


def describe(doubles: np.ndarray) -> Described:
    """Describes at most MAX_ROWS finite doubles (float64)."""
    if doubles.size > MAX_ROWS:
        raise ValueError(f"{doubles.size} doubles are too many; describe {MAX_ROWS} at a time")
    counts, inside = np.zeros(2 * BINS, np.int32), np.zeros(2 * BINS, np.int32)
    places = np.empty(min(doubles.size, 2 * BINS), np.int32)
    sums, registers = np.zeros(2047 * LIMBS, np.int64), np.zeros(REGISTERS, np.uint8)
    bits = np.ascontiguousarray(doubles).view(np.uint64)
    found = _describe(bits, counts, inside, places, sums, registers)
    places = np.sort(places[:found]).astype(np.int64)
    codes, counts, inside = places - BINS, counts[places].astype(np.int64), inside[places].astype(np.int64)
    at_edges = np.flatnonzero(counts > inside)
    _add_distinct(edges_of(codes[at_edges]).view(np.uint64), registers)
    total, squares = _exact(sums, codes[inside > 0])
    edges = zip(codes[at_edges].tolist(), (counts - inside)[at_edges].tolist(), strict=True)
    for code, count in edges:
        units = _units(code)
        total += count * units
        squares += count * units * units
    return Described(codes, counts, inside, total, squares, registers)


def edges_of(codes: np.ndarray, shift: int = 0) -> np.ndarray:
    """The edge next to zero of each bin, as float64; of bins that are 2^shift times as wide."""
    negative = codes < 0
    bits = np.where(negative, ~codes, codes).astype(np.uint64) << _U64(BIN_SHIFT + shift)
    return (bits | (negative.astype(np.uint64) << _U64(63))).view(np.float64)


def _units(code: int) -> int:
    """The edge of a bin next to zero, in units of 2^-1074."""
    bits = (~code if code < 0 else code) << BIN_SHIFT
    exponent, mantissa = bits >> 52, bits & ((1 << 52) - 1)
    units = (mantissa | 1 << 52) << (exponent - 1) if exponent else mantissa
    return -units if code < 0 else units


def _exact(sums: np.ndarray, codes: np.ndarray) -> tuple[int, int]:
    """The sums of mantissas and squares over all exponents, which are those of some bins."""
    total = squares = 0
    exponents = np.where(codes < 0, ~codes, codes) >> BIN_BITS
    by_exponent = sums.reshape(-1, LIMBS)
    for exponent in np.unique(np.maximum(exponents, 1)).tolist():
        low, high, cc, bc, bb, ab, aa = by_exponent[exponent].tolist()
        total += (low + (high << 27)) << (exponent - 1)
        squares += (cc + (bc << 19) + (bb << 36) + (ab << 55) + (aa << 72)) << 2 * (exponent - 1)
    return total, squares
