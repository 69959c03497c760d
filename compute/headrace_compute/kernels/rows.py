"""Equality of rows: hashes to find candidates, values to be sure."""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import void

from headrace_compute.kernels.hashing import xxh64_strings
from headrace_compute.kernels.types import FLAGS, INT64S_OUT, UINT64S, UINT64S_OUT
from headrace_compute.model import BUCKETS

U64 = np.uint64
_P1, _P2, _P4 = U64(0x9E3779B185EBCA87), U64(0xC2B2AE3D27D4EB4F), U64(0x85EBCA77C2B2AE63)
_NULL = U64(0x9AE16A3B2F90404F)
"""What a null adds to a row's hash; any constant does, since hits are verified by value."""


@nb.njit(nogil=True, inline="always")
def _mix(acc: Any, word: Any) -> Any:
    # One round of XXH64 on an 8-byte word.
    lane = word * _P2
    lane = ((lane << U64(31)) | (lane >> U64(33))) * _P1
    acc = acc ^ lane
    return ((acc << U64(27)) | (acc >> U64(37))) * _P1 + _P4


@nb.njit(void(UINT64S_OUT, UINT64S, FLAGS), nogil=True, cache=True)
def _combine(rows: Any, column: Any, valid: Any) -> None:
    for i in range(rows.size):
        rows[i] = _mix(rows[i], column[i] if valid[i] else _NULL)


@nb.njit(void(UINT64S_OUT), nogil=True, cache=True)
def _finish(rows: Any) -> None:
    for i in range(rows.size):
        h = (rows[i] ^ (rows[i] >> U64(33))) * _P2
        h = (h ^ (h >> U64(29))) * _P4
        rows[i] = h ^ (h >> U64(32))


@nb.njit(void(UINT64S, INT64S_OUT), nogil=True, cache=True)
def _first_of(hashes: Any, first: Any) -> None:
    bits = 4
    while (1 << bits) < 2 * hashes.size:
        bits += 1
    mask = (1 << bits) - 1
    slots = np.full(1 << bits, -1, np.int32)
    for i in range(hashes.size):
        # Mixed again: hashes of one range share their top bits, and would crowd into a few slots.
        slot = np.int64(((hashes[i] ^ (hashes[i] >> U64(29))) * _P1) >> U64(64 - bits))
        while slots[slot] >= 0 and hashes[slots[slot]] != hashes[i]:
            slot = (slot + 1) & mask
        if slots[slot] < 0:
            slots[slot] = i
        first[i] = slots[slot]


@nb.njit(void(UINT64S, INT64S_OUT), nogil=True, cache=True)
def _cluster(hashes: Any, order: Any) -> None:
    ends = np.zeros(BUCKETS + 1, np.int64)
    for i in range(hashes.size):
        ends[np.int64(hashes[i] & U64(BUCKETS - 1)) + 1] += 1
    widest = ends.max()
    ends = np.cumsum(ends)
    starts = ends[:-1].copy()
    by_bucket = np.empty(hashes.size, np.int32)
    for i in range(hashes.size):
        bucket = np.int64(hashes[i] & U64(BUCKETS - 1))
        by_bucket[starts[bucket]] = i
        starts[bucket] += 1
    # A bucket's rows are few: all that follows stays in the nearest cache.
    slots = np.empty(4 * widest + 16, np.int32)
    group_of, sizes = np.empty(widest, np.int32), np.empty(widest, np.int32)
    first_of = np.empty(widest, np.uint64)
    for b in range(BUCKETS):
        start, count = ends[b], ends[b + 1] - ends[b]
        bits = 4
        while (1 << bits) < 2 * count:
            bits += 1
        mask = (1 << bits) - 1
        slots[: 1 << bits] = -1
        groups = 0
        for j in range(count):
            value = hashes[by_bucket[start + j]]
            slot = np.int64((value * _P1) >> U64(64 - bits))
            while slots[slot] >= 0 and first_of[slots[slot]] != value:
                slot = (slot + 1) & mask
            if slots[slot] < 0:
                slots[slot], first_of[groups], sizes[groups] = groups, value, 0
                groups += 1
            group_of[j] = slots[slot]
            sizes[slots[slot]] += 1
        at = start
        for group in range(groups):
            at, sizes[group] = at + sizes[group], at
        for j in range(count):
            order[sizes[group_of[j]]] = by_bucket[start + j]
            sizes[group_of[j]] += 1


def column_hashes(column: pa.Array) -> np.ndarray:
    """A 64-bit hash of each value: uint64, anything where null.

    Args:
        column: Strings (XXH64), float64 without -0.0, or timestamps in microseconds.
    """
    if pa.types.is_string(column.type):
        return xxh64_strings(column)
    out = np.frombuffer(column.buffers()[1], np.uint64)[column.offset : column.offset + len(column)].copy()
    _finish(out)
    return out


def row_hashes(columns: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """A 64-bit hash of each row: equal rows (null = null) hash equally.

    Args:
        columns: Per column the hashes of its values, and whether they are there (bool).

    Returns:
        uint64, one per row. Not published: it only finds candidates of equality.
    """
    rows = np.zeros(columns[0][0].size, np.uint64)
    for hashes, valid in columns:
        _combine(rows, hashes, valid)
    _finish(rows)
    return rows


def validity(column: pa.Array) -> np.ndarray:
    """Whether each value is there: bool."""
    if column.null_count == 0:
        return np.ones(len(column), np.bool_)
    bits = np.frombuffer(column.buffers()[0], np.uint8)
    flags = np.unpackbits(bits, count=column.offset + len(column), bitorder="little")
    return flags[column.offset :].view(np.bool_)


def first_hashes(hashes: np.ndarray) -> np.ndarray:
    """The lowest index with the same hash, for each index: int64; below 2^31 of them."""
    first = np.empty(hashes.size, np.int64)
    _first_of(hashes, first)
    return first


def clustered(hashes: np.ndarray) -> np.ndarray:
    """The order that puts rows into buckets, in them equal hashes together, and those in their order.

    Args:
        hashes: uint64, below 2^31 of them.

    Returns:
        int64 indices. Within a bucket hashes come as they first appear.
    """
    order = np.empty(hashes.size, np.int64)
    _cluster(hashes, order)
    return order


def first_rows(table: pa.Table, hashes: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """The lowest index with the same values (null = null), for each row: int64.

    Args:
        table: The rows.
        hashes: uint64, equal for equal rows.
        rows: int64, the rows of the table that are meant and that indices count; default all.
    """
    first = first_hashes(hashes)
    later = np.flatnonzero(first != np.arange(first.size))
    places = np.arange(first.size) if rows is None else rows
    different = later[~_equal(table, places[later], places[first[later]])]
    if different.size:
        _settle(table, places, first, np.flatnonzero(np.isin(first, first[different])))
    return first


def _equal(table: pa.Table, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    equal = np.ones(left.size, np.bool_)
    for column in table.columns:
        a, b = column.take(pa.array(left)), column.take(pa.array(right))
        same = pc.fill_null(pc.equal(a, b), False).to_numpy()
        equal &= same | (pc.is_null(a).to_numpy() & pc.is_null(b).to_numpy())
    return equal


def _settle(table: pa.Table, places: np.ndarray, first: np.ndarray, colliding: np.ndarray) -> None:
    """Corrects `first` for rows whose hashes collide; this does not happen by chance."""
    seen: dict[tuple[Any, ...], int] = {}
    columns = [column.to_pylist() for column in table.take(pa.array(places[colliding])).columns]
    for index, values in zip(colliding.tolist(), zip(*columns, strict=True), strict=True):
        first[index] = seen.setdefault(values, index)
