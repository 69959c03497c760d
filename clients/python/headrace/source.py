"""Where the content of a stream comes from: a file cut into chunks, or rows packed into batches."""

import io
import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from headrace.row import DataType, Row, to_interaction, to_item
from headrace.v1 import row_pb2

CHUNK_BYTES = 1 << 20
"""Bytes of a file chunk: at 256 KiB to 1 MiB a Python gRPC stream is fastest."""

BATCH_BYTES = 256 << 10
"""Encoded bytes after which a batch of rows is sent."""

File: TypeAlias = str | os.PathLike[str] | BinaryIO
"""A path, or a file open for reading bytes."""

Rows: TypeAlias = Iterable[Row] | AsyncIterable[Row]
"""Any number of rows; an async iterable is for the aio client only."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream.

    Attributes:
        offset, end_offset: The stream offsets it covers: bytes, or rows for rows.
        content: Bytes, or a batch of rows.
        weight_bytes: What it occupies in memory and on the wire.
    """

    offset: int
    end_offset: int
    content: bytes | row_pb2.RowBatch
    weight_bytes: int


class FileSource:
    """The bytes of a file.

    Args:
        file: A path, or a file open for reading bytes; it is read from where it stands.
    """

    def __init__(self, file: File) -> None:
        self.file = file

    @property
    def size_bytes(self) -> int:
        """Bytes of the file; 0 when unknown, as of a pipe."""
        if isinstance(self.file, str | os.PathLike):
            return os.stat(self.file).st_size
        return 0

    def chunks(self, start: int = 0, limit_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
        """The bytes from `start` on, in chunks of at most `limit_bytes`.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file is shorter than `start`.
        """
        if isinstance(self.file, str | os.PathLike):
            if start > self.size_bytes:
                raise _too_short(self.size_bytes, start)
            with open(self.file, "rb", buffering=0) as file:
                file.seek(start)
                yield from _pieces(file, start, limit_bytes)
        else:
            _skip(self.file, start)
            yield from _pieces(self.file, start, limit_bytes)


def _pieces(file: BinaryIO | io.FileIO, offset: int, limit_bytes: int) -> Iterator[Chunk]:
    while data := file.read(min(limit_bytes, CHUNK_BYTES)):
        yield Chunk(offset, offset + len(data), data, len(data))
        offset += len(data)


def _skip(file: BinaryIO, start: int) -> None:
    # Read, not sought: a pipe cannot seek.
    offset = 0
    while offset < start:
        data = file.read(min(start - offset, CHUNK_BYTES))
        if not data:
            raise _too_short(offset, start)
        offset += len(data)


def _too_short(size_bytes: int, start: int) -> ValueError:
    return ValueError(f"the file ends at byte {size_bytes}, but {start} bytes were stored: not the same file")


def json_lines(file: File) -> Iterator[Row]:
    """The rows of a JSON lines file: one object a line, blank lines passed over.

    Raises:
        OSError: The file cannot be read.
        ValueError: A line is no JSON object.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            yield from json_lines(opened)
        return
    for line_number, line in enumerate(file, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {line_number}: this is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {line_number}: expected a JSON object, got {line[:80]!r}")
            yield row


class RowBatcher:
    """Packs rows into chunks.

    Args:
        data_type: What the rows are.
        start: Rows to pass over, because the server has them.
    """

    def __init__(self, data_type: DataType, start: int, limit_bytes: int) -> None:
        self._data_type = data_type
        self._start = start
        self._limit_bytes = min(limit_bytes, BATCH_BYTES)
        self._seen = 0
        self._clear()

    def _clear(self) -> None:
        self._batch = row_pb2.RowBatch()
        self._first = max(self._seen, self._start)
        self._weight_bytes = 0

    def add(self, row: Row) -> Chunk | None:
        """Takes a row; gives a chunk whenever one is full."""
        number = self._seen
        self._seen += 1
        if number < self._start:
            return None
        if self._data_type == "items":
            item = to_item(row, number)
            self._batch.items.append(item)
            self._weight_bytes += item.ByteSize() + 4
        else:
            interaction = to_interaction(row, number)
            self._batch.interactions.append(interaction)
            self._weight_bytes += interaction.ByteSize() + 4
        return self.rest() if self._weight_bytes >= self._limit_bytes else None

    def rest(self) -> Chunk | None:
        """The rows not yet given, if there are any.

        Raises:
            ValueError: There were fewer rows than the server has.
        """
        if self._seen < self._start:
            raise ValueError(f"only {self._seen} rows, but {self._start} were stored: not the same rows")
        if self._seen == self._first:
            return None
        chunk = Chunk(self._first, self._seen, self._batch, self._weight_bytes)
        self._clear()
        return chunk


class RowSource:
    """Rows, given one by one.

    Args:
        data_type: What the rows are.
        rows: Mappings or messages.
    """

    def __init__(self, data_type: DataType, rows: Rows) -> None:
        self.data_type = data_type
        self.rows = rows

    def chunks(self, start: int = 0, limit_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
        """The rows from number `start` on, in batches of about `limit_bytes` at most.

        Raises:
            ValueError: A row cannot be made a message, or there are fewer than `start`.
        """
        if isinstance(self.rows, AsyncIterable):
            raise TypeError("rows are an async iterable; use headrace.AsyncClient, or give a list")
        batcher = RowBatcher(self.data_type, start, limit_bytes)
        for row in self.rows:
            if chunk := batcher.add(row):
                yield chunk
        if chunk := batcher.rest():
            yield chunk

    async def achunks(self, start: int = 0, limit_bytes: int = CHUNK_BYTES) -> AsyncIterator[Chunk]:
        """The same for an async iterable of rows."""
        if not isinstance(self.rows, AsyncIterable):
            raise TypeError("rows are no async iterable; use chunks()")
        batcher = RowBatcher(self.data_type, start, limit_bytes)
        async for row in self.rows:
            if chunk := batcher.add(row):
                yield chunk
        if chunk := batcher.rest():
            yield chunk
