"""Rows of a table, written to a file or as JSON."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from headrace.cli.export.undoing import undoing


class Writer(Protocol):
    """What takes batches, one after another."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Writes a batch."""


def export(batches: Iterable[pa.RecordBatch], file: Path) -> int:
    """Writes batches to a .parquet, .csv or .jsonl file, whole or not at all.

    Returns:
        How many rows there were.

    Raises:
        ValueError: The file's name ends in none of these.
        OSError: The file cannot be written.
    """
    ending = file.suffix.lower()
    if ending not in WRITERS:
        raise ValueError(
            f"Unknown ending of {file.name!r}; name the file {', '.join('*' + ending for ending in WRITERS)}."
        )
    unfinished = file.with_name(file.name + ".part")
    with undoing(lambda: unfinished.unlink(missing_ok=True)):
        rows = write_batches(batches, unfinished, ending)
        os.replace(unfinished, file)
    return rows


def write_batches(batches: Iterable[pa.RecordBatch], file: Path, ending: str) -> int:
    """Writes batches, at least one, as files of an ending are written; how many rows there were."""
    pending = iter(batches)
    batch = next(pending)
    rows = 0
    with WRITERS[ending](file, batch.schema) as writer:
        while batch is not None:
            writer.write_batch(batch)
            rows += batch.num_rows
            batch = next(pending, None)
    return rows


def json_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows as JSON objects; times are RFC 3339."""
    for row in batch.to_pylist():
        yield {name: _json_value(value) for name, value in row.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_value(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def _parquet(file: Path, schema: pa.Schema) -> AbstractContextManager[Writer]:
    writer: AbstractContextManager[Writer] = pq.ParquetWriter(file, schema, compression="zstd")
    return writer


@contextmanager
def _csv(file: Path, schema: pa.Schema) -> Iterator[Writer]:
    nested = [name for name, kind in zip(schema.names, schema.types, strict=True) if pa.types.is_nested(kind)]
    flat = pa.schema([pa.field(f.name, pa.string()) if f.name in nested else f for f in schema])
    with pa_csv.CSVWriter(file, flat) as writer:
        yield _CsvRows(writer, flat, nested)


class _CsvRows:
    """Writes CSV, which knows no lists: they become JSON."""

    def __init__(self, writer: Any, schema: pa.Schema, nested: list[str]) -> None:
        self._writer = writer
        self._schema = schema
        self._nested = nested

    def write_batch(self, batch: pa.RecordBatch) -> None:
        arrays = [
            pa.array(
                [None if v is None else json.dumps(_json_value(v)) for v in column.to_pylist()], pa.string()
            )
            if name in self._nested
            else column
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))


@contextmanager
def _json_lines(file: Path, schema: pa.Schema) -> Iterator[Writer]:
    with file.open("w", encoding="utf-8") as lines:
        yield _JsonLines(lines.write)


class _JsonLines:
    """Writes one JSON object a line."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def write_batch(self, batch: pa.RecordBatch) -> None:
        for row in json_rows(batch):
            self._write(json.dumps(row, ensure_ascii=False) + "\n")


WRITERS: dict[str, Callable[[Path, pa.Schema], AbstractContextManager[Writer]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
}
