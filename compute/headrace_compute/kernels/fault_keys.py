"""Texts that are no timestamps, brought to few: many have the same fault, which is told slowly.

What `faults.py` says of a text depends on few of its digits. The others become
zeros here, so that a column of one wrong form has one key, or as many as there are
zone names or impossible dates in it. Plain numbers, which have messages of
their own, are told apart by the unit that they seem to have.
"""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import int64, void

from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.timestamps import days_in_month, digits
from headrace_compute.kernels.types import BYTES, BYTES_OUT, INT64S, INT64S_OUT

U64 = np.uint64

UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
"""Units of Unix times, as `find_keys` counts them from 1."""

FIRST_UNIX = 10**5
"""Numbers below are no Unix times."""

_LIMITS = np.array([10**11, 10**14, 10**17, 10**19], np.uint64)
"""Numbers below these are Unix times of such a unit, up to the year 5138; all have fewer digits than 20."""

_FIRST_SECOND = -62_135_596_800
_MOST_DIGITS = 19
_ZERO, _NINE, _MINUS, _PLUS, _POINT, _COMMA, _COLON, _SLASH = 48, 57, 45, 43, 46, 44, 58, 47


@nb.njit(nogil=True, inline="always")
def _is_digit(byte: Any) -> Any:
    return _ZERO <= byte <= _NINE


@nb.njit(nogil=True)
def _digits_end(data: Any, at: int, end: int) -> int:
    while at < end and _is_digit(data[at]):
        at += 1
    return at


@nb.njit(nogil=True)
def _is_number(data: Any, at: int, end: int) -> bool:
    """Whether the text is `[+-] digits [. [digits]]`."""
    first = at + 1 if data[at] == _MINUS or data[at] == _PLUS else at
    at = _digits_end(data, first, end)
    if at == first:
        return False
    return at == end or (data[at] == _POINT and _digits_end(data, at + 1, end) == end)


@nb.njit(nogil=True)
def _unix(data: Any, at: int, end: int) -> tuple[int, int]:
    """Unit and seconds of a number; unit -1 if it is no Unix time, 0 if it may be a date without hyphens."""
    signed = data[at] == _MINUS or data[at] == _PLUS
    first = at + 1 if signed else at
    behind = _digits_end(data, first, end)
    count = behind - first
    if count > _MOST_DIGITS or (not signed and (count in (8, 14) or (count == 12 and behind < end))):
        return 0, 0
    number = U64(0)
    for i in range(first, behind):
        number = U64(10) * number + U64(data[i] - _ZERO)
    if number < U64(FIRST_UNIX):
        return -1, 0
    per_second = U64(1)
    for unit in range(4):
        if number < _LIMITS[unit]:
            seconds: Any = np.int64(number // per_second)
            seconds = -seconds if data[at] == _MINUS else seconds
            return (unit + 1, seconds) if seconds >= _FIRST_SECOND else (-1, 0)
        per_second *= U64(1000)
    return -1, 0


@nb.njit(nogil=True)
def _is_date(year: int, month: int, day: int) -> bool:
    return year >= 1 and 1 <= month <= 12 and 1 <= day <= days_in_month(year, month)


@nb.njit(nogil=True)
def _clock_end(data: Any, at: int, end: int) -> int:
    """Where `HH:MM[:SS[(.|,)[F]]]` ends; `at` if there is none."""
    if end - at < 5 or digits(data, at, 2) < 0 or data[at + 2] != _COLON or digits(data, at + 3, 2) < 0:
        return at
    behind = at + 5
    if end - behind >= 3 and data[behind] == _COLON and digits(data, behind + 1, 2) >= 0:
        behind += 3
        if behind < end and (data[behind] == _POINT or data[behind] == _COMMA):
            behind = _digits_end(data, behind + 1, end)
    return behind


@nb.njit(nogil=True)
def _copy(data: Any, at: int, end: int, masked: int, out: Any, to: int) -> int:
    """Copies a text, the digits before `masked` as zeros; where it ends in `out`."""
    for i in range(at, end):
        out[to] = _ZERO if i < masked and _is_digit(data[i]) else data[i]
        to += 1
    return to


@nb.njit(nogil=True)
def _dated(data: Any, at: int, end: int, out: Any, to: int) -> int:
    """The key of a text that begins with `YYYY-MM-DD` and no further digit."""
    if not _is_date(digits(data, at, 4), digits(data, at + 5, 2), digits(data, at + 8, 2)):
        last = data[end - 1]
        if last > 32:
            return _copy(data, at, at + 10, at, out, to)  # Nobody looks behind it.
        return _copy(data, at, end, at, out, to)
    # 2000-01-01, and what is behind it.
    key = _copy(data, at, at + 10, at + 10, out, to)
    out[to], out[to + 6], out[to + 9] = 50, 49, 49
    rest = at + 10
    if rest == end:
        return key
    if data[rest] == 116:
        return _copy(data, rest, end, end, out, key)
    if data[rest] != 84 and data[rest] != 32:
        return _copy(data, rest, end, rest, out, key)
    clock = rest + 1
    behind = _clock_end(data, clock, end)
    if behind == clock:
        return _copy(data, rest, end, end, out, key)
    exists = digits(data, clock, 2) <= 23 and digits(data, clock + 3, 2) <= 59
    if behind - clock >= 8 and digits(data, clock + 6, 2) > 59:
        exists = False
    return _copy(data, rest, end, behind if exists else rest, out, key)


@nb.njit(nogil=True)
def _mark_number(data: Any, at: int, end: int, out: Any, to: int) -> None:
    """Writes the key of a number that may be a day: 00 up to 12, 13 up to 31, 99 above."""
    if end - at == 2:
        number = digits(data, at, 2)
        out[to] = 57 if number > 31 else 49 if number > 12 else _ZERO
        out[to + 1] = 57 if number > 31 else 51 if number > 12 else _ZERO


@nb.njit(nogil=True)
def _year_last(data: Any, at: int, end: int, behind: int, out: Any, to: int) -> int:
    """The key of a text whose first number, of one or two digits, ends at `behind`; a date perhaps."""
    key = _copy(data, at, end, end, out, to)
    mark = data[behind]
    second = _digits_end(data, behind + 1, end)
    if mark in (_SLASH, _POINT, _MINUS) and 1 <= second - behind - 1 <= 2:
        _mark_number(data, at, behind, out, to)
        _mark_number(data, behind + 1, second, out, to + behind + 1 - at)
    return key


@nb.njit(nogil=True)
def _key(data: Any, at: int, end: int, out: Any, to: int) -> int:
    for i in range(at, end):
        if data[i] >= 128:
            return _copy(data, at, end, at, out, to)
    leading = _digits_end(data, at, end) - at
    if _is_number(data, at, end):
        return _copy(data, at, end, at, out, to)
    if leading >= 8:
        year, month, day = digits(data, at, 4), digits(data, at + 4, 2), digits(data, at + 6, 2)
        if not 1900 <= year <= 2100 or not _is_date(year, month, day):
            return _copy(data, at, end, at, out, to)
        key = _copy(data, at, end, end, out, to)
        out[to], out[to + 5], out[to + 7] = 50, 49, 49
        return key
    dated = leading == 4 and end - at >= 10 and data[at + 4] == _MINUS and data[at + 7] == _MINUS
    if dated and digits(data, at + 5, 2) >= 0 and digits(data, at + 8, 2) >= 0:
        if end - at > 10 and _is_digit(data[at + 10]):
            return _copy(data, at, end, at, out, to)
        return _dated(data, at, end, out, to)
    if 1 <= leading <= 2 and at + leading < end:
        return _year_last(data, at, end, at + leading, out, to)
    return _copy(data, at, end, end, out, to)


@nb.njit(void(BYTES, INT64S, int64, BYTES_OUT, INT64S_OUT, INT64S_OUT, INT64S_OUT), nogil=True, cache=True)
def _find(data: Any, offsets: Any, limit: Any, out: Any, ends: Any, units: Any, seconds: Any) -> None:
    to = 0
    for i in range(units.size):
        at, end = offsets[i], min(offsets[i + 1], offsets[i] + limit)
        units[i] = seconds[i] = 0
        if at < end and _is_number(data, at, end):
            units[i], seconds[i] = _unix(data, at, end)
        if units[i] != 0:
            out[to] = _ZERO
            to += 1
        else:
            to = _key(data, at, end, out, to)
        ends[i + 1] = to


def find_keys(texts: pa.Array, limit_bytes: int) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """What tells the faults of texts.

    Args:
        texts: string or binary, all of them no timestamps.
        limit_bytes: Of each, as much as is looked at.

    Returns:
        Keys, large_binary: texts with the same fault as those they stand for, `0` for numbers. Of numbers the
        unit, int64: 1 for the first of UNITS, -1 for numbers that are no Unix times, 0 for all other
        texts; and the seconds since the epoch, int64.
    """
    data, offsets = string_buffers(texts)
    out = np.empty(max(1, int(np.minimum(np.diff(offsets), limit_bytes).sum())), np.uint8)
    ends = np.zeros(len(texts) + 1, np.int64)
    units, seconds = np.empty(len(texts), np.int64), np.empty(len(texts), np.int64)
    _find(data, offsets, limit_bytes, out, ends, units, seconds)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(out)]
    return pa.Array.from_buffers(pa.large_binary(), len(texts), buffers), units, seconds
