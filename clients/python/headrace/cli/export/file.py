"""Rows of a table, written to a file or as JSON."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from headrace.arrow import pa
from headrace.cli.export.undoing import undoing


class Writer(Protocol):
    """What takes batches, one after another."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Writes a batch."""


def export(batches: Iterable[pa.RecordBatch], file: Path) -> int:
    """Writes batches to a file, whole or not at all.

    Returns:
        How many rows there were.

    Raises:
        ValueError: The file's name has no ending of `WRITERS`.
        OSError: The file cannot be written.
    """
    ending = file.suffix.lower()
    if ending not in WRITERS:
        raise ValueError(
            f"Unknown ending of {file.name!r}; name the file {', '.join('*' + ending for ending in WRITERS)}."
        )
    unfinished = file.with_name(file.name + ".part")
    pending = iter(batches)
    first = next(pending)  # What fails at once leaves the folder as it was.
    with undoing(lambda: unfinished.unlink(missing_ok=True)):
        with unfinished.open("wb") as sink:
            rows = write_batches(chain([first], pending), sink, ending)
        os.replace(unfinished, file)
    return rows


def write_batches(batches: Iterable[pa.RecordBatch], sink: BinaryIO, ending: str) -> int:
    """Writes batches as a file of some ending has them; `sink` stays open.

    Returns:
        How many rows there were.
    """
    pending = iter(batches)
    batch = next(pending)
    rows = 0
    with WRITERS[ending](sink, batch.schema) as writer:
        while batch is not None:
            writer.write_batch(batch)
            rows += batch.num_rows
            batch = next(pending, None)
    sink.flush()
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


def _parquet(sink: BinaryIO, schema: pa.Schema) -> AbstractContextManager[Writer]:
    import pyarrow.parquet as pq

    writer: AbstractContextManager[Writer] = pq.ParquetWriter(sink, schema, compression="zstd")
    return writer


def _arrow(sink: BinaryIO, schema: pa.Schema) -> AbstractContextManager[Writer]:
    writer: AbstractContextManager[Writer] = pa.ipc.new_stream(sink, schema)
    return writer


@contextmanager
def _csv(sink: BinaryIO, schema: pa.Schema) -> Iterator[Writer]:
    import pyarrow.csv as pa_csv

    nested = [name for name, kind in zip(schema.names, schema.types, strict=True) if pa.types.is_nested(kind)]
    flat = pa.schema([pa.field(f.name, pa.string()) if f.name in nested else f for f in schema])
    with pa_csv.CSVWriter(sink, flat) as writer:
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
def _json_lines(sink: BinaryIO, schema: pa.Schema) -> Iterator[Writer]:
    yield _JsonLines(sink.write)


class _JsonLines:
    """Writes one JSON object a line."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write_batch(self, batch: pa.RecordBatch) -> None:
        for row in json_rows(batch):
            self._write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


WRITERS: dict[str, Callable[[BinaryIO, pa.Schema], AbstractContextManager[Writer]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".csv": _csv,
    ".jsonl": _json_lines,
}
"""What writes files, by their ending; .arrow is an IPC stream."""
