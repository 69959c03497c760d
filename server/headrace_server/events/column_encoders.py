"""Column encoders: what one column adds to the bytes of each row.

`encode_rows` writes many rows at once, column by column, a few thousand rows at a time so
that what is being written stays in the processor's cache. A null writes
nothing, not even its label.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from headrace_compute.kernels.strings import string_buffers
from headrace_server.events import encoding

CHUNK_ROWS = 2048
_MAX_BYTES = 2**31 - 1


class ColumnEncoder(Protocol):
    """One column's part of each row."""

    def measure(self, sizes: np.ndarray) -> None:
        """Adds the bytes that each row takes to `sizes`, int64."""

    def write(self, first: int, out: np.ndarray, places: np.ndarray) -> None:
        """Writes the rows from `first` on.

        Args:
            out: uint8.
            places: int64, where each row goes; moved behind what was written.
        """


def encode_rows(rows: int, encoders: Sequence[ColumnEncoder]) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of each row: what each encoder writes, one behind another.

    Returns:
        `data` (uint8) and `offsets` (int32, one more than rows).

    Raises:
        ValueError: They take 2 GiB or more, too much for one Arrow array.
    """
    sizes = np.zeros(rows, np.int64)
    for encoder in encoders:
        encoder.measure(sizes)
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    if offsets[-1] > _MAX_BYTES:
        raise ValueError(
            f"{rows:,} rows take {offsets[-1]:,} bytes; 2 GiB is the most: encode fewer at a time"
        )
    # Arrow keeps the pages of what it frees; fresh ones from the system cost as much as the writing.
    data = np.frombuffer(pa.allocate_buffer(int(offsets[-1])), np.uint8)
    for first in range(0, rows, CHUNK_ROWS):
        places = offsets[first : min(first + CHUNK_ROWS, rows)].copy()
        for encoder in encoders:
            encoder.write(first, data, places)
    return data, offsets.astype(np.int32)


class Constant:
    """The same bytes in every row."""

    def __init__(self, data: bytes) -> None:
        self._data = _bytes(data)

    def measure(self, sizes: np.ndarray) -> None:
        """See ColumnEncoder."""
        sizes += self._data.size

    def write(self, first: int, out: np.ndarray, places: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.write_constant(self._data, out, places)


class Text:
    """A label, a string as it is, an end.

    Args:
        column: A string or binary column.
        sized: Whether the string's length goes before it, as a varint.
    """

    def __init__(self, label: bytes, column: pa.Array, end: bytes = b"", *, sized: bool = False) -> None:
        self._label, self._end = _bytes(label), _bytes(end)
        self._data, self._offsets = string_buffers(column)
        self._valid = _valid(column)
        self._sized = sized

    def measure(self, sizes: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.measure_text(
            self._offsets, self._valid, self._label.size + self._end.size, self._sized, sizes
        )

    def write(self, first: int, out: np.ndarray, places: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.write_text(
            first, self._label, self._data, self._offsets, self._valid, self._end, self._sized, out, places
        )


class JsonText:
    """A label, a string as JSON has it inside of quotes (RFC 8259, section 7), an end."""

    def __init__(self, label: bytes, column: pa.Array, end: bytes = b"") -> None:
        self._label, self._end = _bytes(label), _bytes(end)
        self._data, self._offsets = string_buffers(column)
        self._valid = _valid(column)
        self._escapes = np.empty(len(column), np.int64)

    def measure(self, sizes: np.ndarray) -> None:
        """See ColumnEncoder."""
        frame = self._label.size + self._end.size
        encoding.measure_escaped(self._data, self._offsets, self._valid, frame, sizes, self._escapes)

    def write(self, first: int, out: np.ndarray, places: np.ndarray) -> None:
        """See ColumnEncoder."""
        text = self._data, self._offsets, self._valid, self._escapes
        encoding.write_escaped(first, self._label, *text, self._end, out, places)


class Digits:
    """A label and a whole number in decimal; none is null or negative."""

    def __init__(self, label: bytes, column: pa.Array) -> None:
        self._label, self._numbers = _bytes(label), _numbers(column)

    def measure(self, sizes: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.measure_digits(self._numbers, self._label.size, sizes)

    def write(self, first: int, out: np.ndarray, places: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.write_digits(first, self._label, self._numbers, out, places)


class Time:
    """A label, a time in RFC 3339, an end; none is null."""

    def __init__(self, label: bytes, column: pa.Array, end: bytes = b"") -> None:
        self._label, self._end, self._times_us = _bytes(label), _bytes(end), _numbers(column)

    def measure(self, sizes: np.ndarray) -> None:
        """See ColumnEncoder."""
        sizes += self._label.size + encoding.TIME_BYTES + self._end.size

    def write(self, first: int, out: np.ndarray, places: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.write_times(first, self._label, self._times_us, self._end, out, places)


class Varint:
    """A label and an int64 as a varint; nothing where it is 0, as protobuf does it; none is null."""

    def __init__(self, label: bytes, column: pa.Array) -> None:
        self._label, self._numbers = _bytes(label), _numbers(column)

    def measure(self, sizes: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.measure_varints(self._numbers, self._label.size, sizes)

    def write(self, first: int, out: np.ndarray, places: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.write_varints(first, self._label, self._numbers, out, places)


class Timestamp:
    """A label and a google.protobuf.Timestamp with its size before it; none is null."""

    def __init__(self, label: bytes, column: pa.Array) -> None:
        self._label, self._times_us = _bytes(label), _numbers(column)

    def measure(self, sizes: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.measure_timestamps(self._times_us, self._label.size, sizes)

    def write(self, first: int, out: np.ndarray, places: np.ndarray) -> None:
        """See ColumnEncoder."""
        encoding.write_timestamps(first, self._label, self._times_us, out, places)


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def _numbers(column: pa.Array) -> np.ndarray:
    return np.ascontiguousarray(column.cast(pa.int64()).to_numpy())


def _valid(column: pa.Array) -> np.ndarray:
    if column.null_count == 0:
        return np.ones(len(column), np.bool_)
    return np.ascontiguousarray(column.is_valid().to_numpy(zero_copy_only=False))
