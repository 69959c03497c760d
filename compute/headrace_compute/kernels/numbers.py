"""Decimal numbers to the nearest double.

The grammar is `[+-] digits [. digits] [(e|E) [+-] digits]` with digits on at
least one side of the point: no spaces, underscores, hexadecimals, `nan` or
`inf`. A number above the largest double is refused, since it is not finite.
"""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import void

from headrace_compute.kernels.parsed import Status
from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.types import BYTES, BYTES_OUT, FLOATS_OUT, INT64S

_EMPTY, _PARSED, _BAD, _UNDECIDED = (int(status) for status in Status)
_TENS = 10.0 ** np.arange(23)
"""The powers of ten that are doubles exactly."""


@nb.njit(nogil=True)
def _is_digit(data: Any, at: int, end: int) -> bool:
    return at < end and data[at] >= 48 and data[at] <= 57


@nb.njit(nogil=True)
def _exponent(data: Any, at: int, end: int) -> tuple[int, bool]:
    """The exponent in `data[at:end]`, which follows the `e`, and whether it is well-formed."""
    negative = False
    if at < end and (data[at] == 43 or data[at] == 45):
        negative = data[at] == 45
        at += 1
    first = at
    value: Any = 0
    while _is_digit(data, at, end):
        value = min(10 * value + np.int64(data[at]) - 48, 100_000)
        at += 1
    return -value if negative else value, at == end and at > first


@nb.njit(nogil=True)
def _number(data: Any, at: int, end: int) -> tuple[float, int]:
    negative = data[at] == 45
    if negative or data[at] == 43:
        at += 1
    mantissa: Any = 0
    exponent, digits, exact = 0, 0, True
    while _is_digit(data, at, end):
        exact = exact and mantissa < 100_000_000_000_000
        mantissa = 10 * mantissa + np.int64(data[at]) - 48 if exact else 0
        digits += 1
        at += 1
    if at < end and data[at] == 46:
        at += 1
        while _is_digit(data, at, end):
            exact = exact and mantissa < 100_000_000_000_000
            mantissa = 10 * mantissa + np.int64(data[at]) - 48 if exact else 0
            exponent -= 1
            digits += 1
            at += 1
    if digits == 0:
        return 0.0, _BAD
    if at < end and (data[at] == 101 or data[at] == 69):
        power, good = _exponent(data, at + 1, end)
        if not good:
            return 0.0, _BAD
        exponent += power
    elif at < end:
        return 0.0, _BAD
    if not exact or exponent < -22 or exponent > 22:
        return 0.0, _UNDECIDED
    # Mantissa and power are exact doubles, so the one operation rounds once
    # (W. D. Clinger, "How to read floating point numbers accurately").
    value = mantissa / _TENS[-exponent] if exponent < 0 else mantissa * _TENS[exponent]
    # Zero has one sign here: equal rows must have equal bits.
    return -value if negative and mantissa != 0 else value, _PARSED


@nb.njit(void(BYTES, INT64S, FLOATS_OUT, BYTES_OUT), nogil=True, cache=True)
def _parse(data: Any, offsets: Any, out: Any, status: Any) -> None:
    for i in range(out.size):
        if offsets[i] == offsets[i + 1]:
            out[i], status[i] = 0.0, _EMPTY
        else:
            out[i], status[i] = _number(data, offsets[i], offsets[i + 1])


def parse_numbers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Parses decimal numbers.

    Args:
        texts: string or binary.

    Returns:
        float64, finite, never -0.0, 0 where there is none; and `Status` as uint8.
    """
    data, offsets = string_buffers(texts)
    out = np.empty(len(texts), np.float64)
    status = np.empty(len(texts), np.uint8)
    _parse(data, offsets, out, status)
    for i in np.flatnonzero(status == _UNDECIDED):
        out[i] = float(data[offsets[i] : offsets[i + 1]].tobytes()) + 0.0
        status[i] = _PARSED if np.isfinite(out[i]) else _BAD
    out[status == _BAD] = 0.0
    return out, status
