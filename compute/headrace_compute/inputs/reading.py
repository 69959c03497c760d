"""Reading stored tables back, a row group at a time."""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa

from headrace_compute.inputs.structs import encode_structs
from headrace_compute.model import ROW_GROUP_ROWS, DataFile, Part, Piece, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.pages import paged
from headrace_compute.parts import read_first_rows, read_part, read_row_groups


def columns_of(config: StoreConfig, files: Sequence[DataFile]) -> pa.Schema:
    """The columns of a table version as they are sent, partition columns last; none if it has no files."""
    if not files:
        return pa.schema([])
    schema = read_row_groups(open_store(config), files[0].key, [], None).schema
    for name, value in files[0].partition.items():
        schema = schema.append(pa.field(name, pa.array([value]).type))
    return schema


def pieces_of(files: Sequence[DataFile], offset: int, limit: int) -> Iterator[Piece]:
    """The rows from `offset` on, at most `limit`, in the order of the files.

    Files and row groups before and behind them have no piece, so nobody reads them.
    """
    for file in files:
        while offset < file.rows and limit:
            group, first = divmod(offset, ROW_GROUP_ROWS)
            rows = min(ROW_GROUP_ROWS - first, file.rows - offset, limit)
            yield Piece(file, group, first, rows)
            offset, limit = offset + rows, limit - rows
        offset -= file.rows


def read_ipc(config: StoreConfig, piece: Piece, columns: Sequence[str]) -> list[bytes]:
    """Rows as whole Arrow IPC streams, each a page.

    Raises:
        RowTooLargeError: A row is larger than a page may be.
    """
    table = _read(config, piece, columns)
    return paged(0, table.num_rows, lambda first, count: _stream(table.slice(first, count)), len)


def no_rows(schema: pa.Schema) -> bytes:
    """An Arrow IPC stream that has columns and a batch without rows."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([], schema))
    return bytes(sink.getvalue())


def _stream(table: pa.Table, compression: Literal["zstd"] | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def read_structs(config: StoreConfig, piece: Piece, columns: Sequence[str], page_rows: int) -> list[bytes]:
    """Rows as pages of Structs, `page_rows` in each; see `unpacked`.

    Pages are packed, because a read that its client does not take holds them: to a twentieth, where rows are
    like each other.

    Raises:
        RowTooLargeError: A row is larger than a page may be.
    """
    rows = encode_structs(_read(config, piece, columns))
    starts = range(0, len(rows), page_rows)
    return [zlib.compress(page, 1) for start in starts for page in _joined(rows[start : start + page_rows])]


def _joined(rows: Sequence[bytes]) -> list[bytes]:
    """Encoded rows as pages, cut where one would be too large."""
    return paged(0, len(rows), lambda first, count: b"".join(rows[first : first + count]), len)


def unpacked(page: bytes) -> bytes:
    """The rows of a page: a message whose field 1 repeats Structs, in its wire format."""
    return zlib.decompress(page)


def read_rejects(config: StoreConfig, parts: Sequence[Part], group: int, limit: int) -> list[bytes]:
    """At most `limit` of the reject rows of one block, in order of row_number, in pages; see `reject_rows`.

    Pages are packed, because a call that its client does not read holds them.

    Args:
        parts: Where they are; one part is in order already.
        group: Which ROW_GROUP_ROWS of them to read.
        limit: The most of these.
    """
    store = open_store(config)
    if len(parts) == 1:
        table = read_first_rows(store, parts[0].key, group, limit)
    else:
        tables = [read_part(store, part.key) for part in parts]
        table = pa.concat_tables(tables).sort_by("row_number")
        table = table.slice(group * ROW_GROUP_ROWS, min(limit, ROW_GROUP_ROWS))
    pieces = paged(0, table.num_rows, table.slice, lambda piece: int(piece.nbytes))
    return [_stream(piece, "zstd") for piece in pieces]


def reject_rows(page: bytes) -> list[dict[str, Any]]:
    """The reject rows of a page, as plain values: as such they take several times their text."""
    rows: list[dict[str, Any]] = pa.ipc.open_stream(page).read_all().to_pylist()
    return rows


def _read(config: StoreConfig, piece: Piece, columns: Sequence[str]) -> pa.Table:
    stored = [name for name in columns if name not in piece.file.partition]
    group = read_row_groups(open_store(config), piece.file.key, [piece.group], stored)
    table = group.slice(piece.first, piece.rows)
    for name, value in piece.file.partition.items():
        if name in columns:
            table = table.append_column(name, pa.array([value] * table.num_rows))
    return table.select(list(columns))
