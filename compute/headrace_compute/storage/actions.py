"""A version's log file, written by hand: create-if-absent of one small object is the whole commit.

deltalake's commit loads the table first and spends 16 ms on what one create does in two [measured].
Appends need no table state: a blind append conflicts with a change of layout alone, which
whoever follows the log sees. The format is Delta's, protocol versions 1 and 2.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from headrace_compute.model import DataFile, Part
from headrace_compute.storage.commits import part_stats

ENGINE = "headrace"


def add_action(
    table_key: str, part: Part, schema: pa.Schema, partition: Mapping[str, str], *, data_change: bool = True
) -> dict[str, Any]:
    """The action that adds a part to a table.

    Args:
        partition: Value of each partition column, as Delta writes it; in a partitioned table
            the part's key must spell it too, as `{name}={value}/`.
    """
    path = part.key.removeprefix(f"{table_key}/")
    if path == part.key:
        raise ValueError(f"part {part.key} lies outside of its table {table_key}")
    return {
        "add": {
            "path": path,
            "partitionValues": dict(partition),
            "size": part.size_bytes,
            "modificationTime": now_ms(),
            "dataChange": data_change,
            "stats": part_stats(part, schema),
        }
    }


def remove_action(table_key: str, file: DataFile) -> dict[str, Any]:
    """The action that takes a file out of a table whose rows stay, in another file."""
    return {
        "remove": {
            "path": file.key.removeprefix(f"{table_key}/"),
            "deletionTimestamp": now_ms(),
            "dataChange": False,
            "extendedFileMetadata": True,
            "partitionValues": {name: partition_text(value) for name, value in file.partition.items()},
            "size": file.size_bytes,
        }
    }


def partition_text(value: bool | int | str | None) -> str | None:
    """A partition value as Delta writes it."""
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def log_file(operation: str, metadata: Mapping[str, str], actions: Sequence[Mapping[str, Any]]) -> bytes:
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
    lines = [{"commitInfo": info}, *actions]
    return b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in lines)


def now_ms() -> int:
    """The clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
