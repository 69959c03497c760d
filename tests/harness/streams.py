"""The same rows as CSV, compressed, Arrow and Parquet; and staged streams, for tests below the server."""

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import xxhash

from headrace_compute.formats.decode import decode
from headrace_compute.model import (
    Block,
    Compression,
    DataType,
    Position,
    StagedObject,
    StagedSource,
    StoreConfig,
    StreamFormat,
)
from headrace_compute.schemas.contract import describe

INTERACTIONS = ("user_id", "item_id", "interaction_type", "timestamp", "rating")
ITEMS = ("item_id", "title", "category", "price", "brand", "description")

Row = Mapping[str, Any]

Blocks = list[tuple[Block, tuple[str, ...], Any]]


def staged(
    root: Path,
    data: bytes,
    format: StreamFormat,
    compression: Compression = "none",
    data_type: DataType = "interactions",
    piece_bytes: int = 1000,
    block_bytes: int = 1 << 20,
    reject_unknown: bool = False,
) -> tuple[StoreConfig, StagedSource]:
    """A stream in a store below `root`, in pieces."""
    config = StoreConfig(root=str(root))
    objects = []
    for offset in range(0, len(data), piece_bytes):
        piece = data[offset : offset + piece_bytes]
        key = f"raw-data/_headrace/{xxhash.xxh64_hexdigest(data)}/{offset:016d}"
        # Not by the store, which waits for the disk: pieces of a byte are thousands of objects.
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(piece)
        objects.append(StagedObject(key, offset, offset + len(piece), xxhash.xxh128_hexdigest(piece), 0))
    source = StagedSource(format, compression, data_type, tuple(objects), reject_unknown, block_bytes)
    return config, source


def decoded(config: StoreConfig, source: StagedSource, start: Position | None = None) -> Blocks:
    """What decoding a staged stream gives: block, columns and payload."""
    found = decode(config, start or Position(), source, describe(source.data_type).columns)
    return [(each.block, each.columns, payload) for each, payload in found]


def csv_bytes(rows: Sequence[Row], columns: Sequence[str] = INTERACTIONS) -> bytes:
    """Rows as CSV; None is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def json_lines(rows: Sequence[Row]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table_of(rows: Sequence[Row], columns: Sequence[str] = INTERACTIONS) -> pa.Table:
    """Rows as Arrow: text as strings, rating and price as doubles."""
    arrays = []
    for name in columns:
        kind = pa.float64() if name in ("rating", "price") else pa.string()
        arrays.append(pa.array([row.get(name) for row in rows], kind))
    return pa.table(arrays, list(columns))


def ipc_stream(table: pa.Table, rows_per_batch: int = 100, **options: Any) -> bytes:
    """An Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return sink.getvalue()


def ipc_file(table: pa.Table, rows_per_batch: int = 100, **options: Any) -> bytes:
    """An Arrow IPC file."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return sink.getvalue()


def parquet(table: pa.Table, rows_per_group: int = 100, **options: Any) -> bytes:
    """A Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows_per_group, **options)
    return sink.getvalue()


class _Keys(encryption.KmsClient):  # type: ignore[misc]
    """A key service that wraps keys in nothing."""

    def __init__(self, _: encryption.KmsConnectionConfig) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> str:
        return key.hex()

    def unwrap_key(self, wrapped: str, _: str) -> bytes:
        return bytes.fromhex(wrapped)


def encrypted_parquet(table: pa.Table, *columns: str, plaintext_footer: bool = True) -> bytes:
    """A Parquet file some columns of which are encrypted, and its footer if that is not plain."""
    how = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": list(columns)}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(_Keys)
    return parquet(
        table,
        encryption_properties=factory.file_encryption_properties(encryption.KmsConnectionConfig(), how),
    )


def zstd(data: bytes) -> bytes:
    """One zstd frame."""
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def compress(data: bytes, compression: Compression) -> bytes:
    """Data, compressed or not."""
    return {"none": lambda: data, "gzip": lambda: gzip.compress(data, 1), "zstd": lambda: zstd(data)}[
        compression
    ]()
