"""The one state machine of CSV: where records and fields begin and end.

RFC 4180, with the deviations that are common in real files. A quote opens a quoted field
only as the field's first byte; inside it `""` is a quote, and commas and line
ends are text. LF, CRLF and CR end a record. Blank lines are lines but no
records. Text after a closing quote runs up to the next comma or line end,
quotes in it are text too, and the record is marked as faulty. A quoted field
that is still open at the end of the stream ends there; callers that know the end
check STATE first. Nothing else is interpreted.

Framing runs this kernel to count and tokenising to record positions, so they cannot
disagree about where a record ends.
"""

from enum import IntEnum
from typing import Any

import numba as nb
import numpy as np
from numba import boolean, int64, void

from headrace_compute.kernels.types import BYTES, INT32S, INT32S_OUT, INT64S_OUT
from headrace_compute.kernels.words import load64

_QUOTE, _COMMA, _LF, _CR = 34, 44, 10, 13
U64 = np.uint64
ONES, _TOPS = U64(0x0101010101010101), U64(0x8080808080808080)
_UP_TO_QUOTE, _UP_TO_COMMA = U64(_QUOTE + 1) * ONES, U64(_COMMA + 1) * ONES
_AT_RECORD, _AT_FIELD, _PLAIN, QUOTED, _CLOSED, AFTER_CR = range(6)

ESCAPED_QUOTE = b'\\"'
"""How Spark, MySQL and others write a quote in a quoted field. Here the quote closes the field."""

UNESCAPE = (
    "a quote stands behind a backslash, which escapes nothing in CSV; write a quote inside a quoted value "
    'as "", in Spark by setting its option escape to a quote'
)
"""What to say of a fault where there is an ESCAPED_QUOTE, which is its cause as a rule."""

MISQUOTED = 1 << 30
"""Added to the number of a record's fields; there are never as many."""


class Cursor(IntEnum):
    """Places in the int64 array that carries the machine from call to call; all zero at a record's start.

    END, END_LINES and RECORDS advance together when a record or blank line has
    ended for certain: after a CR that is when the next byte is seen.
    """

    POSITION = 0
    """Next byte to look at."""
    STATE = 1
    LINES = 2
    """Line ends seen."""
    RECORD_START = 3
    """Where the record in hand begins, or the last one did."""
    END = 4
    """Just behind the last whole record or blank line."""
    END_LINES = 5
    """Line ends before END."""
    RECORDS = 6
    """Whole records before END."""
    SEEN = 7
    """RECORDS, and the one whose end is not certain yet."""
    TOO_LARGE = 8
    """1 when the record at RECORD_START is above the limit."""
    RECORD_LINES = 9
    """Line ends before RECORD_START."""
    SIZE = 10


_POSITION, _STATE, _LINES = int(Cursor.POSITION), int(Cursor.STATE), int(Cursor.LINES)
_RECORD_START, _RECORD_LINES = int(Cursor.RECORD_START), int(Cursor.RECORD_LINES)
_END, _END_LINES = int(Cursor.END), int(Cursor.END_LINES)
_RECORDS, _SEEN, _TOO_LARGE = int(Cursor.RECORDS), int(Cursor.SEEN), int(Cursor.TOO_LARGE)


@nb.njit(nogil=True, inline="always")
def skip(data: Any, at: Any, stop: Any, above: Any) -> Any:
    """The first place from `at` on that may hold a byte below some limit; `stop` if none does.

    Eight bytes at a time, as in S. E. Anderson's "Bit Twiddling Hacks" ("hasless"): a word without
    such a byte gives no bits at all, and of those it gives the lowest is right.

    Args:
        above: The limit, at most 128, in every byte of a word.
    """
    while at + 8 <= stop:
        word = load64(data, at)
        below = (word - above) & ~word & _TOPS
        if below:
            # Ones in all bytes up to the lowest such; their number comes out in the top byte.
            return at + np.int64(((((below - U64(1)) & ~below) & ONES) * ONES) >> U64(56)) - 1
        at += 8
    return at


@nb.njit(
    void(BYTES, int64, boolean, int64, int64, INT64S_OUT, INT32S, INT32S_OUT, INT32S_OUT),
    nogil=True,
    cache=True,
)
def scan(
    data: Any,
    stop: int,
    final: bool,
    max_records: int,
    max_record_bytes: int,
    cursor: Any,
    slots: Any,
    records: Any,
    bounds: Any,
) -> None:
    """Runs the machine over `data[cursor[POSITION]:stop]`.

    Args:
        data: uint8; positions count from its start, so it must not move between calls.
        final: Whether the stream ends at `stop`; an open record ends there then.
        max_records: Where to halt: at the start of the record after so many.
        max_record_bytes: Longest record, its line end not counted; a longer one halts with TOO_LARGE.
        cursor: int64, see Cursor; read and written.
        slots: int32, per field of a record: which row of `bounds` takes it, or -1.
        records: int32, length 0 to only count; else zeros, of which 4 become, per record:
            start, end without its line end, line ends before it, fields; MISQUOTED is added
            to their number where text stands behind a closing quote.
        bounds: int32, 2 * max_records per slot, so that `bounds[2 * (slot * max_records + record)]` is
            the field's start, and the next number its end. Quotes are left out. A field that
            needs unescaping has its start as -1 - start. Fields that a record lacks stay as they were.
    """
    position, state, lines = cursor[_POSITION], cursor[_STATE], cursor[_LINES]
    record_start, seen = cursor[_RECORD_START], cursor[_SEEN]
    record_lines = cursor[_RECORD_LINES]
    field, field_start, field_end = 0, 0, 0
    escaped = False
    recording = records.size > 0
    while position < stop or (final and state != _AT_RECORD and state != AFTER_CR):
        byte = data[position] if position < stop else np.uint8(_LF)
        if state == _PLAIN:
            if recording:
                position = skip(data, position, stop, _UP_TO_COMMA)
                byte = data[position] if position < stop else np.uint8(_LF)
                while byte != _COMMA and byte != _LF and byte != _CR:
                    position += 1
                    if position >= stop:
                        break
                    byte = data[position]
            else:
                # Commas matter only before a quote, so few bytes need looking at.
                position = skip(data, position, stop, _UP_TO_QUOTE)
                byte = data[position] if position < stop else np.uint8(_LF)
                while byte > _QUOTE or not (
                    byte in (_LF, _CR) or (byte == _QUOTE and data[position - 1] == _COMMA)
                ):
                    position = skip(data, position + 1, stop, _UP_TO_QUOTE)
                    if position >= stop:
                        break
                    byte = data[position]
                if position < stop and byte == _QUOTE:
                    position += 1
                    state = QUOTED
                    continue
            if position >= stop:
                if not final:
                    break
                byte = np.uint8(_LF)
            field_end = position
        elif state == _AT_FIELD:
            escaped = False
            field_start = position
            if byte == _QUOTE and position < stop:
                position += 1
                field_start = position
                state = QUOTED
            else:
                state = _PLAIN
            continue
        elif state == _AT_RECORD:
            if seen == max_records:
                break
            if byte in (_LF, _CR):
                lines += 1
                position += 1
                if byte == _CR:
                    state = AFTER_CR
                else:
                    cursor[_END], cursor[_END_LINES] = position, lines
                continue
            record_start = position
            record_lines = lines
            field = 0
            state = _AT_FIELD
            continue
        elif state == AFTER_CR:
            if byte == _LF:
                position += 1
            cursor[_END], cursor[_END_LINES], cursor[_RECORDS] = position, lines, seen
            state = _AT_RECORD
            continue
        elif state == QUOTED:
            while position < stop and data[position] != _QUOTE:
                if data[position] == _CR or (data[position] == _LF and data[position - 1] != _CR):
                    lines += 1
                position += 1
            field_end = position
            if position < stop:
                position += 1
                state = _CLOSED
                continue
            if not final:
                break
            byte = np.uint8(_LF)
        else:
            if byte == _QUOTE and position < stop:
                escaped = True
                position += 1
                state = QUOTED
                continue
            if byte != _COMMA and byte != _LF and byte != _CR:
                escaped = True
                if 4 * seen + 3 < records.size:
                    records[4 * seen + 3] = MISQUOTED
                state = _PLAIN
                continue
        if recording and field < slots.size and slots[field] >= 0:
            at = 2 * (slots[field] * max_records + seen)
            bounds[at] = -1 - field_start if escaped else field_start
            bounds[at + 1] = field_end
        field += 1
        end = position
        position = min(position + 1, stop)
        if byte == _COMMA:
            state = _AT_FIELD
            continue
        if end - record_start > max_record_bytes:
            break
        if recording:
            records[4 * seen] = record_start
            records[4 * seen + 1] = end
            records[4 * seen + 2] = record_lines
            records[4 * seen + 3] += field
        seen += 1
        lines += 1
        if byte == _CR:
            state = AFTER_CR
        else:
            cursor[_END], cursor[_END_LINES], cursor[_RECORDS] = position, lines, seen
            state = _AT_RECORD
    if final and state == AFTER_CR and position >= stop:
        cursor[_END], cursor[_END_LINES], cursor[_RECORDS] = position, lines, seen
        state = _AT_RECORD
    open_bytes = 0 if state in (_AT_RECORD, AFTER_CR) else position - record_start
    if open_bytes > max_record_bytes:
        cursor[_TOO_LARGE] = 1
    cursor[_POSITION], cursor[_STATE], cursor[_LINES] = position, state, lines
    cursor[_RECORD_START], cursor[_RECORD_LINES], cursor[_SEEN] = record_start, record_lines, seen


def new_cursor() -> np.ndarray:
    """A cursor at a record's start."""
    return np.zeros(Cursor.SIZE, np.int64)
