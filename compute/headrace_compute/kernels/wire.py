"""Protobuf's wire format, read as far as counting goes: what a field holds, before a message is made.

A row of two bytes becomes an object of more than a hundred, so a request is counted while it is still bytes.
"""

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numba import int64, void

from headrace_compute.kernels.types import BYTES, INT64S, INT64S_OUT

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10

# What is told of a field.
_NUMBER, _START = range(2)
_WORDS = 2

_MESSAGE, _STRUCT, _ENTRY, _VALUE, _LIST = range(5)
"""Messages that objects are made of: the request, and `google.protobuf.Struct` with what lies in it."""

_MAX_DEPTH = 512
"""Messages in messages that are looked into; decoding ends at a hundred."""


class Objects(NamedTuple):
    """What JSON objects hold.

    Attributes:
        keys: The most of one object of the field; those of objects in it are not among them.
        values: Those of keys and those in lists, of all objects and of what lies in them.
    """

    keys: int
    values: int


class Counted(NamedTuple):
    """What a field holds: its values, and their bytes."""

    values: int
    size_bytes: int


def count_values(data: bytes, path: tuple[int, ...], limit: int) -> Counted:
    """What a field of messages or texts has in an encoded message; counting ends behind `limit` values.

    Args:
        data: The message. Where it is malformed, counting ends too: whoever decodes it will say so.
        path: Field numbers from the message down to the field. Messages that occur again are merged, as
            decoding does, so all of them count.
        limit: The most that matters.
    """
    found = np.zeros(2, np.int64)
    _count(np.frombuffer(data, np.uint8), np.array(path, np.int64), limit, found)
    return Counted(*found.tolist())


def count_objects(data: bytes, field: int, keys: int, values: int) -> Objects:
    """What the JSON objects, each a `google.protobuf.Struct`, in an encoded message hold.

    Args:
        data: The message. Where it is malformed, counting ends too.
        field: Number of the repeated field that has them.
        keys, values: The most that matters; counting ends behind either.
    """
    found = np.zeros(2, np.int64)
    _count_objects(np.frombuffer(data, np.uint8), field, keys, values, found)
    return Objects(*found.tolist())


@nb.njit(nogil=True, inline="always")
def _varint_end(data: Any, at: int, end: int) -> int:
    """Index behind a varint; -1 if it does not end in time."""
    for i in range(at, min(end, at + _MAX_VARINT_BYTES)):
        if data[i] < 128:
            return i + 1
    return -1


@nb.njit(nogil=True, inline="always")
def _varint(data: Any, at: int, end: int) -> Any:
    value: Any = 0
    for i in range(end - at):
        value |= np.int64(data[at + i] & 127) << (7 * i)
    return value


@nb.njit(nogil=True, inline="always")
def _field(data: Any, at: int, end: int, words: Any) -> Any:
    """Reads a field; the index behind it, or -1 if it is malformed.

    Tells its number and where its content starts if it is one of messages or texts, and else the number 0.
    """
    words[_NUMBER] = 0
    behind = _varint_end(data, at, end)
    if behind < 0:
        return behind
    tag = _varint(data, at, behind)
    kind = tag & 7
    if kind == _FIXED64:
        return behind + 8
    if kind == _FIXED32:
        return behind + 4
    if kind == _VARINT:
        return _varint_end(data, behind, end)
    if kind != _BYTES:
        # Groups have no length: what they hold is read as if it stood beside them.
        return behind
    start = _varint_end(data, behind, end)
    if start < 0:
        return start
    size = _varint(data, behind, start)
    if size < 0 or size > end - start:
        return -1
    words[_NUMBER], words[_START] = tag >> 3, start
    return start + size


@nb.njit(void(BYTES, INT64S, int64, INT64S_OUT), nogil=True, cache=True)
def _count(data: Any, path: Any, limit: int, found: Any) -> None:
    ends, words = np.empty(path.size, np.int64), np.empty(_WORDS, np.int64)
    ends[0] = data.size
    depth, at = 0, 0
    while found[0] <= limit:
        end = ends[depth]
        if at >= end:
            if depth == 0:
                break
            depth -= 1
            continue
        behind = _field(data, at, end, words)
        if behind < 0:
            break
        if words[_NUMBER] != path[depth]:
            at = behind
        elif depth + 1 == path.size:
            found[0] += 1
            found[1] += behind - words[_START]
            at = behind
        else:
            depth += 1
            ends[depth] = behind
            at = words[_START]


@nb.njit(void(BYTES, int64, int64, int64, INT64S_OUT), nogil=True, cache=True)
def _count_objects(data: Any, field: int, keys: int, values: int, found: Any) -> None:
    ends, kinds = np.empty(_MAX_DEPTH, np.int64), np.empty(_MAX_DEPTH, np.int64)
    words = np.empty(_WORDS, np.int64)
    ends[0], kinds[0] = data.size, _MESSAGE
    depth, at, mine = 0, 0, 0
    while found[0] <= keys and found[1] <= values:
        end = ends[depth]
        if at >= end:
            if depth == 0:
                break
            depth -= 1
            continue
        behind = _field(data, at, end, words)
        if behind < 0:
            break
        kind, number, inside = kinds[depth], words[_NUMBER], -1
        if kind == _MESSAGE and number == field:
            inside, mine = _STRUCT, 0
        elif kind == _STRUCT and number == 1:
            inside = _ENTRY
            found[1] += 1
            if depth == 1:
                mine += 1
                found[0] = max(found[0], mine)
        elif kind == _LIST and number == 1:
            inside = _VALUE
            found[1] += 1
        elif kind == _ENTRY and number == 2:
            inside = _VALUE
        elif kind == _VALUE and number == 5:
            inside = _STRUCT
        elif kind == _VALUE and number == 6:
            inside = _LIST
        if inside < 0 or depth + 1 == _MAX_DEPTH:
            at = behind
        else:
            depth += 1
            ends[depth], kinds[depth] = behind, inside
            at = words[_START]
