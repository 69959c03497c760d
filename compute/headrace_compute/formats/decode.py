"""Decoding a staged stream: blocks, one after another, each beginning where the last one ended.

`decode` runs in a decoder process of its own, which holds a decompressor or a
reader of Arrow or Parquet between blocks; what it yields goes to the workers. Blocks depend
on the stream and on where the first one begins, so decoding can be given up
after any block and go on behind it in another process.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headrace_compute.errors import HeadraceError
from headrace_compute.formats.arrow import check_schema, made_safe, raw_table, row_bytes
from headrace_compute.formats.decompress import decoded_limit, decompress
from headrace_compute.formats.faults import MIN_ROW_BYTES, check_decoded, corrupt, too_large_batch
from headrace_compute.formats.header import read_header
from headrace_compute.formats.ipc import ArrowReader
from headrace_compute.formats.parquet import ParquetReader
from headrace_compute.kernels.framing import CsvFramer, Framed, Framer, LineFramer
from headrace_compute.model import Block, Position, StagedSource, StoreConfig
from headrace_compute.objects.spool import SpooledFile
from headrace_compute.objects.store import open_store
from headrace_compute.schemas.contract import ColumnContract

ROWS_PER_BLOCK = 131_072
"""Limit on the rows of an Arrow block: short rows reach it before the limit on bytes."""


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
    """Decodes compressed CSV or JSON lines, Arrow IPC or Parquet, from `start` on.

    Raises:
        InvalidDataError: The stream cannot be decoded, or its columns are not the contract's.
        StoreUnavailableError: A staged object cannot be read.
    """
    file = SpooledFile(open_store(config), source.objects)
    if source.format == "csv":
        yield from _decode_csv(file, source, contract, start)
    elif source.format == "json_lines":
        yield from _decode_json_lines(file, source, start)
    else:
        yield from _decode_columns(file, source, contract, start)


def _decode_csv(
    file: SpooledFile, source: StagedSource, contract: Sequence[ColumnContract], start: Position
) -> Iterator[Item]:
    pieces = decompress(file, source.compression)
    framer, target = CsvFramer(packed=source.compression), source.block_bytes
    early: list[bytes] = []
    for piece in pieces:
        early.append(piece)
        framer.feed(piece)
        first = framer.cut(target)
        if framer.header is not None:
            break
    else:
        first = framer.finish(target)
    columns = read_header(contract, framer.header or b"", source.reject_unknown, source.compression)
    if start.index:
        framer = CsvFramer(first_row=start.row, line=start.line, offset=start.offset, header=framer.header)
        first = []
        pieces = _skip(_chain(early, pieces), start.offset)
    yield from _text_blocks(framer, first, pieces, source, start.index, columns)


def _decode_json_lines(file: SpooledFile, source: StagedSource, start: Position) -> Iterator[Item]:
    line, packed = max(start.line, 1), source.compression
    framer = LineFramer(first_row=start.row, line=line, offset=start.offset, packed=packed)
    pieces = _skip(decompress(file, source.compression), start.offset)
    yield from _text_blocks(framer, [], pieces, source, start.index, ())


def _text_blocks(
    framer: Framer,
    first: list[Framed],
    pieces: Iterator[bytes],
    source: StagedSource,
    index: int,
    columns: tuple[str, ...],
) -> Iterator[Item]:
    """Blocks of the records that are to come, behind those that were framed first."""
    for data, shape in _frames(framer, first, pieces, source.block_bytes):
        if shape.rows:
            yield Decoded(shape.block(index), columns, shape.lines), data
            index += 1


def _frames(framer: Framer, first: list[Framed], pieces: Iterator[bytes], target: int) -> Iterator[Framed]:
    yield from first
    for piece in pieces:
        framer.feed(piece)
        yield from framer.cut(target)
    yield from framer.finish(target)


def _chain(early: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    while early:
        yield early.pop(0)
    yield from rest


def _skip(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))


def _decode_columns(
    file: SpooledFile, source: StagedSource, contract: Sequence[ColumnContract], start: Position
) -> Iterator[Item]:
    """Decodes Arrow IPC or Parquet; whatever is wrong with the bytes is the client's fault."""
    kind = ParquetReader if source.format == "parquet" else ArrowReader
    try:
        reader = kind(file)
        columns = check_schema(reader.schema, contract, source.reject_unknown)
        names = [column.name for column in contract if column.name in columns]
        at = start
        for table in whole_blocks(
            _safe_tables(reader, names, contract, start.row, file.size), source.block_bytes
        ):
            decoded = Decoded(arrow_block(at.index, at.row, table.num_rows), columns, 0)
            yield decoded, table
            at = decoded.end
    except HeadraceError:
        raise
    except MemoryError:
        raise too_large_batch() from None
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise corrupt(kind.name, error) from None


def _safe_tables(
    reader: ArrowReader | ParquetReader,
    names: Sequence[str],
    contract: Sequence[ColumnContract],
    first_row: int,
    size_bytes: int,
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Batches made safe, with the weights of their rows, from `first_row` on."""
    limit, weighed = decoded_limit(size_bytes), 0
    for row, batch in reader.batches(names, first_row):
        # Rows before the first count too, though nobody weighs them.
        check_decoded((row + batch.num_rows) * MIN_ROW_BYTES + weighed, limit, reader.name)
        if row + batch.num_rows > first_row:
            safe = made_safe(batch, contract)
            weights = row_bytes(safe, row)
            weighed += int(weights.sum()) - batch.num_rows * MIN_ROW_BYTES
            check_decoded((row + batch.num_rows) * MIN_ROW_BYTES + weighed, limit, reader.name)
            skipped = max(0, first_row - row)
            yield safe.slice(skipped), weights[skipped:]


def whole_blocks(
    batches: Iterator[tuple[pa.RecordBatch, np.ndarray]], target_bytes: int
) -> Iterator[pa.Table]:
    """Cuts and joins batches into raw tables of about `target_bytes`, of 1 to ROWS_PER_BLOCK rows.

    Args:
        batches: Safe batches, each with the weights of its rows.
    """
    pending: list[pa.Table] = []
    room_bytes, room_rows = target_bytes, ROWS_PER_BLOCK
    for batch, weights in batches:
        ends = np.cumsum(weights)
        at = 0
        while at < batch.num_rows:
            used = int(ends[at - 1]) if at else 0
            fit = min(int(np.searchsorted(ends, used + room_bytes, "right")) - at, room_rows)
            if fit <= 0 and pending:
                yield _joined(pending)
                pending, room_bytes, room_rows = [], target_bytes, ROWS_PER_BLOCK
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


def _joined(tables: list[pa.Table]) -> pa.Table:
    """One table with buffers of its own, so that it does not carry the batch it was cut from."""
    table = pa.concat_tables(tables).combine_chunks()
    return table if len(tables) > 1 else table.take(pa.array(np.arange(table.num_rows)))
