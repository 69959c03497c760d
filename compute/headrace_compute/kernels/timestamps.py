"""ISO 8601 timestamps to microseconds since the epoch.

The grammar, with nothing before, between or behind:

    YYYY-MM-DD                             midnight UTC
    YYYY-MM-DD (T| ) HH:MM[:SS[.F+]] [Z|z|(+|-)HH[:MM]|(+|-)HHMM]

No offset is UTC. A fraction is truncated to microseconds. Dates are proleptic
Gregorian, years 0001 to 9999, in UTC too. 24:00 and leap seconds are refused, as are
epochs and the basic format, which cannot be told apart. `faults.py` explains why a
text is refused.
"""

from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import void

from headrace_compute.kernels.parsed import Status
from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.types import BYTES, BYTES_OUT, INT64S, INT64S_OUT
from headrace_compute.kernels.words import load64

U64 = np.uint64

_EMPTY, _PARSED, _BAD = int(Status.EMPTY), int(Status.PARSED), int(Status.BAD)
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z."""


@nb.njit(nogil=True)
def digits(data: Any, at: int, count: int) -> Any:
    """The value of `count` decimal digits, or -1 if one of them is no digit."""
    value: Any = 0
    for i in range(at, at + count):
        digit = np.int64(data[i]) - 48
        if digit < 0 or digit > 9:
            return -1
        value = 10 * value + digit
    return value


@nb.njit(nogil=True)
def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms")."""
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    year_of_era = shifted - era * 400
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


@nb.njit(nogil=True)
def days_in_month(year: int, month: int) -> int:
    """Days of a month, 1 to 12."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@nb.njit(nogil=True)
def _date_seconds(data: Any, at: int) -> int:
    """Seconds of the midnight that `YYYY-MM-DD` at `at` names, or a value before year 1."""
    year, month, day = digits(data, at, 4), digits(data, at + 5, 2), digits(data, at + 8, 2)
    if data[at + 4] != 45 or data[at + 7] != 45 or year < 1 or month < 1 or month > 12:
        return 2 * _FIRST_SECOND
    if day < 1 or day > days_in_month(year, month):
        return 2 * _FIRST_SECOND
    return _days(year, month, day) * 86400


@nb.njit(nogil=True)
def _offset_seconds(data: Any, at: int, end: int) -> int:
    """Seconds east of UTC that `data[at:end]` names, or a day and more if it is no offset."""
    none = 100_000
    size = end - at
    if size == 1:
        return 0 if data[at] == 90 or data[at] == 122 else none
    if (data[at] != 43 and data[at] != 45) or (size != 3 and size != 5 and size != 6):
        return none
    if size == 6 and data[at + 3] != 58:
        return none
    sign = 1 if data[at] == 43 else -1
    hours: int = digits(data, at + 1, 2)
    minutes: int = digits(data, end - 2, 2) if size > 3 else 0
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return none
    return sign * (hours * 3600 + minutes * 60)


@nb.njit(nogil=True)
def _clock(data: Any, at: int, end: int) -> tuple[int, int, int]:
    """Seconds and microseconds of `HH:MM[:SS[.F+]]` and where it ends; seconds -1 if it is none."""
    none = (-1, 0, at)
    if end - at < 5 or data[at + 2] != 58:
        return none
    hour, minute, second = digits(data, at, 2), digits(data, at + 3, 2), 0
    micros: Any = 0
    at += 5
    if at < end and data[at] == 58:
        if end - at < 3:
            return none
        second = digits(data, at + 1, 2)
        at += 3
        if at < end and data[at] == 46:
            at += 1
            first, scale = at, 100_000
            while at < end and data[at] >= 48 and data[at] <= 57:
                micros += (np.int64(data[at]) - 48) * scale
                scale //= 10
                at += 1
            if at == first:
                return none
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return none
    return hour * 3600 + minute * 60 + second, micros, at


@nb.njit(nogil=True, inline="always")
def _pairs(word: Any, shape: Any, marks: Any) -> Any:
    """The value of each pair of digits of a word, in the byte of the first digit; -1 if the shape differs.

    Args:
        shape: `0` where a digit belongs, else the character that does.
        marks: All ones where a character belongs.
    """
    digits = word ^ shape
    if (((digits + U64(0x7676767676767676)) | digits) & U64(0x8080808080808080)) | (digits & marks):
        return -1
    return np.int64(digits * U64(10) + (digits >> U64(8)))


@nb.njit(nogil=True)
def _usual(data: Any, at: int, end: int) -> tuple[int, int]:
    """Seconds and microseconds of `YYYY-MM-DD(T| )HH:MM:SS[.F+][Z]`, eight bytes at a time.

    Microseconds are -1 for any other text, right or wrong: the whole grammar decides then.
    """
    other = (0, -1)
    if end - at < 19 or at + 19 > data.size or (data[at + 10] != 84 and data[at + 10] != 32):
        return other
    date = _pairs(load64(data, at), U64(0x2D30302D30303030), U64(0xFF0000FF00000000))
    clock = _pairs(load64(data, at + 11), U64(0x30303A30303A3030), U64(0x0000FF0000FF0000))
    if date < 0 or clock < 0:
        return other
    year, month, day = (
        100 * (date & 0xFF) + ((date >> 16) & 0xFF),
        (date >> 40) & 0xFF,
        digits(data, at + 8, 2),
    )
    hour, minute, second = clock & 0xFF, (clock >> 24) & 0xFF, (clock >> 48) & 0xFF
    if year < 1 or month < 1 or month > 12 or day < 1 or day > days_in_month(year, month):
        return other
    if hour > 23 or minute > 59 or second > 59:
        return other
    at += 19
    micros: Any = 0
    if at < end and data[at] == 46:
        at += 1
        first = at
        while at < end and data[at] >= 48 and data[at] <= 57:
            micros = 10 * micros + np.int64(data[at]) - 48 if at < first + 6 else micros
            at += 1
        if at == first:
            return other
        for _ in range(at, first + 6):
            micros *= 10
    if at < end and not (at + 1 == end and data[at] == 90):
        return other
    return _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second, micros


@nb.njit(void(BYTES, INT64S, INT64S_OUT, BYTES_OUT), nogil=True, cache=True)
def _parse(data: Any, offsets: Any, out: Any, status: Any) -> None:
    for i in range(out.size):
        at, end = offsets[i], offsets[i + 1]
        seconds, micros = _usual(data, at, end)
        if micros >= 0:
            out[i] = seconds * 1_000_000 + micros
            status[i] = _PARSED
            continue
        out[i] = 0
        status[i] = _EMPTY if at == end else _BAD
        if end - at < 10:
            continue
        seconds, micros = _date_seconds(data, at), 0
        at += 10
        if at < end:
            if data[at] != 84 and data[at] != 32:
                continue
            clock, micros, at = _clock(data, at + 1, end)
            east = _offset_seconds(data, at, end) if at < end else 0
            if clock < 0 or east >= 86400:
                continue
            seconds += clock - east
        if _FIRST_SECOND <= seconds <= _LAST_SECOND:
            out[i] = seconds * 1_000_000 + micros
            status[i] = _PARSED


def parse_timestamps(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Parses timestamps.

    Args:
        texts: string or binary.

    Returns:
        int64 microseconds since the epoch, 0 where there are none, and `Status` as uint8.
    """
    data, offsets = string_buffers(texts)
    out = np.empty(len(texts), np.int64)
    status = np.empty(len(texts), np.uint8)
    _parse(data, offsets, out, status)
    return out, status
