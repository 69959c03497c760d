"""Splits a block of whole CSV records into columns of raw text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numba import int32, void

from headrace_compute.kernels.scan import MISQUOTED, Cursor, new_cursor, scan
from headrace_compute.kernels.types import BYTES, BYTES_OUT, INT32S, INT32S_OUT
from headrace_compute.kernels.words import append

_QUOTE, _LF, _CR = 34, 10, 13


@dataclass(frozen=True)
class Tokens:
    """The records of a block; all arrays have one entry per record.

    Attributes:
        starts, ends: int32, each record's bytes in the block, its line end left out.
        lines: int32, line ends of the block before the record.
        fields: int32, fields in it.
        misquoted: bool, whether text stands behind a closing quote in it.
        columns: Per wanted column its values, unescaped, as Arrow binary. Empty and absent fields are null.
    """

    starts: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    fields: np.ndarray
    misquoted: np.ndarray
    columns: tuple[pa.BinaryArray, ...]


@nb.njit(void(BYTES, INT32S, int32, INT32S_OUT, BYTES_OUT), nogil=True, cache=True)
def _gather(data: Any, bounds: Any, width: Any, offsets: Any, out: Any) -> None:
    at = 0
    for i in range(width):
        offsets[i] = at
        start, end = bounds[2 * i], bounds[2 * i + 1]
        if start >= 0:
            at = append(data, start, end, out, at)
        else:
            j = -1 - start
            while j < end:
                if data[j] == _QUOTE:
                    j += 1  # The second of two is the value's.
                out[at] = data[j]
                at += 1
                j += 1
    offsets[width] = at


def tokenise(block: np.ndarray, rows: int, wanted: Sequence[int], width: int) -> Tokens:
    """Finds the records of a block and the values of some columns.

    Args:
        block: uint8, whole records as `Framer` cuts them, below 2 GiB.
        rows: Records in it, as the framer counted.
        wanted: Places of the wanted columns in the header, all different; -1 for one that it lacks.
        width: Fields of the header. Records with more or fewer are null in every column,
            since it is unknown which field is which; so are misquoted ones.

    Raises:
        ValueError: The block does not hold `rows` records.
    """
    slots = np.full(max(wanted, default=-1) + 1, -1, np.int32)
    for slot, place in enumerate(wanted):
        if place >= 0:
            slots[place] = slot
    records = np.zeros(4 * max(rows, 1), np.int32)
    bounds = np.zeros(2 * rows * len(wanted), np.int32)
    cursor = new_cursor()
    scan(block, block.size, True, rows, block.size, cursor, slots, records, bounds)
    rest = block[cursor[Cursor.END] :]
    if rows and (cursor[Cursor.RECORDS] != rows or ((rest != _LF) & (rest != _CR)).any()):
        raise ValueError(f"the block does not hold {rows} records")
    table = records[: 4 * rows].reshape(rows, 4)
    bounds.reshape(len(wanted), rows, 2)[:, table[:, 3] != width] = 0
    return Tokens(
        starts=table[:, 0],
        ends=table[:, 1],
        lines=table[:, 2],
        fields=table[:, 3] % MISQUOTED,
        misquoted=table[:, 3] >= MISQUOTED,
        columns=tuple(
            gathered(_gather, block, bounds[2 * rows * i : 2 * rows * (i + 1)]) for i in range(len(wanted))
        ),
    )


def gathered(gather: Callable[..., None], block: np.ndarray, bounds: np.ndarray) -> pa.BinaryArray:
    """Pieces of a block as Arrow binary; empty ones are null.

    Args:
        gather: Copies the pieces, as `_gather` does.
        bounds: int32, start and end of each piece.
    """
    rows = bounds.size // 2
    # Room for the whole block: pages that stay unused are never mapped.
    out = np.empty(block.size, np.uint8)
    offsets = np.empty(rows + 1, np.int32)
    gather(block, bounds, rows, offsets, out)
    filled = offsets[1:] > offsets[:-1]
    mask = None if filled.all() else pa.py_buffer(np.packbits(filled, bitorder="little"))
    buffers = [mask, pa.py_buffer(offsets), pa.py_buffer(out[: offsets[-1]])]
    return pa.Array.from_buffers(pa.binary(), rows, buffers)
