"""Tables: any object with Arrow's C interface, encoded as an Arrow IPC stream."""

from collections.abc import Collection, Iterator

from headrace.arrow import pa
from headrace.source.capsule import ArrowData
from headrace.source.chunk import CHUNK_BYTES, Chunk, Start
from headrace.source.frame import FAULTS, Frame, frame_table
from headrace.source.once import OnceSource

BATCH_ROWS = 65_536
"""Rows of a record batch at most, so that a few chunks carry it."""


class TableSource(OnceSource):
    """The Arrow IPC stream of a table, encoded as it is sent.

    Equal batches give equal bytes, so an upload can be resumed with the table made anew.

    Args:
        data: The table.
        wanted: The contract's columns.

    Attributes:
        rows: How many it has; 0 when unknown.

    Raises:
        TypeError: It does not speak Arrow.
        BadDataError: A wanted column of a frame cannot be converted to Arrow.
    """

    def __init__(self, data: ArrowData, wanted: Collection[str] = ()) -> None:
        super().__init__()
        self._reader = reader_of(data, wanted)
        self.rows = 0
        if isinstance(data, pa.Table):
            self.rows = data.num_rows
            self.total = encoded_bytes(data)

    def read(self, start: Start) -> Iterator[Chunk]:
        """The encoded bytes."""
        offset = 0
        limit_bytes = min(start.limit_bytes, CHUNK_BYTES)
        for piece in ipc_pieces(self._reader):
            for begin in range(0, len(piece), limit_bytes):
                content = piece[begin : begin + limit_bytes]
                yield Chunk(offset, offset + len(content), content)
                offset += len(content)


def reader_of(data: ArrowData, wanted: Collection[str] = ()) -> pa.RecordBatchReader:
    """The batches of a table.

    Args:
        wanted: The contract's columns: of a frame that cannot be converted whole, they alone must be.

    Raises:
        TypeError: It does not speak Arrow.
        BadDataError: A wanted column of a frame cannot be converted to Arrow.
    """
    if isinstance(data, pa.RecordBatchReader):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(data.schema, [data])
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pa.RecordBatchReader.from_stream(data)
        except FAULTS:
            if not isinstance(data, Frame):
                raise
            return frame_table(data, wanted).to_reader()
    raise TypeError(
        f"Expected a table, got a {type(data).__name__}, which does not speak Arrow; give a pyarrow.Table"
        " or RecordBatchReader, or a frame of polars or of pandas 2.2 or newer;"
        " rows are for upload_rows, files for upload."
    )


def encoded_bytes(table: pa.Table) -> int:
    """Bytes of a table's IPC stream, found without making it."""
    sink = pa.MockOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in _bounded(table.to_reader()):
            writer.write_batch(batch)
    return int(sink.size())


def ipc_pieces(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    """The IPC stream of batches, a piece for each."""
    sink = _Pieces()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), reader.schema) as writer:
        for batch in _bounded(reader):
            writer.write_batch(batch)
            yield sink.take()
    # The schema of a table without rows, and the end marker, without which a stream counts as cut.
    yield sink.take()


def _bounded(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        for begin in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(begin, BATCH_ROWS)


class _Pieces:
    """A file to write to, whose content is taken away piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self._size_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size_bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
