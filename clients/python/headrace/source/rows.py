"""Rows, packed into batches."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from typing import TypeAlias

from headrace.row import DataType, Row, to_interaction, to_item
from headrace.source.chunk import BATCH_BYTES, Chunk, Start, not_the_same
from headrace.source.once import OnceSource
from headrace.v1 import row_pb2

Rows: TypeAlias = Iterable[Row] | AsyncIterable[Row]
"""Any number of rows; an async iterable is for the aio client only."""

ROWS_PASSED = 8_192
"""Rows passed over in one step, because the server has them; between steps the stream may end."""


class RowBatcher:
    """Packs rows into chunks.

    Args:
        data_type: What the rows are.
        start: How many rows to pass over, and how large a chunk may be.
        reject_unknown: Whether a key that is no column is an error.
    """

    def __init__(self, data_type: DataType, start: Start, reject_unknown: bool) -> None:
        self._data_type = data_type
        self._reject_unknown = reject_unknown
        self._start = start.offset
        self._limit_bytes = min(start.limit_bytes, BATCH_BYTES)
        self._seen = 0
        self._clear()

    def _clear(self) -> None:
        self._batch = row_pb2.RowBatch()
        self._first = self._seen
        self._weight_bytes = 0

    def add(self, row: Row) -> Chunk | None:
        """Takes a row; gives a chunk whenever one is full."""
        number = self._seen
        self._seen += 1
        if number < self._start:
            full = self._seen == self._start or self._seen - self._first == ROWS_PASSED
            return self.rest() if full else None
        if self._data_type == "items":
            item = to_item(row, number, reject_unknown=self._reject_unknown)
            self._batch.items.append(item)
            self._weight_bytes += item.ByteSize() + 4
        else:
            interaction = to_interaction(row, number, reject_unknown=self._reject_unknown)
            self._batch.interactions.append(interaction)
            self._weight_bytes += interaction.ByteSize() + 4
        return self.rest() if self._weight_bytes >= self._limit_bytes else None

    def rest(self) -> Chunk | None:
        """The rows not yet given, if there are any; those passed over give an empty chunk."""
        if self._seen == self._first:
            return None
        content = self._batch.SerializeToString()
        chunk = Chunk(self._first, self._seen, content, is_rows=True, batch=self._batch)
        self._clear()
        return chunk


class RowSource(OnceSource):
    """Rows, given one by one.

    Args:
        data_type: What the rows are.
        rows: Mappings or messages.
        reject_unknown: Whether a key that is no column is an error.
    """

    unit = "rows"

    def __init__(self, data_type: DataType, rows: Rows, *, reject_unknown: bool = False) -> None:
        super().__init__()
        self.data_type = data_type
        self.reject_unknown = reject_unknown
        self.rows = rows
        self.total = len(rows) if isinstance(rows, Sized) else 0
        self._aiterator: AsyncIterator[Chunk] | None = None

    def read(self, start: Start) -> Iterator[Chunk]:
        """The rows in batches of about 256 KiB.

        Raises:
            TypeError: The rows are an async iterable.
            ValueError: A row cannot be made a message.
        """
        if isinstance(self.rows, AsyncIterable):
            raise TypeError("Rows are an async iterable; use headrace.AsyncClient, or give a list.")
        batcher = RowBatcher(self.data_type, start, self.reject_unknown)
        for row in self.rows:
            if chunk := batcher.add(row):
                yield chunk
        if chunk := batcher.rest():
            yield chunk

    def check_whole(self, start: Start) -> None:
        """By their number, if that is known."""
        if self.total and self.total != start.offset:
            raise not_the_same("rows", self.total, start)

    async def read_next(self, start: Start) -> Chunk | None:
        """Reads one more batch for aio: on the loop, where a caller expects its iterable to run."""
        if not isinstance(self.rows, AsyncIterable):
            return self.pull(start)
        if self._aiterator is None:
            self._aiterator = self._aread(self.rows, start)
        chunk = await anext(self._aiterator, None)
        return None if chunk is None else self.keep(chunk)

    async def _aread(self, rows: AsyncIterable[Row], start: Start) -> AsyncIterator[Chunk]:
        batcher = RowBatcher(self.data_type, start, self.reject_unknown)
        async for row in rows:
            if chunk := batcher.add(row):
                yield chunk
        if chunk := batcher.rest():
            yield chunk
