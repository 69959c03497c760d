"""Takes a block of JSON lines apart: one flat object a line, its values as pieces of the text.

The grammar is RFC 8259, to the letter but for three things. NaN and infinities are read as values,
so that it is their column that is told of. Nesting ends at MAX_DEPTH. Bytes that are not UTF-8
are left to those who want the text. No value is converted here, so none can be changed: numbers
stay digits, and an object that names a wanted key twice is faulty, since there is no telling
which value was meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import int64, void

from headrace_compute.kernels.scan import ONES
from headrace_compute.kernels.tokens import gathered
from headrace_compute.kernels.types import BYTES, BYTES_OUT, INT32S, INT32S_OUT
from headrace_compute.kernels.words import append, load64

MAX_DEPTH = 1000
"""Objects and arrays that may lie in each other."""

U64 = np.uint64
_TOPS = U64(0x8080808080808080)
_QUOTE, _BACKSLASH, _COMMA, _COLON, _MINUS, _POINT = 34, 92, 44, 58, 45, 46
_LEFT_BRACE, _RIGHT_BRACE, _LEFT_BRACKET, _RIGHT_BRACKET = 123, 125, 91, 93
_ZERO, _NINE, _E, _UPPER_E, _PLUS, _U = 48, 57, 101, 69, 43, 117
_LF, _CR, _TAB, _SPACE = 10, 13, 9, 32
_QUOTES, _BACKSLASHES, _SPACES = U64(_QUOTE) * ONES, U64(_BACKSLASH) * ONES, U64(_SPACE) * ONES
_TRUE, _FALSE, _NULL_WORD = (np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))
_NAN, _INFINITY = (np.frombuffer(word, np.uint8) for word in (b"NaN", b"Infinity"))
_SIMPLE = np.zeros(256, np.uint8)
"""What a letter behind a backslash stands for; 0 where it is no escape."""
for _letter, _byte in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _SIMPLE[_letter] = _byte
_HEX = np.full(256, -1, np.int64)
for _letter in b"0123456789abcdefABCDEF":
    _HEX[_letter] = int(chr(_letter), 16)


class Kind(IntEnum):
    """What the value of a key is."""

    ABSENT = 0
    NULL = 1
    STRING = 2
    INTEGER = 3
    FLOAT = 4
    """A number with a point or an exponent."""
    NOT_FINITE = 5
    """NaN, Infinity or -Infinity, which are no JSON."""
    BOOLEAN = 6
    NESTED = 7
    """An object or an array."""


class ObjectFault(IntEnum):
    """Why a line is no object, or none of ours."""

    NONE = 0
    NO_OBJECT = 1
    ENDS_EARLY = 2
    SYNTAX = 3
    CONTROL = 4
    """A raw control character in a string."""
    TOO_DEEP = 5
    TEXT_BEHIND = 6
    TWICE = 7
    """A wanted key is there twice."""


_NULL, _STRING, _INTEGER, _FLOAT = int(Kind.NULL), int(Kind.STRING), int(Kind.INTEGER), int(Kind.FLOAT)
_NOT_FINITE, _BOOLEAN, _NESTED = int(Kind.NOT_FINITE), int(Kind.BOOLEAN), int(Kind.NESTED)
_NO_OBJECT, _ENDS_EARLY = int(ObjectFault.NO_OBJECT), int(ObjectFault.ENDS_EARLY)
_SYNTAX, _CONTROL = int(ObjectFault.SYNTAX), int(ObjectFault.CONTROL)
_TOO_DEEP, _BEHIND, _TWICE = int(ObjectFault.TOO_DEEP), int(ObjectFault.TEXT_BEHIND), int(ObjectFault.TWICE)

_START, _LINE_END, _LINES, _FAULT, _PLACE = range(5)
_RECORD_FIELDS = 5
"""Numbers kept of a record: its bounds, the lines before it, what is wrong with it and where."""

# What functions leave beside the place they return: a fault and its place, or of what kind a value is, and
# whether it has escapes.
_W_FAULT, _W_PLACE, _W_KIND, _W_ESCAPED = range(4)
_WORDS = 4


@nb.njit(nogil=True, inline="always")
def _fail(words: Any, fault: Any, at: Any) -> Any:
    words[_W_FAULT], words[_W_PLACE] = fault, at
    return np.int64(-1)


@nb.njit(nogil=True, inline="always")
def _fail_at(words: Any, at: Any, end: Any) -> Any:
    """The fault of a byte that does not belong there, or of a line that ends there."""
    return _fail(words, _ENDS_EARLY if at >= end else _SYNTAX, at)


@nb.njit(nogil=True, inline="always")
def _skip_space(data: Any, at: Any, end: Any) -> Any:
    while at < end and (data[at] == _SPACE or data[at] == _TAB or data[at] == _CR):
        at += 1
    return at


@nb.njit(nogil=True, inline="always")
def _is_plain(word: Any) -> Any:
    """Whether no byte of a word is a quote, a backslash or a control character."""
    quotes, slashes = word ^ _QUOTES, word ^ _BACKSLASHES
    found = (quotes - ONES) & ~quotes | (slashes - ONES) & ~slashes | (word - _SPACES) & ~word
    return found & _TOPS == U64(0)


@nb.njit(nogil=True)
def _string(data: Any, at: Any, end: Any, words: Any) -> Any:
    """The place of the closing quote of a string whose text begins at `at`."""
    words[_W_ESCAPED] = 0
    while at < end:
        while at + 8 <= end and _is_plain(load64(data, at)):
            at += 8
        if at >= end:
            break
        byte = data[at]
        if byte == _QUOTE:
            return at
        if byte < _SPACE:
            return _fail(words, _CONTROL, at)
        if byte == _BACKSLASH:
            words[_W_ESCAPED] = 1
            if at + 1 < end and data[at + 1] == _U:
                for i in range(at + 2, at + 6):
                    if i >= end or _HEX[data[i]] < 0:
                        return _fail_at(words, i, end)
                at += 4
            elif at + 1 >= end or _SIMPLE[data[at + 1]] == 0:
                return _fail_at(words, at + 1, end)
            at += 1
        at += 1
    return _fail(words, _ENDS_EARLY, end)


@nb.njit(nogil=True)
def _digits(data: Any, at: Any, end: Any) -> Any:
    while at < end and data[at] >= _ZERO and data[at] <= _NINE:
        at += 1
    return at


@nb.njit(nogil=True)
def _word(data: Any, at: Any, end: Any, word: Any, words: Any) -> Any:
    for i in range(word.size):
        if at + i >= end or data[at + i] != word[i]:
            return _fail_at(words, at + i, end)
    return at + word.size


@nb.njit(nogil=True)
def _number(data: Any, at: Any, end: Any, words: Any) -> Any:
    first = at + 1 if data[at] == _MINUS else at
    if first < end and data[first] == _INFINITY[0]:
        words[_W_KIND] = _NOT_FINITE
        return _word(data, first, end, _INFINITY, words)
    words[_W_KIND] = _INTEGER
    # No digit follows a leading zero.
    at = first + 1 if first < end and data[first] == _ZERO else _digits(data, first, end)
    if at == first:
        return _fail_at(words, at, end)
    if at < end and data[at] == _POINT:
        words[_W_KIND] = _FLOAT
        at += 1
        behind = _digits(data, at, end)
        if behind == at:
            return _fail_at(words, at, end)
        at = behind
    if at < end and (data[at] == _E or data[at] == _UPPER_E):
        words[_W_KIND] = _FLOAT
        at += 1
        if at < end and (data[at] == _PLUS or data[at] == _MINUS):
            at += 1
        behind = _digits(data, at, end)
        if behind == at:
            return _fail_at(words, at, end)
        at = behind
    return at


@nb.njit(nogil=True)
def _scalar(data: Any, at: Any, end: Any, words: Any) -> Any:
    """The place behind a value that is neither object nor array; `at < end`."""
    byte = data[at]
    if byte == _QUOTE:
        words[_W_KIND] = _STRING
        at = _string(data, at + 1, end, words)
        return at + 1 if at >= 0 else at
    words[_W_ESCAPED] = 0
    if byte == _TRUE[0]:
        words[_W_KIND] = _BOOLEAN
        return _word(data, at, end, _TRUE, words)
    if byte == _FALSE[0]:
        words[_W_KIND] = _BOOLEAN
        return _word(data, at, end, _FALSE, words)
    if byte == _NULL_WORD[0]:
        words[_W_KIND] = _NULL
        return _word(data, at, end, _NULL_WORD, words)
    if byte == _NAN[0]:
        words[_W_KIND] = _NOT_FINITE
        return _word(data, at, end, _NAN, words)
    return _number(data, at, end, words)


@nb.njit(nogil=True)
def _nested(data: Any, at: Any, end: Any, stack: Any, words: Any) -> Any:
    """The place behind an object or array that begins at `at`."""
    stack[0] = data[at]
    depth, at = 1, at + 1
    wants_value, may_end = stack[0] == _LEFT_BRACKET, True
    while depth:
        # Here a value may begin, or a key, or what was just opened may end.
        at = _skip_space(data, at, end)
        if at >= end:
            return _fail(words, _ENDS_EARLY, end)
        byte = data[at]
        if may_end and byte == stack[depth - 1] + 2:
            depth, at = depth - 1, at + 1
        elif not wants_value:
            if byte != _QUOTE:
                return _fail(words, _SYNTAX, at)
            at = _string(data, at + 1, end, words)
            if at < 0:
                return at
            at = _skip_space(data, at + 1, end)
            if at >= end or data[at] != _COLON:
                return _fail_at(words, at, end)
            at += 1
            wants_value, may_end = True, False
            continue
        elif byte in (_LEFT_BRACE, _LEFT_BRACKET):
            # The object of the line itself is one level.
            if depth + 1 >= MAX_DEPTH:
                return _fail(words, _TOO_DEEP, at)
            stack[depth] = byte
            depth, at = depth + 1, at + 1
            wants_value, may_end = byte == _LEFT_BRACKET, True
            continue
        else:
            at = _scalar(data, at, end, words)
            if at < 0:
                return at
        # Behind a value: closing brackets, or a comma and the next one.
        while depth:
            at = _skip_space(data, at, end)
            if at < end and data[at] == stack[depth - 1] + 2:
                depth, at = depth - 1, at + 1
            elif at < end and data[at] == _COMMA:
                at += 1
                wants_value, may_end = stack[depth - 1] == _LEFT_BRACKET, False
                break
            else:
                return _fail_at(words, at, end)
    words[_W_KIND], words[_W_ESCAPED] = _NESTED, 0
    return at


@nb.njit(nogil=True)
def _code_unit(data: Any, at: Any) -> Any:
    """What the four hexadecimal digits at `at` spell."""
    unit = np.int64(0)
    for i in range(at, at + 4):
        unit = 16 * unit + _HEX[data[i]]
    return unit


@nb.njit(nogil=True)
def _unescape(data: Any, at: Any, end: Any, out: Any, to: Any) -> Any:
    """Writes a string that `_string` has found in order to `out[to:]`; the place behind it.

    A lone surrogate becomes three bytes that are not UTF-8.
    """
    while at < end:
        if data[at] != _BACKSLASH:
            out[to] = data[at]
            at, to = at + 1, to + 1
            continue
        if data[at + 1] != _U:
            out[to] = _SIMPLE[data[at + 1]]
            at, to = at + 2, to + 1
            continue
        code = _code_unit(data, at + 2)
        at += 6
        is_high = code >= 0xD800 and code < 0xDC00
        if is_high and at + 6 <= end and data[at] == _BACKSLASH and data[at + 1] == _U:
            low = _code_unit(data, at + 2)
            if low >= 0xDC00 and low < 0xE000:
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                at += 6
        if code < 0x80:
            out[to] = code
            to += 1
        elif code < 0x800:
            out[to], out[to + 1] = 0xC0 | code >> 6, 0x80 | code & 0x3F
            to += 2
        elif code < 0x10000:
            out[to], out[to + 1] = 0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F
            out[to + 2] = 0x80 | code & 0x3F
            to += 3
        else:
            out[to], out[to + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 0x3F
            out[to + 2], out[to + 3] = 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
            to += 4
    return to


@nb.njit(nogil=True, inline="always")
def _equals(data: Any, start: Any, end: Any, names: Any, edges: Any, slot: Any) -> Any:
    at, size = edges[slot], edges[slot + 1] - edges[slot]
    same = np.int64(0)
    if end - start == size:
        while same < size and data[start + same] == names[at + same]:
            same += 1
    return same == size and end - start == size


@nb.njit(nogil=True, inline="always")
def _slot(data: Any, start: Any, end: Any, names: Any, edges: Any, guess: Any) -> Any:
    """Which of the names a key is, -1 for none; keys mostly come in the same order, so one is guessed."""
    count = edges.size - 1
    for i in range(count):
        slot = (guess + i) % count
        if _equals(data, start, end, names, edges, slot):
            return slot
    return -1


@nb.njit(nogil=True)
def _line_end(data: Any, at: Any) -> Any:
    while at < data.size and data[at] != _LF:
        at += 1
    return at


@nb.njit(nogil=True)
def _object(
    data: Any,
    at: Any,
    end: Any,
    names: Any,
    edges: Any,
    row: Any,
    rows: Any,
    kinds: Any,
    bounds: Any,
    others: Any,
    used: Any,
    words: Any,
    stack: Any,
) -> Any:
    """One line's object, from its first byte on; returns `used` behind its other keys, -1 at a fault."""
    if data[at] != _LEFT_BRACE:
        return _fail(words, _NO_OBJECT, at)
    guess = np.int64(0)
    at = _skip_space(data, at + 1, end)
    is_open = at >= end or data[at] != _RIGHT_BRACE
    while is_open:
        if at >= end or data[at] != _QUOTE:
            return _fail_at(words, at, end)
        key = at + 1
        key_end = _string(data, key, end, words)
        if key_end < 0:
            return key_end
        key_escaped = words[_W_ESCAPED] != 0
        at = _skip_space(data, key_end + 1, end)
        if at >= end or data[at] != _COLON:
            return _fail_at(words, at, end)
        at = _skip_space(data, at + 1, end)
        if at >= end:
            return _fail(words, _ENDS_EARLY, end)
        value = at
        if data[at] == _LEFT_BRACE or data[at] == _LEFT_BRACKET:
            at = _nested(data, at, end, stack, words)
        else:
            at = _scalar(data, at, end, words)
        if at < 0:
            return at
        if key_escaped:
            plain = np.empty(key_end - key, np.uint8)
            slot = _slot(plain, 0, _unescape(data, key, key_end, plain, 0), names, edges, guess)
        else:
            slot = _slot(data, key, key_end, names, edges, guess)
        if slot < 0:
            others[used] = -1 - key if key_escaped else key
            others[used + 1] = key_end
            used += 2
        else:
            cell = slot * rows + row
            if kinds[cell]:
                return _fail(words, _TWICE, key)
            kinds[cell] = words[_W_KIND]
            quoted = words[_W_KIND] == _STRING
            first, last = value + quoted, at - quoted
            if words[_W_KIND] == _INTEGER and data[first] == _MINUS and data[first + 1] == _ZERO:
                first += 1  # The integer -0 is 0.
            bounds[2 * cell] = -1 - first if words[_W_ESCAPED] else first
            bounds[2 * cell + 1] = last
            guess = slot + 1
        at = _skip_space(data, at, end)
        if at < end and data[at] == _COMMA:
            at = _skip_space(data, at + 1, end)
        elif at < end and data[at] == _RIGHT_BRACE:
            is_open = False
        else:
            return _fail_at(words, at, end)
    at = _skip_space(data, at + 1, end)
    return used if at >= end else _fail(words, _BEHIND, at)


@nb.njit(
    int64(BYTES, BYTES, INT32S, int64, INT32S_OUT, BYTES_OUT, INT32S_OUT, INT32S_OUT),
    nogil=True,
    cache=True,
)
def _take_apart(
    data: Any, names: Any, edges: Any, rows: Any, records: Any, kinds: Any, bounds: Any, others: Any
) -> Any:
    """Fills the tables of `Objects`.

    Returns:
        Twice the number of keys outside `names`; -1 if there are not `rows` records.
    """
    words, stack = np.zeros(_WORDS, np.int64), np.empty(MAX_DEPTH, np.uint8)
    count = edges.size - 1
    at, row, line, used = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    while at < data.size:
        start = at
        at = _skip_space(data, start, data.size)
        if at < data.size and data[at] != _LF:
            if row == rows:
                return np.int64(-1)
            end = _line_end(data, at)
            kept = used
            words[_W_FAULT] = 0
            used = _object(data, at, end, names, edges, row, rows, kinds, bounds, others, used, words, stack)
            if used < 0:
                used = kept
                for slot in range(count):
                    kinds[slot * rows + row] = 0
                    bounds[2 * (slot * rows + row)] = bounds[2 * (slot * rows + row) + 1] = 0
            place = _RECORD_FIELDS * row
            stop = end - 1 if end > start and data[end - 1] == _CR else end
            records[place + _START], records[place + _LINE_END] = start, stop
            records[place + _LINES] = line
            records[place + _FAULT], records[place + _PLACE] = words[_W_FAULT], words[_W_PLACE] - start
            row += 1
            at = end
        at += 1
        line += 1
    return used if row == rows else np.int64(-1)


@nb.njit(void(BYTES, INT32S, int64, INT32S_OUT, BYTES_OUT), nogil=True, cache=True)
def _gather(data: Any, bounds: Any, width: Any, offsets: Any, out: Any) -> None:
    at = np.int64(0)
    for i in range(width):
        offsets[i] = at
        start, end = bounds[2 * i], bounds[2 * i + 1]
        at = append(data, start, end, out, at) if start >= 0 else _unescape(data, -1 - start, end, out, at)
    offsets[width] = at


@dataclass(frozen=True)
class Objects:
    """The objects of a block of lines; all arrays have one entry for each.

    Attributes:
        block: uint8, the block.
        starts, ends: int32, each line's bytes in the block, its line end left out.
        lines: int32, line ends of the block before it.
        faults: int32, ObjectFault; of a faulty line no value is known.
        places: int32, byte of the line at which the fault was found.
        kinds: uint8, a row for each wanted key: Kind of its value.
        bounds: int32, a row for each wanted key: start and end of its value, quotes left out. A string
            with escapes has its start as -1 - start.
        others: int32, start and end of each key that was not wanted, in the order of the block.
    """

    block: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    faults: np.ndarray
    places: np.ndarray
    kinds: np.ndarray
    bounds: np.ndarray
    others: np.ndarray

    def texts(self, slot: int, taken: np.ndarray) -> pa.BinaryArray:
        """Values of a wanted key: text of strings, without escapes, and of all else its JSON.

        Args:
            taken: bool for each object; where it is False, the value is null. So are empty ones.
        """
        return self._gathered(np.where(taken[:, None], self.bounds[slot], 0))

    def values(self, slot: int, rows: np.ndarray) -> pa.BinaryArray:
        """As `texts`, of some objects: int64 places."""
        return self._gathered(self.bounds[slot][rows])

    def other_keys(self) -> pa.BinaryArray:
        """The keys that were not wanted, one for each time they occur."""
        return self._gathered(self.others)

    def rows_of_others(self) -> np.ndarray:
        """The object that each of `other_keys` is in, int64."""
        keys = np.where(self.others[:, 0] < 0, -1 - self.others[:, 0], self.others[:, 0])
        return np.searchsorted(self.starts, keys, "right") - 1

    def _gathered(self, bounds: np.ndarray) -> pa.BinaryArray:
        return gathered(_gather, self.block, np.ascontiguousarray(bounds, np.int32).reshape(-1))


def take_apart(block: np.ndarray, rows: int, wanted: Sequence[str]) -> Objects:
    """Finds the objects of a block of lines, and the values of some keys.

    Args:
        block: uint8, whole lines as `LineFramer` cuts them, below 2 GiB.
        rows: Records in it, as the framer counted.
        wanted: Keys, all different.

    Raises:
        ValueError: The block does not hold `rows` records.
    """
    keys = [key.encode() for key in wanted]
    edges = np.cumsum([0, *map(len, keys)]).astype(np.int32)
    records = np.zeros(_RECORD_FIELDS * rows, np.int32)
    kinds = np.zeros(rows * len(keys), np.uint8)
    bounds = np.zeros(2 * rows * len(keys), np.int32)
    # Behind each key stands a colon.
    others = np.empty(2 * np.count_nonzero(block == _COLON), np.int32)
    names = np.frombuffer(b"".join(keys), np.uint8)
    used = _take_apart(block, names, edges, rows, records, kinds, bounds, others)
    if used < 0:
        raise ValueError(f"the block does not hold {rows} records")
    table = records.reshape(rows, _RECORD_FIELDS)
    return Objects(
        block=block,
        starts=table[:, _START],
        ends=table[:, _LINE_END],
        lines=table[:, _LINES],
        faults=table[:, _FAULT],
        places=table[:, _PLACE],
        kinds=kinds.reshape(len(keys), rows),
        bounds=bounds.reshape(len(keys), rows, 2),
        others=others[:used].reshape(-1, 2),
    )
