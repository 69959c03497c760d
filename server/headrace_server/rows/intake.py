"""Intake: chunks in, blocks out to the pool, results back in order.

Upload, Validate and the small ingests all take rows in through here; they differ
in what they do with a block's result.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import pyarrow as pa

from headrace.v1 import row_pb2, upload_pb2, validation_pb2
from headrace_compute.columns import CONTRACT
from headrace_compute.errors import PoisonBlockError
from headrace_compute.formats.header import check_header
from headrace_compute.kernels.framing import CsvFramer, Framed, Framer, LineFramer
from headrace_compute.model import Block, DataType, UploadSpec
from headrace_compute.workers.pool import Executor
from headrace_server.rows.blocks import BlockQueue, PersistedBlock, poison
from headrace_server.rpc.bounds import MAX_CHUNK_BYTES
from headrace_server.rpc.requests import invalid

ROWS_PER_BLOCK = 65_536

AnyChunk = upload_pb2.UploadChunk | validation_pb2.ValidateChunk
RowMessage = row_pb2.Interaction | row_pb2.Item


class Intake(Protocol):
    """What a stream's chunks go through.

    Attributes:
        unit: What offsets count.
        received: Stream offset of the next chunk.
    """

    unit: str
    received: int

    @property
    def header(self) -> str:
        """CSV header line; empty before it has come, and for other formats."""

    @property
    def crc32c(self) -> int | None:
        """CRC-32C of the stream up to `received`; None where it is not known, and for rows."""

    def content(self, chunk: AnyChunk) -> Any:
        """A chunk's content, something that can be sliced; InvalidFieldError if it does not fit."""

    async def feed(self, content: Any) -> None:
        """Takes the next content; waits while too many blocks are in flight."""

    async def flush(self) -> None:
        """Sends off what is whole, and waits until it is persisted."""

    async def finish(self) -> None:
        """Sends off the rest, and waits until it is persisted."""


class TextIntake:
    """Cuts a byte stream into blocks of whole records.

    Args:
        framer: Cuts it, from where a resumed stream goes on.
        spec: What the stream's blocks share.
        block_bytes: Bytes that the next block should have.
        blocks: Those that a resumed stream has persisted.
    """

    unit = "bytes"

    def __init__(
        self,
        framer: Framer,
        queue: BlockQueue,
        spec: UploadSpec,
        block_bytes: Callable[[], int],
        blocks: Sequence[PersistedBlock] = (),
    ) -> None:
        self._framer = framer
        self._queue = queue
        self._spec = spec
        self._block_bytes = block_bytes
        self._index = len(blocks)
        self._summed = not blocks or blocks[-1].crc32c is not None
        self.received = framer.offset

    @property
    def header(self) -> str:
        """See Intake."""
        return ""

    @property
    def crc32c(self) -> int | None:
        """CRC-32C of what was received; None if the upload began without one."""
        return self._framer.received_crc32c if self._summed else None

    def content(self, chunk: AnyChunk) -> bytes:
        """A chunk's bytes.

        Raises:
            InvalidFieldError: The chunk is too large, or has rows.
        """
        return bytes_of(chunk, "The stream's format is one of text; send chunk.data or chunk.text.")

    async def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream; waits while too many blocks are in flight."""
        self.received += len(data)
        framing = asyncio.to_thread(self._frame, data)
        del data  # The framer has copied it before anything waits for workers.
        await self._submit(await framing)

    async def flush(self) -> None:
        """Sends off what whole records there are, and waits until they are persisted."""
        await self._submit(await asyncio.to_thread(self._framer.flush, self._block_bytes()))
        await self._queue.drain()

    async def finish(self) -> None:
        """Sends off the rest, ended by a newline or not, and waits until it is persisted."""
        rest = await asyncio.to_thread(self._framer.finish, self._block_bytes())
        await self._check_columns()
        await self._submit(rest)
        await self._queue.drain()

    def _frame(self, data: bytes) -> list[Framed]:
        self._framer.feed(data)
        return self._framer.cut(self._block_bytes())

    async def _submit(self, framed: Sequence[Framed]) -> None:
        for data, shape in framed:
            if shape.rows == 0:
                continue  # Blank lines only.
            await self._check_columns()
            crc32c = shape.crc32c if self._summed else None
            await self._queue.submit(self._spec, shape.block(self._index), data, shape.lines, crc32c)
            self._index += 1

    async def _check_columns(self) -> None:
        """Sees to what must be known of the columns before any block; nothing, where records name them."""


class JsonLinesIntake(TextIntake):
    """Cuts a stream of JSON lines; otherwise as TextIntake."""

    def __init__(
        self,
        queue: BlockQueue,
        spec: UploadSpec,
        block_bytes: Callable[[], int],
        blocks: Sequence[PersistedBlock] = (),
    ) -> None:
        framer = LineFramer(**_behind(blocks[-1])) if blocks else LineFramer()
        super().__init__(framer, queue, spec, block_bytes, blocks)


class CsvIntake(TextIntake):
    """Cuts a CSV stream; otherwise as TextIntake.

    Args:
        spec: What the stream's blocks share; `columns` is filled in from the header line.
        header: Header line of a resumed stream, of which `blocks` are persisted.
    """

    def __init__(
        self,
        pool: Executor,
        queue: BlockQueue,
        spec: UploadSpec,
        block_bytes: Callable[[], int],
        header: str | None = None,
        blocks: Sequence[PersistedBlock] = (),
    ) -> None:
        self._csv = CsvFramer()
        if blocks and header is not None:
            self._csv = CsvFramer(header=header.encode(), **_behind(blocks[-1]))
        super().__init__(self._csv, queue, spec, block_bytes, blocks)
        self._pool = pool
        self._checked = False

    @property
    def header(self) -> str:
        """The header line; empty before it has come."""
        return (self._csv.header or b"").decode()

    async def _check_columns(self) -> None:
        if self._checked:
            return
        header, reject_unknown = self._csv.header or b"", self._spec.reject_unknown
        try:
            columns = await self._pool.run(check_header, self._spec.data_type, header, reject_unknown)
        except PoisonBlockError as error:
            raise poison(Block(0, "csv", 0, len(header), 0, 0, 1), 1) from error
        self._spec = replace(self._spec, columns=columns)
        self._checked = True


def _behind(last: PersistedBlock) -> dict[str, Any]:
    """Where a framer goes on behind the last block of a stream."""
    block = last.result.block
    return {
        "first_row": block.first_row + block.rows,
        "line": block.first_line + last.lines,
        "offset": block.end_offset,
        "crc32c": last.crc32c or 0,
    }


class RowsIntake:
    """Gathers row messages into blocks.

    Args:
        spec: What the stream's blocks share.
        blocks: Those that a resumed stream has persisted.
    """

    unit = "rows"

    def __init__(self, queue: BlockQueue, spec: UploadSpec, blocks: Sequence[PersistedBlock] = ()) -> None:
        self._queue = queue
        self._spec = spec
        self._index = len(blocks)
        self._sent = blocks[-1].result.block.end_offset if blocks else 0
        self._rows: list[RowMessage] = []
        self.header = ""
        self.crc32c = None
        self.received = self._sent

    def content(self, chunk: AnyChunk) -> Sequence[RowMessage]:
        """A chunk's rows.

        Raises:
            InvalidFieldError: The chunk has bytes, or rows of another data type.
        """
        if chunk.WhichOneof("content") in ("data", "text"):
            raise invalid("chunk.rows", "The stream's format is ROWS; send chunk.rows.")
        return rows_of(chunk.rows, self._spec.data_type)

    async def feed(self, rows: Sequence[RowMessage]) -> None:
        """Takes the next rows of the stream; waits while too many blocks are in flight."""
        self.received += len(rows)
        self._rows.extend(rows)
        while len(self._rows) >= ROWS_PER_BLOCK:
            await self._submit(ROWS_PER_BLOCK)

    async def flush(self) -> None:
        """Sends off the rows there are, and waits until they are persisted."""
        if self._rows:
            await self._submit(len(self._rows))
        await self._queue.drain()

    async def finish(self) -> None:
        """Sends off the rest, and waits until it is persisted."""
        await self.flush()

    async def _submit(self, count: int) -> None:
        rows, self._rows = self._rows[:count], self._rows[count:]
        payload = await asyncio.to_thread(to_arrow, rows, self._spec.data_type)
        end = self._sent + len(rows)
        block = Block(
            index=self._index,
            format="rows",
            offset=self._sent,
            end_offset=end,
            first_row=self._sent,
            rows=len(rows),
            first_line=0,
        )
        await self._queue.submit(self._spec, block, payload, 0)
        self._index += 1
        self._sent = end


def bytes_of(chunk: AnyChunk, not_rows: str) -> bytes:
    """The bytes of a chunk.

    Args:
        not_rows: What to say if it has rows.

    Raises:
        InvalidFieldError: It is too large, or has rows.
    """
    if chunk.WhichOneof("content") == "rows":
        raise invalid("chunk.rows", not_rows)
    data = chunk.data or chunk.text.encode()
    if len(data) > MAX_CHUNK_BYTES:
        raise invalid("chunk.data", f"The chunk has {len(data):,} bytes; send at most {MAX_CHUNK_BYTES:,}.")
    return data


def rows_of(batch: row_pb2.RowBatch, data_type: DataType) -> Sequence[RowMessage]:
    """The rows of a batch, which must be of one data type.

    Raises:
        InvalidFieldError: The batch has rows of the other data type.
    """
    rows: dict[DataType, Sequence[RowMessage]] = {"interactions": batch.interactions, "items": batch.items}
    for other in rows.keys() - {data_type}:
        if rows[other]:
            raise invalid(f"chunk.rows.{other}", f"The stream takes {data_type}; leave rows.{other} empty.")
    return rows[data_type]


def to_arrow(rows: Sequence[RowMessage], data_type: DataType) -> pa.Table:
    """Row messages as a table of raw values: strings as they came, numbers null where unset."""
    columns = {}
    for name, kind in CONTRACT[data_type].items():
        if kind == "double":
            # HasField's type is a literal of each message's own fields.
            has = [cast(Any, row).HasField(name) for row in rows]
            values = [getattr(row, name) if given else None for row, given in zip(rows, has, strict=True)]
            columns[name] = pa.array(values, pa.float64())
        else:
            columns[name] = pa.array([getattr(row, name) for row in rows], pa.string())
    return pa.table(columns)
