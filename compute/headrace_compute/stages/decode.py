"""Decoding a staged stream: blocks, one after another, each beginning where the last one ended.

`decode` runs in a decoder process of its own, which holds a decompressor or an
Arrow reader between blocks; what it yields goes to the workers. Blocks depend
on the stream and on where the first one begins, so decoding can be given up
after any block and go on behind it in another process. Parquet has no need of
this: see `parquet.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headrace_compute.errors import BadEncodingError, CorruptStreamError, HeadraceError, TooLargeError
from headrace_compute.kernels.framing import Framed, Framer
from headrace_compute.kernels.magic import describe_start
from headrace_compute.model import Block, Position, StagedSource, StoreConfig
from headrace_compute.schemas.contract import ColumnContract
from headrace_compute.stages.arrow import check_schema, made_safe, raw_table, row_bytes
from headrace_compute.stages.decompress import decoded_limit, decompress
from headrace_compute.stages.header import read_header
from headrace_compute.storage.spool import SpooledFile
from headrace_compute.storage.store import open_store

ROWS_A_BLOCK = 131_072
"""Most rows of a block of Arrow rows; short ones do not fill it with bytes."""

MIN_ROW_BYTES = 16
"""What a row counts for, at least, against the limit on decoded bytes."""

_FILE = b"ARROW1\x00\x00"
_STREAM = (b"\xff\xff\xff\xff", b"\x10\x00\x00\x00", b"\x00")
"""How an Arrow IPC file begins, and how streams do."""


@dataclass(frozen=True)
class Decoded:
    """A block that was decoded; its payload goes beside it.

    Attributes:
        columns: The stream's column names.
        lines: Lines the block covers.
    """

    block: Block
    columns: tuple[str, ...]
    lines: int

    @property
    def end(self) -> Position:
        """Where the next block begins."""
        block = self.block
        line = block.first_line + self.lines
        return Position(block.index + 1, block.end_offset, block.first_row + block.rows, line)


Item = tuple[Decoded, Any]
"""A block and its payload."""


def decode(
    config: StoreConfig, start: Position, source: StagedSource, contract: Sequence[ColumnContract]
) -> Iterator[Item]:
    """Decodes a compressed CSV or an Arrow IPC stream from `start` on.

    Raises:
        InvalidDataError: The stream cannot be decoded, or its columns are not the contract's.
        StoreUnavailableError: A staged object cannot be read.
    """
    file = SpooledFile(open_store(config), source.objects)
    if source.format == "csv":
        yield from _decode_csv(file, source, contract, start)
    else:
        yield from _decode_arrow(file, source, contract, start)


def _decode_csv(
    file: SpooledFile, source: StagedSource, contract: Sequence[ColumnContract], start: Position
) -> Iterator[Item]:
    pieces = decompress(file, source.compression)
    framer, target = Framer(), source.block_bytes
    early: list[bytes] = []
    for piece in pieces:
        early.append(piece)
        framer.feed(piece)
        first = framer.cut(target)
        if framer.header is not None:
            break
    else:
        first = framer.finish(target)
    columns = read_header(contract, framer.header or b"", source.reject_unknown)
    if start.index:
        framer = Framer(first_row=start.row, line=start.line, offset=start.offset, header=framer.header)
        first = []
        pieces = _skip(_chain(early, pieces), start.offset)
    index = start.index
    for framed in _frames(framer, first, pieces, target):
        if framed[1].rows:
            yield _csv_block(index, framed, columns), framed[0]
            index += 1


def _frames(framer: Framer, first: list[Framed], pieces: Iterator[bytes], target: int) -> Iterator[Framed]:
    yield from first
    for piece in pieces:
        framer.feed(piece)
        yield from framer.cut(target)
    yield from framer.finish(target)


def _csv_block(index: int, framed: Framed, columns: tuple[str, ...]) -> Decoded:
    shape = framed[1]
    return Decoded(shape.block(index), columns, shape.lines)


def _chain(early: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    while early:
        yield early.pop(0)
    yield from rest


def _skip(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))


def _decode_arrow(
    file: SpooledFile, source: StagedSource, contract: Sequence[ColumnContract], start: Position
) -> Iterator[Item]:
    try:
        reader = ArrowReader(file)
        columns = check_schema(reader.schema, contract, source.reject_unknown)
        names = [column.name for column in contract if column.name in columns]
        tables = _safe_tables(reader.batches(names), contract, start.row, decoded_limit(file.size))
        at = start
        for table in whole_blocks(tables, source.block_bytes):
            decoded = Decoded(arrow_block(at.index, at.row, table.num_rows), columns, 0)
            yield decoded, table
            at = decoded.end
    except HeadraceError:
        raise
    except MemoryError:
        raise too_large_batch() from None
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise corrupt("Arrow IPC", error) from None


class ArrowReader:
    """An Arrow IPC stream or file, batch by batch.

    Raises:
        BadEncodingError: It is neither.
        CorruptStreamError: It has no end marker, or something behind it.
    """

    def __init__(self, file: SpooledFile) -> None:
        self._file = file
        start = file.read(16)
        self._is_file = start.startswith(_FILE)
        if not self._is_file and not start.startswith(_STREAM):
            raise BadEncodingError(
                f"The stream begins with {describe_start(start)}, which is no Arrow IPC stream or file; "
                "name the format of the data in the header.",
                {"found": describe_start(start)},
            )
        self.schema = self._open(None).schema

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The batches with some of the columns; the others are not read."""
        fields = sorted(self.schema.get_field_index(name) for name in names)
        reader = self._open(fields)
        if self._is_file:
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
            return
        self._file.ended = False
        while True:
            try:
                yield reader.read_next_batch()
            except StopIteration:
                break
        # The reader takes the end of the bytes for the end of the stream.
        if self._file.ended:
            raise CorruptStreamError(
                f"The Arrow IPC stream ends at byte {self._file.size:,} without its end marker, so rows may "
                "be missing; close the writer, and send all that it wrote.",
                {"format": "Arrow IPC"},
            )
        if self._file.tell() != self._file.size:
            raise CorruptStreamError(
                f"The Arrow IPC stream ends at byte {self._file.tell():,}, and {self._file.size:,} were "
                "sent; send one stream for each upload.",
                {"format": "Arrow IPC"},
            )

    def _open(self, fields: list[int] | None) -> Any:
        self._file.seek(0)
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
        source = pa.PythonFile(self._file, mode="r")
        if self._is_file:
            return pa.ipc.open_file(source, options=options)
        return pa.ipc.open_stream(source, options=options)


def _safe_tables(
    batches: Iterator[pa.RecordBatch], contract: Sequence[ColumnContract], first_row: int, limit: int
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Batches made safe, with the weights of their rows, from `first_row` on."""
    row = total = 0
    for batch in batches:
        total += batch.num_rows * MIN_ROW_BYTES
        check_decoded(total, limit, "Arrow IPC")
        if row + batch.num_rows > first_row:
            safe = made_safe(batch, contract)
            weights = row_bytes(safe, row)
            total += int(weights.sum()) - batch.num_rows * MIN_ROW_BYTES
            check_decoded(total, limit, "Arrow IPC")
            skipped = max(0, first_row - row)
            yield safe.slice(skipped), weights[skipped:]
        row += batch.num_rows


def whole_blocks(
    batches: Iterator[tuple[pa.RecordBatch, np.ndarray]], target_bytes: int
) -> Iterator[pa.Table]:
    """Cuts and joins batches into raw tables of about `target_bytes`, of 1 to ROWS_A_BLOCK rows.

    Args:
        batches: Safe batches, each with the weights of its rows.
    """
    pending: list[pa.Table] = []
    room_bytes, room_rows = target_bytes, ROWS_A_BLOCK
    for batch, weights in batches:
        ends = np.cumsum(weights)
        at = 0
        while at < batch.num_rows:
            used = int(ends[at - 1]) if at else 0
            fit = min(int(np.searchsorted(ends, used + room_bytes, "right")) - at, room_rows)
            if fit <= 0 and pending:
                yield _joined(pending)
                pending, room_bytes, room_rows = [], target_bytes, ROWS_A_BLOCK
                continue
            fit = max(fit, 1)
            pending.append(raw_table(batch.slice(at, fit)))
            at += fit
            room_bytes -= int(ends[at - 1]) - used
            room_rows -= fit
    if pending:
        yield _joined(pending)


def arrow_block(index: int, first_row: int, rows: int) -> Block:
    """A block of Arrow rows; its offsets count rows."""
    return Block(
        index=index,
        format="arrow",
        offset=first_row,
        end_offset=first_row + rows,
        first_row=first_row,
        rows=rows,
        first_line=0,
    )


def check_decoded(total_bytes: int, limit: int, name: str) -> None:
    """Refuses what decodes to more than `decoded_limit`.

    Raises:
        TooLargeError: It does.
    """
    if total_bytes > limit:
        raise TooLargeError(
            f"The {name} data decode to more than {limit:,} bytes, the limit for a file of this size; split "
            "it, or write it with less compression.",
            {"what": "decoded bytes", "limit": str(limit)},
        )


def too_large_batch() -> TooLargeError:
    """The error for data whose decoding needs more memory than a process may have."""
    return TooLargeError(
        "A part of the file needs more memory to decode than a worker may use; write smaller record batches "
        "or row groups.",
        {"what": "memory", "limit": "that of a worker"},
    )


def corrupt(name: str, error: Exception) -> CorruptStreamError:
    """The error for data that a library refuses, without what it says of our files."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return CorruptStreamError(
        f"The {name} data cannot be decoded: {reason.rstrip('.')}. Write the file again, and send all of it.",
        {"format": name},
    )


def _joined(tables: list[pa.Table]) -> pa.Table:
    """One table with buffers of its own, so that it does not carry the batch it was cut from."""
    table = pa.concat_tables(tables).combine_chunks()
    return table if len(tables) > 1 else table.take(pa.array(np.arange(table.num_rows)))
