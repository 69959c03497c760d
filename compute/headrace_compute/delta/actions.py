"""Actions: what a version does, and its log file written by hand: one small object, created, is the commit.

deltalake's commit loads the table first and spends 16 ms on what one create does in two [measured].
Appends need no table state: a blind append conflicts only with a change of the layout, which
every reader of the log notices. The format is Delta's, protocol versions 1 and 2.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from deltalake.transaction import AddAction

from headrace_compute.model import DataFile, Part

ENGINE = "headrace"

WRITER_VERSION = 2
"""Highest Delta writer protocol whose rules our log files keep: blind appends, and merges of files."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Bound = str | int | float


def add_action(
    table_key: str, part: Part, schema: pa.Schema, partition: Mapping[str, str], *, data_change: bool = True
) -> AddAction:
    """The action that adds a part to a table.

    Args:
        schema: Columns of the table.
        partition: Value of each partition column, as Delta writes it; in a partitioned table
            the part's key must contain it too, as `{name}={value}/`.

    Raises:
        ValueError: The part lies outside of the table.
    """
    return AddAction(
        path=path_in(table_key, part.key),
        size=part.size_bytes,
        partition_values=dict(partition),
        modification_time=now_ms(),
        data_change=data_change,
        stats=_stats(part, schema),
    )


def remove_action(table_key: str, file: DataFile) -> dict[str, Any]:
    """The action that takes a file out of a table whose rows stay, in another file."""
    return {
        "remove": {
            "path": path_in(table_key, file.key),
            "deletionTimestamp": now_ms(),
            "dataChange": False,
            "extendedFileMetadata": True,
            "partitionValues": {name: partition_text(value) for name, value in file.partition.items()},
            "size": file.size_bytes,
        }
    }


def path_in(table_key: str, key: str) -> str:
    """How a table's log calls a file; ValueError if the file lies outside of the table."""
    path = key.removeprefix(f"{table_key}/")
    if path == key:
        raise ValueError(f"part {key} lies outside of its table {table_key}")
    return path


def partition_folder(table_key: str, partition: Mapping[str, bool | int | str | None]) -> str:
    """Where the parts of a table's partition lie that belong to no upload."""
    # A null would be a partition of another writer's; ours have values.
    known = (f"/{name}={partition_text(value)}" for name, value in partition.items() if value is not None)
    return "".join([table_key, *known])


def partition_text(value: bool | int | str | None) -> str | None:
    """A partition value as Delta writes it."""
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def log_file(
    operation: str, metadata: Mapping[str, str], actions: Sequence[AddAction | Mapping[str, Any]]
) -> bytes:
    """The content of a version's log file.

    Args:
        operation: What Delta calls it: WRITE, OPTIMIZE.
        metadata: Our `headrace.*` keys.
    """
    info = {
        "timestamp": now_ms(),
        "operation": operation,
        "operationParameters": {"mode": "Append"} if operation == "WRITE" else {},
        "engineInfo": ENGINE,
        **metadata,
    }
    others = [_added(action) if isinstance(action, AddAction) else action for action in actions]
    lines = [{"commitInfo": info}, *others]
    return b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in lines)


def _added(action: AddAction) -> dict[str, Any]:
    return {
        "add": {
            "path": action.path,
            "partitionValues": action.partition_values,
            "size": action.size,
            "modificationTime": action.modification_time,
            "dataChange": action.data_change,
            "stats": action.stats,
        }
    }


def _stats(part: Part, schema: pa.Schema) -> str:
    """A part's bounds in Delta's JSON format."""
    return json.dumps(
        {
            "numRecords": part.rows,
            "minValues": _bounds(schema, {name: stats.minimum for name, stats in part.stats.items()}),
            "maxValues": _bounds(schema, {name: stats.maximum for name, stats in part.stats.items()}),
            "nullCount": {name: stats.nulls for name, stats in part.stats.items()},
        }
    )


def _bounds(schema: pa.Schema, bounds: Mapping[str, _Bound | None]) -> dict[str, _Bound]:
    """Bounds as JSON values; columns that are all null have none."""
    return {
        name: _timestamp(int(value)) if pa.types.is_timestamp(schema.field(name).type) else value
        for name, value in bounds.items()
        if value is not None
    }


def _timestamp(microseconds: int) -> str:
    """A time since the epoch as RFC 3339."""
    return f"{(_EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None).isoformat()}Z"


def now_ms() -> int:
    """The clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
