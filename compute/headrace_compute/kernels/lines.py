"""Lines of text: where they end, and which of them are blank.

LF and CRLF end a line; a CR elsewhere is white space of the line. A line of nothing but white
space is blank: a line, but no record. Nothing else is interpreted, since a line end never lies
inside a JSON string.
"""

from typing import Any

import numba as nb
import numpy as np
from numba import boolean, int64, void

from headrace_compute.kernels.scan import ONES, Cursor, skip
from headrace_compute.kernels.types import BYTES, INT64S_OUT

_TAB, _LF, _CR, _SPACE = 9, 10, 13, 32
_UP_TO_LF = np.uint64(_LF + 1) * ONES
_AT_LINE, _BLANK, _TEXT = range(3)
_POSITION, _STATE, _LINES = int(Cursor.POSITION), int(Cursor.STATE), int(Cursor.LINES)
_RECORD_START, _RECORD_LINES = int(Cursor.RECORD_START), int(Cursor.RECORD_LINES)
_END, _END_LINES = int(Cursor.END), int(Cursor.END_LINES)
_RECORDS, _SEEN, _TOO_LARGE = int(Cursor.RECORDS), int(Cursor.SEEN), int(Cursor.TOO_LARGE)


@nb.njit(nogil=True, inline="always")
def _find_lf(data: Any, at: Any, stop: Any) -> Any:
    """The first line feed from `at` on; `stop` if there is none."""
    at = skip(data, at, stop, _UP_TO_LF)
    while at < stop and data[at] != _LF:
        at = skip(data, at + 1, stop, _UP_TO_LF)
    return at


@nb.njit(nogil=True, inline="always")
def _line_bytes(data: Any, start: Any, end: Any) -> Any:
    """Bytes of a line, the CR of a CRLF left out."""
    return end - start - 1 if end > start and data[end - 1] == _CR else end - start


@nb.njit(void(BYTES, int64, boolean, int64, int64, INT64S_OUT), nogil=True, cache=True)
def scan_lines(
    data: Any, stop: int, final: bool, max_records: int, max_record_bytes: int, cursor: Any
) -> None:
    """Counts the lines of `data[cursor[POSITION]:stop]`; what `scan` is for CSV.

    Args:
        data: uint8; positions count from its start, so it must not move between calls.
        final: Whether the stream ends at `stop`; an open line ends there then.
        max_records: Where to halt: at the start of the line after so many records.
        max_record_bytes: Longest line, its line end not counted; a longer one halts with TOO_LARGE.
        cursor: int64, see Cursor; read and written.
    """
    position, state, lines = cursor[_POSITION], cursor[_STATE], cursor[_LINES]
    record_start, seen = cursor[_RECORD_START], cursor[_SEEN]
    record_lines = cursor[_RECORD_LINES]
    while position < stop or (final and state != _AT_LINE):
        if state == _AT_LINE:
            if seen == max_records:
                break
            record_start, record_lines = position, lines
            state = _BLANK
        if state == _BLANK:
            while position < stop and data[position] in (_SPACE, _TAB, _CR):
                position += 1
            if position < stop and data[position] != _LF:
                state = _TEXT
        if state == _TEXT:
            position = _find_lf(data, position, stop)
        if position >= stop and not final:
            break
        if _line_bytes(data, record_start, position) > max_record_bytes:
            break
        seen += state == _TEXT
        lines += 1
        position = min(position + 1, stop)
        state = _AT_LINE
        cursor[_END], cursor[_END_LINES], cursor[_RECORDS] = position, lines, seen
    if state != _AT_LINE and _line_bytes(data, record_start, position) > max_record_bytes:
        cursor[_TOO_LARGE] = 1
    cursor[_POSITION], cursor[_STATE], cursor[_LINES] = position, state, lines
    cursor[_RECORD_START], cursor[_RECORD_LINES], cursor[_SEEN] = record_start, record_lines, seen
