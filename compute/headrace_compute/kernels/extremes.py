"""The smallest and the greatest of many texts, in byte order."""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import void

from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.types import BYTES, FLAGS, INT64S, INT64S_OUT
from headrace_compute.kernels.words import load64

U64 = np.uint64


@nb.njit(nogil=True)
def _less(data: Any, a: Any, a_end: Any, b: Any, b_end: Any) -> bool:
    while a < a_end and b < b_end:
        if data[a] != data[b]:
            return bool(data[a] < data[b])
        a += 1
        b += 1
    return bool(a == a_end and b < b_end)


@nb.njit(nogil=True, inline="always")
def _prefix(data: Any, at: Any, end: Any) -> Any:
    """The first eight bytes as a number that orders as they do, zeros behind a shorter text."""
    if at + 8 <= data.size:
        word: Any = load64(data, at)
        word = ((word & U64(0x00FF00FF00FF00FF)) << U64(8)) | ((word >> U64(8)) & U64(0x00FF00FF00FF00FF))
        word = ((word & U64(0x0000FFFF0000FFFF)) << U64(16)) | ((word >> U64(16)) & U64(0x0000FFFF0000FFFF))
        word = (word << U64(32)) | (word >> U64(32))
        beyond = 8 - (end - at)
        return word if beyond <= 0 else (word >> U64(8 * beyond)) << U64(8 * beyond)
    word = U64(0)
    for i in range(at, at + 8):
        word = (word << U64(8)) | (U64(data[i]) if i < end else U64(0))
    return word


@nb.njit(void(BYTES, INT64S, FLAGS, INT64S_OUT), nogil=True, cache=True)
def _extremes(data: Any, offsets: Any, valid: Any, found: Any) -> None:
    low, high = -1, -1
    lowest, highest = U64(0), U64(0)
    for i in range(valid.size):
        at, end = offsets[i], offsets[i + 1]
        if not valid[i] or at == end:
            continue
        word = _prefix(data, at, end)
        if low < 0:
            low, high, lowest, highest = i, i, word, word
        if word <= lowest and (word < lowest or _less(data, at, end, offsets[low], offsets[low + 1])):
            low, lowest = i, word
        if word >= highest and (word > highest or _less(data, offsets[high], offsets[high + 1], at, end)):
            high, highest = i, word
    found[0], found[1] = low, high


def extremes(column: pa.Array, valid: np.ndarray) -> tuple[int, int] | None:
    """Indices of the smallest and the greatest text in byte order; None if there is no text.

    Args:
        column: Strings; an empty one counts as none.
        valid: bool, those that count; none of them null.
    """
    data, offsets = string_buffers(column)
    found = np.empty(2, np.int64)
    _extremes(data, offsets, valid, found)
    return (int(found[0]), int(found[1])) if found[0] >= 0 else None
