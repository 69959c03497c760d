"""Digests of rows in their order: of two tables with equal digests the rows are equal, bit for bit.

A row's hash takes each value with the name of its column, so neither the order of columns nor one of nothing
but nulls counts. The digest of rows that follow each other is a polynomial of their hashes modulo a prime
(Rabin and Karp, "Efficient randomized pattern-matching algorithms", 1987), so digests of pieces give that of
the whole. It finds faults, not forgers.
"""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numba import void

from headrace_compute.kernels.hashing import avalanche, xxh64_strings
from headrace_compute.kernels.rows import validity
from headrace_compute.kernels.types import FLAGS, INT64S, UINT64S, UINT64S_OUT

PRIME = 2**61 - 1
BASE = 0x0B7E151628AED2A6
"""Of the polynomial; any number below the prime that shows no pattern."""

U64 = np.uint64
_PRIME, _BASE = U64(PRIME), U64(BASE)
_LOW, _LOW29 = U64(0xFFFFFFFF), U64((1 << 29) - 1)
_NULL = U64(0x9AE16A3B2F90404F)
_STEP = U64(0x9E3779B185EBCA87)


@nb.njit(nogil=True, inline="always")
def _times(a: Any, b: Any) -> Any:
    # The product of two numbers below the prime: 2^61 is 1, and 2^64 is 8.
    a_high, a_low, b_high, b_low = a >> U64(32), a & _LOW, b >> U64(32), b & _LOW
    low, middle = a_low * b_low, a_high * b_low + a_low * b_high
    total = (a_high * b_high << U64(3)) + (middle >> U64(29)) + ((middle & _LOW29) << U64(32))
    total = (total & _PRIME) + (total >> U64(61)) + (low & _PRIME) + (low >> U64(61))
    total = (total & _PRIME) + (total >> U64(61))
    return total - _PRIME if total >= _PRIME else total


@nb.njit(void(UINT64S, INT64S, UINT64S_OUT), nogil=True, cache=True)
def _fold(hashes: Any, edges: Any, out: Any) -> None:
    for run in range(out.size):
        value = U64(0)
        for i in range(edges[run], edges[run + 1]):
            value = _times(value, _BASE) + hashes[i] % _PRIME
            value = value - _PRIME if value >= _PRIME else value
        out[run] = value


@nb.njit(void(UINT64S_OUT, UINT64S, FLAGS, UINT64S), nogil=True, cache=True)
def _add(rows: Any, values: Any, valid: Any, name: Any) -> None:
    for i in range(rows.size):
        if valid[i]:
            rows[i] += avalanche(avalanche(values[i] ^ name[0]) + name[0])


@nb.njit(void(UINT64S, FLAGS, INT64S, UINT64S_OUT), nogil=True, cache=True)
def _chain(values: Any, valid: Any, offsets: Any, out: Any) -> None:
    for i in range(out.size):
        value = U64(offsets[i + 1] - offsets[i])
        for j in range(offsets[i], offsets[i + 1]):
            value = avalanche(value * _STEP + (avalanche(values[j]) if valid[j] else _NULL))
        out[i] = value


def row_hashes(rows: pa.Table) -> np.ndarray:
    """A 64-bit hash of each row, uint64; of floats it takes the bits, of integers the number.

    Raises:
        TypeError: A column is of a type that no table of ours has.
    """
    sums = np.zeros(rows.num_rows, np.uint64)
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        values = column.combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # Of no chunks, or of more than an array can hold.
            values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
        hashes, valid = _value_hashes(values)
        _add(sums, hashes, valid, xxh64_strings(pa.array([name])))
    return sums


def run_digests(hashes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The digest of each run of rows, uint64 below PRIME.

    Args:
        hashes: uint64, of each row.
        edges: int64, one more than runs: run r has the rows `edges[r]` to `edges[r + 1]`.
    """
    out = np.empty(edges.size - 1, np.uint64)
    _fold(hashes, edges, out)
    return out


def joined_digest(first: int, second: int, rows: int) -> int:
    """The digest of rows that follow each other, from those of the first and of the others.

    Args:
        rows: How many the second one has.
    """
    return (first * pow(BASE, rows, PRIME) + second) % PRIME


def _value_hashes(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The hash of each value, uint64, anything where null; and whether it is there."""
    kind = values.type
    if pt.is_null(kind):
        return np.zeros(len(values), np.uint64), np.zeros(len(values), np.bool_)
    if pt.is_dictionary(kind):
        return _value_hashes(values.dictionary_decode())
    valid = validity(values)
    if pt.is_string(kind) or pt.is_large_string(kind):
        return xxh64_strings(values), valid
    if pt.is_list(kind) or pt.is_large_list(kind):
        hashes, there = _value_hashes(values.values)
        offsets = values.offsets.to_numpy().astype(np.int64)
        out = np.empty(len(values), np.uint64)
        _chain(hashes, there, offsets, out)
        return out, valid
    return _numbers(values).view(np.uint64), valid


def _numbers(values: pa.Array) -> np.ndarray:
    """The values as 64-bit words, anything where null."""
    kind = values.type
    if pt.is_boolean(kind):
        values = values.cast(pa.uint8())
    elif pt.is_timestamp(kind):
        values = values.cast(pa.timestamp("us", kind.tz)).view(pa.int64())
    elif not (pt.is_integer(kind) or pt.is_float64(kind)):
        raise TypeError(f"no table of ours has columns of type {kind}")
    numbers: np.ndarray = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(numbers if pt.is_float64(kind) else numbers.astype(np.int64))
