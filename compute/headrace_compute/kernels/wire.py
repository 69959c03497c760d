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


@nb.njit(void(BYTES, INT64S, int64, INT64S_OUT), nogil=True, cache=True)
def _count(data: Any, path: Any, limit: int, found: Any) -> None:
    ends = np.empty(path.size, np.int64)
    ends[0] = data.size
    depth, at = 0, 0
    while found[0] <= limit:
        end = ends[depth]
        if at >= end:
            if depth == 0:
                break
            depth -= 1
            continue
        behind = _varint_end(data, at, end)
        if behind < 0:
            break
        tag = _varint(data, at, behind)
        at = behind
        kind = tag & 7
        if kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind == _VARINT:
            at = _varint_end(data, at, end)
            if at < 0:
                break
        elif kind == _BYTES:
            behind = _varint_end(data, at, end)
            if behind < 0:
                break
            size = _varint(data, at, behind)
            at = behind
            if size < 0 or size > end - at:
                break
            if tag >> 3 != path[depth]:
                at += size
            elif depth + 1 == path.size:
                found[0] += 1
                found[1] += size
                at += size
            else:
                depth += 1
                ends[depth] = at + size
        # Groups have no length: what they hold is read as if it stood beside them.
