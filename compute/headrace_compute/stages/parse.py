"""Parse: from what was sent to typed columns and the cells that do not parse."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.errors import InvalidFieldError
from headrace_compute.kernels.numbers import parse_numbers
from headrace_compute.kernels.parsed import Status
from headrace_compute.kernels.text import Fault, repair_text
from headrace_compute.kernels.timestamps import parse_timestamps
from headrace_compute.kernels.tokens import tokenise
from headrace_compute.model import Block, UploadSpec
from headrace_compute.schemas.contract import ColumnContract, describe
from headrace_compute.stages.arrow import WRONG_TYPE, ArrowRecords, times_of
from headrace_compute.stages.records import (
    CsvRecords,
    ObjectRecords,
    Records,
    TableRows,
    encode,
    join,
    shorten,
)

TIMESTAMP = pa.timestamp("us", tz="UTC")

_NOT_UTF8 = "is not UTF-8; convert it."
_NOT_A_TIME = "is not ISO 8601; write it as 2026-01-31T12:00:00Z."
_NO_SUCH_YEAR = "is not in the years 1 to 9999; check the column's unit."
_NOT_A_NUMBER = "is not a finite decimal number; write it as 4.5 or leave it empty."


@dataclass(frozen=True)
class Failure:
    """Records that broke one rule.

    Attributes:
        column: The column at fault, '' for the record as a whole.
        error: What the message says behind the column and the value.
        rows: int64, ascending indices into the block.
        messages: Whole messages, one per row, where `error` cannot say it.
        duplicate_of: int64 per row, the row_number of the row that stays; duplicates only.
    """

    column: str
    code: str
    error: str
    rows: np.ndarray
    messages: pa.StringArray | None = None
    duplicate_of: np.ndarray | None = None


@dataclass(frozen=True)
class Parsed:
    """A block in typed columns.

    Attributes:
        table: The contract's columns, one row per record. A cell that does not parse is null, or in
            text columns the text with `?` for each bad byte; the cells of an unreadable record are null.
        failures: Cells that do not parse, and unreadable records.
        unreadable: bool per record: whether it has no columns to speak of.
        present: Columns that the stream has.
        unknown: Keys outside the contract -> records that have them, 0 for a column of the header.
    """

    table: pa.Table
    failures: tuple[Failure, ...]
    unreadable: np.ndarray
    records: Records
    present: frozenset[str]
    unknown: Mapping[str, int] = field(default_factory=dict)


def parse(spec: UploadSpec, block: Block, payload: np.ndarray | pa.Table | bytes) -> Parsed:
    """Parses a block.

    Args:
        payload: For csv, whole records as uint8; for rows, a table of the contract's columns, raw:
            numbers as float64, all else as strings; for json, a JSON array of objects; for arrow,
            a table as `arrow.raw_table` makes it.

    Raises:
        InvalidFieldError: The payload is no JSON array.
    """
    columns = describe(spec.data_type).columns
    if block.format == "csv":
        return _parse_csv(spec, block, np.frombuffer(payload, np.uint8), columns)
    if block.format == "rows":
        return _parse_rows(payload, columns)
    if block.format == "arrow":
        return _parse_arrow(spec, payload, columns)
    return _parse_json(bytes(payload), columns)


def _parse_csv(
    spec: UploadSpec, block: Block, payload: np.ndarray, columns: Sequence[ColumnContract]
) -> Parsed:
    names = tuple(column.name for column in columns)
    places = [spec.columns.index(name) if name in spec.columns else -1 for name in names]
    width = len(spec.columns)
    tokens = tokenise(payload, block.rows, places, width)
    arrays, failures = [], []
    for column, texts in zip(columns, tokens.columns, strict=True):
        array, failed = _typed(column, texts)
        arrays.append(array)
        failures += failed
    unreadable = tokens.fields != width
    if unreadable.any():
        failures.append(_wrong_field_count(tokens.fields, np.flatnonzero(unreadable), width))
    return Parsed(
        table=pa.table(arrays, names),
        failures=tuple(failures),
        unreadable=unreadable,
        records=CsvRecords(block, payload, names, tokens),
        present=frozenset(names).intersection(spec.columns),
        unknown=dict.fromkeys((shorten(name) for name in spec.columns if name not in names), 0),
    )


def _wrong_field_count(fields: np.ndarray, rows: np.ndarray, width: int) -> Failure:
    counts = pa.array(fields[rows]).cast(pa.string())
    rest = f" field(s) and the header {width}; quote values that hold commas or line ends."
    messages = join("The record has ", counts, rest)
    return Failure("", "WRONG_FIELD_COUNT", "", rows, messages=messages)


def _parse_rows(payload: pa.Table, columns: Sequence[ColumnContract]) -> Parsed:
    arrays, failures = [], []
    for column in columns:
        values = payload.column(column.name).combine_chunks()
        if column.type != "double":
            values = _null_if_empty(values.cast(pa.binary()))
        array, failed = _typed(column, values)
        arrays.append(array)
        failures += failed
    return Parsed(
        table=pa.table(arrays, [column.name for column in columns]),
        failures=tuple(failures),
        unreadable=np.zeros(payload.num_rows, np.bool_),
        records=ObjectRecords(TableRows(payload)),
        present=frozenset(column.name for column in columns),
    )


def _parse_arrow(spec: UploadSpec, payload: pa.Table, columns: Sequence[ColumnContract]) -> Parsed:
    arrays, failures = [], []
    for column in columns:
        if column.name not in payload.column_names:
            array, failed = _typed(column, _nothing(column, payload.num_rows))
        else:
            field = payload.schema.field(column.name)
            values = payload.column(column.name).combine_chunks()
            array, failed = _typed_arrow(column, values, (field.metadata or {}).get(WRONG_TYPE, b"").decode())
        arrays.append(array)
        failures += failed
    names = tuple(column.name for column in columns)
    return Parsed(
        table=pa.table(arrays, names),
        failures=tuple(failures),
        unreadable=np.zeros(payload.num_rows, np.bool_),
        records=ArrowRecords(payload),
        present=frozenset(names).intersection(payload.column_names),
        unknown=dict.fromkeys((shorten(name) for name in spec.columns if name not in names), 0),
    )


def _typed_arrow(column: ColumnContract, values: pa.Array, wrong_type: str) -> tuple[pa.Array, list[Failure]]:
    """As `_typed`, for a raw Arrow column."""
    if wrong_type:
        kind = {"double": "number", "string": "string", "timestamp": "timestamp or string"}[column.type]
        error = f"is of Arrow type {wrong_type}; send a {kind}."
        array, _ = _typed(column, _nothing(column, len(values)))
        return array, _failed(column, "BAD_TYPE", error, values.is_valid().to_numpy(zero_copy_only=False))
    if pa.types.is_null(values.type):
        return _typed(column, _nothing(column, len(values)))
    if pa.types.is_temporal(values.type):
        times, outside = times_of(values)
        given = values.is_valid().to_numpy(zero_copy_only=False)
        array = pa.array(times, pa.int64(), mask=outside | ~given).view(TIMESTAMP)
        return array, _failed(column, "BAD_TIMESTAMP", _NO_SUCH_YEAR, outside & given)
    return _typed(column, values if pa.types.is_floating(values.type) else _null_if_empty(values))


def _nothing(column: ColumnContract, rows: int) -> pa.Array:
    return pa.nulls(rows, pa.float64() if column.type == "double" else pa.binary())


def _parse_json(payload: bytes, columns: Sequence[ColumnContract]) -> Parsed:
    objects = _load(payload)
    unreadable = np.array([not isinstance(record, dict) for record in objects], np.bool_)
    readable = [record if isinstance(record, dict) else {} for record in objects]
    arrays, failures = [], []
    if unreadable.any():
        error = "The record is no JSON object; send one object per row."
        failures.append(_whole_records("BAD_TYPE", error, np.flatnonzero(unreadable)))
    for column in columns:
        values, wrong = _typed_json(column, [record.get(column.name) for record in readable])
        array, failed = _typed(column, values)
        arrays.append(array)
        failures += failed
        if wrong.size:
            kind = "number" if column.type == "double" else "string"
            failures.append(Failure(column.name, "BAD_TYPE", f"is no JSON {kind}; send a {kind}.", wrong))
    names = [column.name for column in columns]
    keys = Counter(key for record in readable for key in record)
    return Parsed(
        table=pa.table(arrays, names),
        failures=tuple(failures),
        unreadable=unreadable,
        records=ObjectRecords(objects),
        present=frozenset(names).intersection(keys),
        unknown={shorten(key): keys[key] for key in keys if key not in names},
    )


def _load(payload: bytes) -> list[Any]:
    try:
        objects = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidFieldError(f"The rows are no JSON: {error}.", {"field": "rows"}) from None
    if not isinstance(objects, list):
        raise InvalidFieldError("The rows are no JSON array; send an array of objects.", {"field": "rows"})
    return objects


def _typed_json(column: ColumnContract, values: list[Any]) -> tuple[pa.Array, np.ndarray]:
    """A column's values as `_typed` takes them, null where wrong, and where they are of a wrong type."""
    if column.type == "double":
        wrong = [i for i, value in enumerate(values) if not _is_number(value) and value is not None]
        numbers = [_float(value) if _is_number(value) else None for value in values]
        return pa.array(numbers, pa.float64()), np.array(wrong, np.int64)
    wrong = [i for i, value in enumerate(values) if not isinstance(value, str) and value is not None]
    texts = [encode(value) if isinstance(value, str) else None for value in values]
    return _null_if_empty(pa.array(texts, pa.binary())), np.array(wrong, np.int64)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _typed(column: ColumnContract, values: pa.Array) -> tuple[pa.Array, list[Failure]]:
    """A column's values in the contract's type, and which of them do not parse.

    Args:
        values: binary without empty values, or float64.
    """
    if column.type == "string":
        texts, faults = repair_text(values)
        return texts, _failed(column, "BAD_TEXT", _NOT_UTF8, faults & Fault.NOT_UTF8 != 0)
    if column.type == "timestamp":
        times, status = parse_timestamps(values)
        array = pa.array(times, TIMESTAMP, mask=status != Status.PARSED)
        return array, _failed(column, "BAD_TIMESTAMP", _NOT_A_TIME, status == Status.BAD)
    if pa.types.is_floating(values.type):
        given = values.is_valid().to_numpy(zero_copy_only=False)
        # Adding zero turns -0.0 into 0.0: equal rows must have equal bits.
        numbers = values.fill_null(0.0).to_numpy() + 0.0
        bad = given & ~np.isfinite(numbers)
        parsed = given & ~bad
    else:
        numbers, status = parse_numbers(values)
        bad, parsed = status == Status.BAD, status == Status.PARSED
    array = pa.array(numbers, pa.float64(), mask=~parsed)
    return array, _failed(column, "BAD_NUMBER", _NOT_A_NUMBER, bad)


def _failed(column: ColumnContract, code: str, error: str, bad: np.ndarray) -> list[Failure]:
    rows = np.flatnonzero(bad)
    return [Failure(column.name, code, error, rows)] if rows.size else []


def _whole_records(code: str, message: str, rows: np.ndarray) -> Failure:
    return Failure("", code, "", rows, messages=pa.array([message] * rows.size, pa.string()))


def _null_if_empty(texts: pa.BinaryArray) -> pa.BinaryArray:
    return pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, pa.binary()), texts)
