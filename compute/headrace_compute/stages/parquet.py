"""Parquet from outside: planned from its footer, then read by the workers, each its own rows.

A plan depends on the footer and on where it begins, so reading can be given up
after any block and go on behind it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from headrace_compute.errors import BadEncodingError, CorruptStreamError, HeadraceError, TooLargeError
from headrace_compute.kernels.magic import describe_start
from headrace_compute.model import Position, StagedSource, StoreConfig
from headrace_compute.schemas.contract import describe
from headrace_compute.stages.arrow import check_schema, made_safe, raw_table, row_bytes
from headrace_compute.stages.decode import MIN_ROW_BYTES, check_decoded, corrupt, too_large_batch
from headrace_compute.stages.decompress import decoded_limit
from headrace_compute.storage.spool import SpooledFile
from headrace_compute.storage.store import open_store

ROWS_A_PIECE = 262_144
"""Most rows of a piece. A reader must decode what precedes its rows in their row group."""

PIECE_BLOCKS = 4
"""How many blocks of CSV a piece may weigh, by the footer, for the same reason."""

MAX_PIECE_BYTES = 256 << 20
"""Decoded text of a piece: repeated values may weigh far more than the footer says."""

_BATCH_ROWS = 65_536
_MAX_FOOTER_STRINGS = 16 << 20
_MAX_FOOTER_ITEMS = 1 << 20
_MAGIC = b"PAR1"


@dataclass(frozen=True)
class ParquetPiece:
    """Some rows of one row group: the payload of a block.

    Attributes:
        start, rows: The rows of it, counted in the row group.
        first_row: row_number of the first.
    """

    source: StagedSource
    group: int
    start: int
    rows: int
    first_row: int


@dataclass(frozen=True)
class ParquetPlan:
    """How to read a file: its column names, and its pieces in the order of their rows."""

    columns: tuple[str, ...]
    pieces: tuple[ParquetPiece, ...]


def plan_parquet(config: StoreConfig, source: StagedSource, start: Position) -> ParquetPlan:
    """Plans the reading of a staged Parquet file from row `start.row` on.

    Raises:
        BadEncodingError: It is no Parquet.
        CorruptStreamError: Its footer cannot be read, or contradicts itself.
        TooLargeError: It has, or decodes to, more than is allowed.
        InvalidDataError: Its columns are not the contract's.
    """
    contract = describe(source.data_type).columns
    with _opened(config, source) as file:
        columns = check_schema(file.schema_arrow, contract, source.reject_unknown)
        wanted = {column.name for column in contract}
        limit = decoded_limit(source.size_bytes)
        check_decoded(file.metadata.num_rows * MIN_ROW_BYTES, limit, "Parquet")
        pieces, row, total = [], 0, 0
        for group in range(file.metadata.num_row_groups):
            rows, nbytes = _measure(file.metadata.row_group(group), wanted)
            total += max(nbytes, rows * MIN_ROW_BYTES)
            check_decoded(total, limit, "Parquet")
            pieces += list(_cut(source, group, row, rows, nbytes, start.row))
            row += rows
        if row != file.metadata.num_rows:
            error = f"the footer says {file.metadata.num_rows} rows, its row groups {row}"
            raise corrupt("Parquet", ValueError(error))
    return ParquetPlan(columns, tuple(pieces))


def read_piece(config: StoreConfig, piece: ParquetPiece) -> pa.Table:
    """Reads a piece as a raw table, as `arrow.raw_table` makes it.

    Raises:
        CorruptStreamError: The row group cannot be decoded, or lacks rows.
        TooLargeError: The rows weigh more than MAX_PIECE_BYTES.
        RecordTooLargeError: A record is above the limit.
    """
    contract = describe(piece.source.data_type).columns
    tables: list[pa.Table] = []
    left, skip, total = piece.rows, piece.start, 0
    with _opened(config, piece.source) as file:
        names = [column.name for column in contract if column.name in file.schema_arrow.names]
        batches = file.iter_batches(_BATCH_ROWS, row_groups=[piece.group], columns=names, use_threads=False)
        for batch in batches:
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            batch = batch.slice(skip, left)
            safe = made_safe(batch, contract)
            total += int(row_bytes(safe, piece.first_row + piece.rows - left).sum())
            if total > MAX_PIECE_BYTES:
                raise _too_heavy(piece)
            tables.append(raw_table(safe))
            left, skip = left - batch.num_rows, 0
            if not left:
                break
        if left:
            raise corrupt("Parquet", ValueError(f"row group {piece.group} lacks {left} of its rows"))
    return pa.concat_tables(tables).combine_chunks()


@contextmanager
def _opened(config: StoreConfig, source: StagedSource) -> Iterator[pq.ParquetFile]:
    """A staged file open for reading; whatever is wrong with its bytes is the client's fault."""
    spooled = SpooledFile(open_store(config), source.objects)
    start = spooled.read(len(_MAGIC))
    if start != _MAGIC:
        raise BadEncodingError(
            f"The stream begins with {describe_start(start)}, which is no Parquet; "
            "name the format of the data in the header.",
            {"found": describe_start(start)},
        )
    try:
        yield pq.ParquetFile(
            pa.PythonFile(spooled, mode="r"),
            pre_buffer=True,
            thrift_string_size_limit=_MAX_FOOTER_STRINGS,
            thrift_container_size_limit=_MAX_FOOTER_ITEMS,
            page_checksum_verification=True,
        )
    except HeadraceError:
        raise
    except MemoryError:
        raise too_large_batch() from None
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise corrupt("Parquet", error) from None


def _measure(group: pq.RowGroupMetaData, wanted: set[str]) -> tuple[int, int]:
    """Rows of a row group and, as the footer says, bytes of its wanted columns."""
    columns = [group.column(place) for place in range(group.num_columns)]
    sizes = [
        column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] in wanted
    ]
    if group.num_rows < 0 or any(size < 0 for size in sizes):
        raise CorruptStreamError("The Parquet footer has negative sizes.", {"format": "Parquet"})
    return group.num_rows, sum(sizes)


def _cut(
    source: StagedSource, group: int, first_row: int, rows: int, nbytes: int, start_row: int
) -> Iterator[ParquetPiece]:
    """The pieces of a row group that begins at `first_row`, from `start_row` on."""
    row_bytes_mean = max(nbytes, rows * MIN_ROW_BYTES) / max(rows, 1)
    step = max(1, min(ROWS_A_PIECE, int(PIECE_BLOCKS * source.block_bytes / row_bytes_mean)))
    at = max(0, start_row - first_row)
    while at < rows:
        count = min(step, rows - at)
        yield ParquetPiece(source, group, at, count, first_row + at)
        at += count


def _too_heavy(piece: ParquetPiece) -> TooLargeError:
    return TooLargeError(
        f"Rows {piece.first_row:,} to {piece.first_row + piece.rows - 1:,} of the Parquet file hold more "
        f"than {MAX_PIECE_BYTES:,} bytes of text; write it with smaller row groups.",
        {"what": "decoded bytes", "limit": str(MAX_PIECE_BYTES)},
    )
