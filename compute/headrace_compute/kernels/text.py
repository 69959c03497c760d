"""UTF-8 in untrusted bytes: what is wrong with it, and how to show it."""

from dataclasses import dataclass
from enum import IntFlag
from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import int64, void

from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.types import BYTES, BYTES_OUT, FLAGS_OUT, INT64S, INT64S_OUT
from headrace_compute.kernels.words import load64, store64

U64 = np.uint64
_ONES, _TOPS = U64(0x0101010101010101), U64(0x8080808080808080)


class Fault(IntFlag):
    """What is wrong with a text."""

    NOT_UTF8 = 1
    CONTROL = 2
    """A character of Unicode category Cc: U+0000 to U+001F and U+007F to U+009F."""


_NOT_UTF8, _CONTROL = int(Fault.NOT_UTF8), int(Fault.CONTROL)
_QUESTION_MARK = 63


@nb.njit(nogil=True)
def _sequence(data: Any, at: int, end: int) -> int:
    """Bytes of the character at `at`; where there is none, minus the bytes to replace together.

    As Unicode advises (chapter 3, "U+FFFD substitution of maximal subparts"), a
    truncated character is replaced as one, any other wrong byte by itself.
    """
    lead = data[at]
    if lead < 0x80:
        return 1
    low, high = 0x80, 0xBF
    if 0xC2 <= lead <= 0xDF:
        size = 2
    elif 0xE0 <= lead <= 0xEF:
        size = 3
        if lead == 0xE0:
            low = 0xA0
        elif lead == 0xED:
            high = 0x9F
    elif 0xF0 <= lead <= 0xF4:
        size = 4
        if lead == 0xF0:
            low = 0x90
        elif lead == 0xF4:
            high = 0x8F
    else:
        return -1
    for i in range(1, size):
        if at + i >= end or data[at + i] < low or data[at + i] > high:
            return -i
        low, high = 0x80, 0xBF
    return size


@nb.njit(nogil=True, inline="always")
def _is_printable(word: Any) -> Any:
    """Whether all bytes of a word are U+0020 to U+007E."""
    return (word | (word - U64(0x2020202020202020)) | (word + _ONES)) & _TOPS == U64(0)


@nb.njit(void(BYTES_OUT, INT64S, BYTES_OUT), nogil=True, cache=True)
def _repair(data: Any, offsets: Any, faults: Any) -> None:
    for i in range(faults.size):
        faults[i] = 0
        at, end = offsets[i], offsets[i + 1]
        while at < end:
            if at + 8 <= end and _is_printable(load64(data, at)):
                at += 8
                continue
            size = _sequence(data, at, end)
            if size < 0:
                faults[i] |= _NOT_UTF8
                for j in range(at, at - size):
                    data[j] = _QUESTION_MARK
                size = -size
            elif data[at] < 0x20 or data[at] == 0x7F or (data[at] == 0xC2 and data[at + 1] < 0xA0):
                faults[i] |= _CONTROL
            at += size


@nb.njit(int64(BYTES, INT64S, INT64S, int64, INT64S_OUT, BYTES_OUT), nogil=True, cache=True)
def _show(data: Any, starts: Any, ends: Any, limit: Any, offsets: Any, out: Any) -> Any:
    used = 0
    for i in range(starts.size):
        offsets[i] = used
        at, room = starts[i], limit
        while at < ends[i]:
            if at + 8 <= ends[i] and room >= 8 and not load64(data, at) & _TOPS:
                store64(out, used, load64(data, at))
                used, room, at = used + 8, room - 8, at + 8
                continue
            size = _sequence(data, at, ends[i])
            if max(size, 3 if size < 0 else 0) > room:
                break
            if size < 0:
                out[used], out[used + 1], out[used + 2] = 0xEF, 0xBF, 0xBD
                used, room, at = used + 3, room - 3, at - size
            else:
                for _ in range(size):
                    out[used] = data[at]
                    used, room, at = used + 1, room - 1, at + 1
    offsets[starts.size] = used
    return used


@nb.njit(void(BYTES, INT64S, FLAGS_OUT), nogil=True, cache=True)
def _look(data: Any, offsets: Any, printable: Any) -> None:
    for i in range(printable.size):
        at, end = offsets[i], offsets[i + 1]
        while at + 8 <= end and _is_printable(load64(data, at)):
            at += 8
        while at < end and data[at] >= 0x20 and data[at] < 0x7F:
            at += 1
        printable[i] = at == end


@dataclass(frozen=True)
class Look:
    """What a scan of the bytes of texts finds for each text.

    Attributes:
        printable: bool, whether they are all printable ASCII, U+0020 to U+007E.
        nbytes: int64, how many there are.
    """

    printable: np.ndarray
    nbytes: np.ndarray


def look_at(texts: pa.Array) -> Look:
    """Scans the bytes of a string or binary array."""
    data, offsets = string_buffers(texts)
    printable = np.ones(len(texts), np.bool_)
    if not _all_printable(data, offsets):
        _look(data, offsets, printable)
    return Look(printable, np.diff(offsets))


def _all_printable(data: np.ndarray, offsets: np.ndarray) -> bool:
    """Whether all bytes are printable ASCII: two passes without branches, true of nearly all columns."""
    used = data[offsets[0] : offsets[-1]]
    return used.size == 0 or bool(used.max() < 0x7F and used.min() >= 0x20)


def repair_text(texts: pa.Array) -> tuple[pa.StringArray, np.ndarray]:
    """Makes valid UTF-8 of untrusted text, byte for byte as long, and says what was wrong.

    Args:
        texts: binary, unsliced, as the tokeniser makes it.

    Returns:
        The texts as Arrow strings, with `?` for each byte that is not UTF-8, and `Fault` flags as uint8.
    """
    data, offsets = string_buffers(texts)
    faults = np.zeros(len(texts), np.uint8)
    validity, bounds, values = texts.buffers()
    if not _all_printable(data, offsets):
        data = data.copy()
        _repair(data, offsets, faults)
        values = pa.py_buffer(data)
    return pa.Array.from_buffers(pa.string(), len(texts), [validity, bounds, values]), faults


def show_text(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, limit_bytes: int) -> pa.StringArray:
    """Pieces of untrusted bytes as text for people: bad bytes as U+FFFD, cut between characters.

    Args:
        data: uint8.
        starts, ends: int64, the pieces.
        limit_bytes: Longest text, in bytes of UTF-8.
    """
    room = int(np.minimum(3 * (ends - starts), limit_bytes).sum())
    out = np.empty(room, np.uint8)
    offsets = np.empty(starts.size + 1, np.int64)
    used = _show(data, starts, ends, limit_bytes, offsets, out)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(out[:used])]
    return pa.Array.from_buffers(pa.large_string(), starts.size, buffers).cast(pa.string())
