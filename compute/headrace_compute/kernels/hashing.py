"""XXH64 over Arrow strings, and the buckets that follow from it.

`bucket = xxh64(user_id) mod 1024` is published, so any client can compute it:
XXH64 with seed 0 over the UTF-8 bytes (https://github.com/Cyan4973/xxHash).
"""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import void

from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.types import BYTES, BYTES_OUT, INT32S, INT64S, UINT64S_OUT
from headrace_compute.kernels.words import load64
from headrace_compute.model import BUCKETS

U64 = np.uint64
_P1 = U64(0x9E3779B185EBCA87)
_P2 = U64(0xC2B2AE3D27D4EB4F)
_P3 = U64(0x165667B19E3779F9)
_P4 = U64(0x85EBCA77C2B2AE63)
_P5 = U64(0x27D4EB2F165667C5)


@nb.njit(nogil=True, inline="always")
def _rotl(x: Any, bits: Any) -> Any:
    return (x << U64(bits)) | (x >> U64(64 - bits))


@nb.njit(nogil=True, inline="always")
def _read32(data: Any, at: Any) -> Any:
    low = U64(data[at]) | (U64(data[at + 1]) << U64(8))
    return low | (U64(data[at + 2]) << U64(16)) | (U64(data[at + 3]) << U64(24))


@nb.njit(nogil=True, inline="always")
def _round(lane: Any, word: Any) -> Any:
    return _rotl(lane + word * _P2, 31) * _P1


@nb.njit(nogil=True, inline="always")
def avalanche(h: Any) -> Any:
    """What XXH64 ends with: each bit of the word depends on all of them; callable from other kernels."""
    h = (h ^ (h >> U64(33))) * _P2
    h = (h ^ (h >> U64(29))) * _P3
    return h ^ (h >> U64(32))


@nb.njit(nogil=True)
def xxh64(data: Any, start: int, end: int) -> Any:
    """XXH64, seed 0, of `data[start:end]` (uint8); callable from other kernels."""
    at = start
    if end - start >= 32:
        a, b, c, d = _P1 + _P2, _P2, U64(0), U64(0) - _P1
        while at + 32 <= end:
            a = _round(a, load64(data, at))
            b = _round(b, load64(data, at + 8))
            c = _round(c, load64(data, at + 16))
            d = _round(d, load64(data, at + 24))
            at += 32
        h = _rotl(a, 1) + _rotl(b, 7) + _rotl(c, 12) + _rotl(d, 18)
        for lane in (a, b, c, d):
            h = (h ^ _round(U64(0), lane)) * _P1 + _P4
    else:
        h = _P5
    h += U64(end - start)
    while at + 8 <= end:
        h = _rotl(h ^ _round(U64(0), load64(data, at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        h = _rotl(h ^ (_read32(data, at) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        h = _rotl(h ^ (U64(data[at]) * _P5), 11) * _P1
        at += 1
    return avalanche(h)


@nb.njit(void(BYTES, INT64S, UINT64S_OUT), nogil=True, cache=True)
def _hash_strings(data: Any, offsets: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = xxh64(data, offsets[i], offsets[i + 1])


def xxh64_strings(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """XXH64 (seed 0) of each value of a string or binary array.

    Args:
        array: string, large_string, binary or large_binary; slices are fine.

    Returns:
        uint64, one per value. A null hashes as the empty string.
    """
    data, offsets = string_buffers(array)
    out = np.empty(len(array), np.uint64)
    _hash_strings(data, offsets, out)
    return out


@nb.njit(void(BYTES, INT64S, INT64S, BYTES, INT64S, INT32S, BYTES_OUT, UINT64S_OUT), nogil=True, cache=True)
def _hash_pairs(
    left: Any, left_bounds: Any, lefts: Any, right: Any, right_bounds: Any, rights: Any, text: Any, out: Any
) -> None:
    for pair in range(out.size):
        size = 0
        for at in range(left_bounds[lefts[pair]], left_bounds[lefts[pair] + 1]):
            text[size] = left[at]
            size += 1
        text[size] = 0
        size += 1
        for at in range(right_bounds[rights[pair]], right_bounds[rights[pair] + 1]):
            text[size] = right[at]
            size += 1
        out[pair] = xxh64(text, 0, size)


def xxh64_pairs(left: pa.Array, lefts: np.ndarray, right: pa.Array, rights: np.ndarray) -> np.ndarray:
    """XXH64 (seed 0) of pairs of values, a zero byte between the two.

    Args:
        left, right: string or binary arrays.
        lefts: int64, for each pair the place of its first value.
        rights: int32, that of its second.

    Returns:
        uint64, one per pair.
    """
    (left_data, left_bounds), (right_data, right_bounds) = string_buffers(left), string_buffers(right)
    longest = sum(int(np.diff(bounds).max(initial=0)) for bounds in (left_bounds, right_bounds))
    out = np.empty(len(lefts), np.uint64)
    text = np.empty(longest + 1, np.uint8)
    _hash_pairs(left_data, left_bounds, lefts, right_data, right_bounds, rights, text, out)
    return out


def bucket_of(hashes: np.ndarray) -> np.ndarray:
    """The bucket of each xxh64: int16 in [0, BUCKETS)."""
    return (hashes & U64(BUCKETS - 1)).astype(np.int16)
