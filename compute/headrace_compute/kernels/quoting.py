"""Text as JSON strings."""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import int64

from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.types import BYTES, BYTES_OUT, INT64S, INT64S_OUT

LETTER_U = ord("u")
HEX = np.frombuffer(b"0123456789abcdef", np.uint8)

LONGEST_ESCAPE = 6
"""Bytes of the longest escape, which has hexadecimal digits."""

_QUOTE, _BACKSLASH, _ZERO = ord('"'), ord("\\"), ord("0")


def _escapes() -> np.ndarray:
    """By byte: 0, or what stands behind the backslash in JSON (RFC 8259, section 7)."""
    escapes = np.zeros(256, np.uint8)
    escapes[:0x20] = LETTER_U
    for byte, letter in {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}.items():
        escapes[byte] = ord(letter)
    return escapes


ESCAPES = _escapes()


@nb.njit(int64(BYTES, INT64S, INT64S_OUT, BYTES_OUT), nogil=True, cache=True)
def _quote(data: Any, bounds: Any, offsets: Any, out: Any) -> Any:
    used = 0
    for i in range(bounds.size - 1):
        offsets[i] = used
        out[used] = _QUOTE
        used += 1
        for byte in data[bounds[i] : bounds[i + 1]]:
            letter = ESCAPES[byte]
            if letter == 0:
                out[used] = byte
                used += 1
                continue
            out[used], out[used + 1] = _BACKSLASH, letter
            used += 2
            if letter == LETTER_U:
                out[used], out[used + 1] = _ZERO, _ZERO
                out[used + 2], out[used + 3] = HEX[byte >> 4], HEX[byte & 15]
                used += 4
        out[used] = _QUOTE
        used += 1
    offsets[bounds.size - 1] = used
    return used


def json_strings(texts: pa.StringArray) -> pa.StringArray:
    """Each text as a JSON string, quotes included; a null as an empty one. Only what must be is escaped."""
    data, bounds = string_buffers(texts)
    out = np.empty(LONGEST_ESCAPE * int(bounds[-1] - bounds[0]) + 2 * len(texts), np.uint8)
    offsets = np.empty(bounds.size, np.int64)
    used = _quote(data, bounds, offsets, out)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(out[:used])]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers).cast(pa.string())
