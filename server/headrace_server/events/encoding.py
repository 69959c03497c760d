"""Kernels that encode values as bytes: one at a time (`put_`), or a column's in each of many rows (`write_`).

A `put_` writes at `at` and returns the place behind. A `write_` writes row `first + i`
at `places[i]`, which it moves behind what it wrote; its `measure_` adds the bytes that
will take to `sizes`. `out` must have room.

Kernels elsewhere that call these are compiled with them: after a change here delete
their cached machine code (`__pycache__/*.nbi`).
"""

from typing import Any

import numba as nb
import numpy as np
from numba import boolean, int64, types, void
from numba.core import cgutils
from numba.extending import intrinsic

from headrace_compute.kernels.quoting import ESCAPES, HEX, LETTER_U
from headrace_compute.kernels.types import BYTES, BYTES_OUT, FLAGS, INT64S, INT64S_OUT

U64 = np.uint64

TIME_BYTES = 27
"""Of `2026-01-31T12:00:00.000000Z`."""

_DAY_US = 86_400_000_000
_ZERO = 48


def _copy(_context: Any, out: Any, at: Any, data: Any, start: Any, size: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, at, data, start, size = arguments
        to = context.make_array(signature.args[0])(context, builder, out).data
        source = context.make_array(signature.args[2])(context, builder, data).data
        memcpy(builder, builder.gep(to, [at]), builder.gep(source, [start]), size, 1)
        return context.get_dummy_value()

    return types.void(out, types.int64, data, types.int64, types.int64), generate


memcpy: Any = cgutils.raw_memcpy
copy: Any = intrinsic(_copy)
"""`copy(out, at, data, start, size)`: memcpy of `data[start:start + size]` to `out[at:]`, without overlap.

A loop over elements is ten times slower: indexes may be negative in Python, and Numba's loops allow for that.
"""


@nb.njit(nogil=True)
def varint_size(number: Any) -> int:
    """Bytes of an int64 as a base-128 varint (protobuf.dev, "Encoding"); negative numbers take ten."""
    rest = U64(number)
    size = 1
    while rest >= U64(128):
        rest >>= U64(7)
        size += 1
    return size


@nb.njit(nogil=True)
def put_varint(out: Any, at: int, number: Any) -> int:
    """An int64 as a base-128 varint."""
    rest = U64(number)
    while rest >= U64(128):
        out[at] = rest & U64(127) | U64(128)
        rest >>= U64(7)
        at += 1
    out[at] = rest
    return at + 1


@nb.njit(nogil=True)
def zigzag_size(number: int) -> int:
    """Bytes of a number, not negative, as Kafka's zigzag varint."""
    return varint_size(number << 1)


@nb.njit(nogil=True)
def put_zigzag(out: Any, at: int, number: int) -> int:
    """A number, not negative, as Kafka's zigzag varint."""
    return put_varint(out, at, number << 1)


@nb.njit(nogil=True)
def digits_size(number: int) -> int:
    """Decimal digits of a number that is not negative."""
    size = 1
    while number >= 10:
        number //= 10
        size += 1
    return size


@nb.njit(nogil=True)
def put_digits(out: Any, at: int, number: int, size: int) -> int:
    """The lowest `size` decimal digits of a number that is not negative."""
    for place in range(at + size - 1, at - 1, -1):
        out[place] = _ZERO + number % 10
        number //= 10
    return at + size


@nb.njit(nogil=True)
def _put_pair(out: Any, at: int, number: Any) -> None:
    """Two decimal digits of an unsigned number below 100."""
    tens = number // U64(10)
    out[at] = U64(_ZERO) + tens
    out[at + 1] = U64(_ZERO) + number - U64(10) * tens


@nb.njit(nogil=True)
def put_time(out: Any, at: int, time_us: int) -> int:
    """Microseconds since the epoch, years 0000 to 9999, as RFC 3339 in UTC; always six digits of a second."""
    days = time_us // _DAY_US
    # Unsigned from here: division by a constant then needs no correction for signs.
    rest_us = U64(time_us - days * _DAY_US)
    seconds = rest_us // U64(1_000_000)
    micros = rest_us - seconds * U64(1_000_000)
    minutes = seconds // U64(60)
    hours = minutes // U64(60)
    year, month, day = _civil(days)
    century = U64(year) // U64(100)
    _put_pair(out, at, century)
    _put_pair(out, at + 2, U64(year) - century * U64(100))
    out[at + 4] = 45
    _put_pair(out, at + 5, U64(month))
    out[at + 7] = 45
    _put_pair(out, at + 8, U64(day))
    out[at + 10] = 84
    _put_pair(out, at + 11, hours)
    out[at + 13] = 58
    _put_pair(out, at + 14, minutes - hours * U64(60))
    out[at + 16] = 58
    _put_pair(out, at + 17, seconds - minutes * U64(60))
    out[at + 19] = 46
    tens = micros // U64(100)
    thousands = tens // U64(100)
    _put_pair(out, at + 20, thousands)
    _put_pair(out, at + 22, tens - thousands * U64(100))
    _put_pair(out, at + 24, micros - tens * U64(100))
    out[at + 26] = 90
    return at + TIME_BYTES


@nb.njit(nogil=True)
def _civil(days: int) -> Any:
    """The date so many days after 1970-01-01, from year 0 on.

    H. Hinnant, "chrono-compatible low-level date algorithms".
    """
    shifted = U64(days + 719468)
    era = shifted // U64(146097)
    day_of_era = shifted - era * U64(146097)
    leaps = day_of_era // U64(1460) - day_of_era // U64(36524) + day_of_era // U64(146096)
    year_of_era = (day_of_era - leaps) // U64(365)
    day_of_year = day_of_era - (U64(365) * year_of_era + year_of_era // U64(4) - year_of_era // U64(100))
    shifted_month = (U64(5) * day_of_year + U64(2)) // U64(153)
    day = day_of_year - (U64(153) * shifted_month + U64(2)) // U64(5) + U64(1)
    month = shifted_month + U64(3) if shifted_month < U64(10) else shifted_month - U64(9)
    return year_of_era + era * U64(400) + U64(month <= U64(2)), month, day


@nb.njit(void(BYTES, BYTES_OUT, INT64S_OUT), nogil=True, cache=True)
def write_constant(constant: Any, out: Any, places: Any) -> None:
    """The same bytes in every row."""
    for i in range(places.size):
        copy(out, places[i], constant, 0, constant.size)
        places[i] += constant.size


@nb.njit(void(INT64S, FLAGS, int64, boolean, INT64S_OUT), nogil=True, cache=True)
def measure_text(offsets: Any, valid: Any, frame: Any, sized: Any, sizes: Any) -> None:
    """`frame`: bytes of label and end."""
    for row in range(sizes.size):
        if valid[row]:
            size = offsets[row + 1] - offsets[row]
            sizes[row] += frame + size + (varint_size(size) if sized else 0)


@nb.njit(
    void(int64, BYTES, BYTES, INT64S, FLAGS, BYTES, boolean, BYTES_OUT, INT64S_OUT), nogil=True, cache=True
)
def write_text(
    first: Any, label: Any, data: Any, offsets: Any, valid: Any, end: Any, sized: Any, out: Any, places: Any
) -> None:
    """Label, size if `sized`, string, end; nothing if not `valid`."""
    for i in range(places.size):
        row = first + i
        if not valid[row]:
            continue
        size = offsets[row + 1] - offsets[row]
        at = places[i]
        copy(out, at, label, 0, label.size)
        at += label.size
        if sized:
            at = put_varint(out, at, size)
        copy(out, at, data, offsets[row], size)
        copy(out, at + size, end, 0, end.size)
        places[i] = at + size + end.size


@nb.njit(void(BYTES, INT64S, FLAGS, int64, INT64S_OUT, INT64S_OUT), nogil=True, cache=True)
def measure_escaped(data: Any, offsets: Any, valid: Any, frame: Any, sizes: Any, escapes: Any) -> None:
    """`frame`: bytes of label and end. Sets `escapes` to the bytes that escapes add to each row."""
    for row in range(sizes.size):
        more = 0
        if valid[row]:
            for byte in data[offsets[row] : offsets[row + 1]]:
                if ESCAPES[byte]:
                    more += 5 if ESCAPES[byte] == LETTER_U else 1
            sizes[row] += offsets[row + 1] - offsets[row] + more + frame
        escapes[row] = more


@nb.njit(nogil=True)
def _put_escaped(out: Any, at: int, data: Any, start: int, end: int) -> int:
    plain = start
    for place in range(start, end):
        byte = data[place]
        if not ESCAPES[byte]:
            continue
        copy(out, at, data, plain, place - plain)
        at += place - plain
        plain = place + 1
        out[at], out[at + 1] = 92, ESCAPES[byte]
        at += 2
        if ESCAPES[byte] == LETTER_U:
            out[at], out[at + 1], out[at + 2], out[at + 3] = 48, 48, HEX[byte >> 4], HEX[byte & 15]
            at += 4
    copy(out, at, data, plain, end - plain)
    return at + end - plain


@nb.njit(
    void(int64, BYTES, BYTES, INT64S, FLAGS, INT64S, BYTES, BYTES_OUT, INT64S_OUT), nogil=True, cache=True
)
def write_escaped(
    first: Any, label: Any, data: Any, offsets: Any, valid: Any, escapes: Any, end: Any, out: Any, places: Any
) -> None:
    """Label, string with JSON's escapes, end; nothing if not `valid`."""
    for i in range(places.size):
        row = first + i
        if not valid[row]:
            continue
        at = places[i]
        copy(out, at, label, 0, label.size)
        at += label.size
        if escapes[row]:
            at = _put_escaped(out, at, data, offsets[row], offsets[row + 1])
        else:
            copy(out, at, data, offsets[row], offsets[row + 1] - offsets[row])
            at += offsets[row + 1] - offsets[row]
        copy(out, at, end, 0, end.size)
        places[i] = at + end.size


@nb.njit(void(INT64S, int64, INT64S_OUT), nogil=True, cache=True)
def measure_digits(numbers: Any, label: Any, sizes: Any) -> None:
    """`label`: bytes of it."""
    for row in range(sizes.size):
        sizes[row] += label + digits_size(numbers[row])


@nb.njit(void(int64, BYTES, INT64S, BYTES_OUT, INT64S_OUT), nogil=True, cache=True)
def write_digits(first: Any, label: Any, numbers: Any, out: Any, places: Any) -> None:
    """Label and decimal digits."""
    for i in range(places.size):
        number = numbers[first + i]
        copy(out, places[i], label, 0, label.size)
        places[i] = put_digits(out, places[i] + label.size, number, digits_size(number))


@nb.njit(void(int64, BYTES, INT64S, BYTES, BYTES_OUT, INT64S_OUT), nogil=True, cache=True)
def write_times(first: Any, label: Any, times_us: Any, end: Any, out: Any, places: Any) -> None:
    """Label, time, end."""
    for i in range(places.size):
        at = places[i]
        copy(out, at, label, 0, label.size)
        at = put_time(out, at + label.size, times_us[first + i])
        copy(out, at, end, 0, end.size)
        places[i] = at + end.size


@nb.njit(void(INT64S, int64, INT64S_OUT), nogil=True, cache=True)
def measure_varints(numbers: Any, label: Any, sizes: Any) -> None:
    """`label`: bytes of it."""
    for row in range(sizes.size):
        if numbers[row]:
            sizes[row] += label + varint_size(numbers[row])


@nb.njit(void(int64, BYTES, INT64S, BYTES_OUT, INT64S_OUT), nogil=True, cache=True)
def write_varints(first: Any, label: Any, numbers: Any, out: Any, places: Any) -> None:
    """Label and varint; nothing for 0."""
    for i in range(places.size):
        if numbers[first + i]:
            copy(out, places[i], label, 0, label.size)
            places[i] = put_varint(out, places[i] + label.size, numbers[first + i])


@nb.njit(nogil=True)
def _timestamp_size(seconds: int, nanos: int) -> int:
    """Bytes of a google.protobuf.Timestamp: two fields, left out where they are 0."""
    return (1 + varint_size(seconds) if seconds else 0) + (1 + varint_size(nanos) if nanos else 0)


@nb.njit(void(INT64S, int64, INT64S_OUT), nogil=True, cache=True)
def measure_timestamps(times_us: Any, label: Any, sizes: Any) -> None:
    """`label`: bytes of it."""
    for row in range(sizes.size):
        seconds = times_us[row] // 1_000_000
        sizes[row] += label + 1 + _timestamp_size(seconds, (times_us[row] - seconds * 1_000_000) * 1000)


@nb.njit(void(int64, BYTES, INT64S, BYTES_OUT, INT64S_OUT), nogil=True, cache=True)
def write_timestamps(first: Any, label: Any, times_us: Any, out: Any, places: Any) -> None:
    """Label, size, seconds (field 1), nanoseconds (field 2)."""
    for i in range(places.size):
        seconds = times_us[first + i] // 1_000_000
        nanos = (times_us[first + i] - seconds * 1_000_000) * 1000
        copy(out, places[i], label, 0, label.size)
        at = put_varint(out, places[i] + label.size, _timestamp_size(seconds, nanos))
        if seconds:
            out[at] = 0x08
            at = put_varint(out, at + 1, seconds)
        if nanos:
            out[at] = 0x10
            at = put_varint(out, at + 1, nanos)
        places[i] = at
