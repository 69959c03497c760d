"""Reading stored tables back, a row group at a time."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from headrace_compute.model import DataFile, Part, StoreConfig
from headrace_compute.storage.parts import read_part, read_row_groups
from headrace_compute.storage.store import open_store


def column_names(config: StoreConfig, files: Sequence[DataFile]) -> list[str]:
    """The columns of a table version, partition columns last; none if it has no files."""
    if not files:
        return []
    schema = read_row_groups(open_store(config), files[0].key, [], None).schema
    return [*schema.names, *files[0].partition]


def read_ipc(config: StoreConfig, file: DataFile, group: int, columns: Sequence[str], limit: int) -> bytes:
    """At most `limit` rows of one row group as a complete Arrow IPC stream."""
    table = _read(config, file, group, columns, limit)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def read_json(
    config: StoreConfig, file: DataFile, group: int, columns: Sequence[str], limit: int
) -> list[str]:
    """At most `limit` rows of one row group as JSON objects.

    Timestamps are RFC 3339; 64-bit integers are strings, as JSON numbers would lose digits.
    """
    table = _read(config, file, group, columns, limit)
    wide = {field.name for field in table.schema if pa.types.is_int64(field.type)}
    return [
        json.dumps({name: _json_value(value, name in wide) for name, value in row.items()})
        for row in table.to_pylist()
    ]


def read_rejects(config: StoreConfig, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The reject rows of one block, in order of row_number, as plain values."""
    store = open_store(config)
    tables = [read_part(store, part.key) for part in parts]
    if not tables:
        return []
    rows: list[dict[str, Any]] = pa.concat_tables(tables).sort_by("row_number").to_pylist()
    return rows


def _read(config: StoreConfig, file: DataFile, group: int, columns: Sequence[str], limit: int) -> pa.Table:
    stored = [name for name in columns if name not in file.partition]
    table = read_row_groups(open_store(config), file.key, [group], stored)[:limit]
    for name, value in file.partition.items():
        if name in columns:
            table = table.append_column(name, pa.array([value] * table.num_rows))
    return table.select(list(columns))


def _json_value(value: Any, wide: bool) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value) if wide and value is not None else value
