"""Parses payloads into typed columns, and reports the cells that do not parse."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.columns import ColumnType
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.errors import UnknownColumnError
from headrace_compute.formats.arrow import WRONG_TYPE, times_of
from headrace_compute.formats.header import outside, unnamed
from headrace_compute.formats.records import (
    ArrowRecords,
    CsvRecords,
    JsonRecords,
    ObjectRecords,
    Records,
    TableRows,
    join,
    shorten,
)
from headrace_compute.ingest.keys import Keys
from headrace_compute.kernels.faults import timestamp_faults
from headrace_compute.kernels.numbers import parse_numbers
from headrace_compute.kernels.objects import MAX_DEPTH, Kind, ObjectFault, Objects, take_apart
from headrace_compute.kernels.parsed import Status
from headrace_compute.kernels.scan import ESCAPED_QUOTE, UNESCAPE
from headrace_compute.kernels.text import Fault, repair_text
from headrace_compute.kernels.timestamps import parse_timestamps
from headrace_compute.kernels.tokens import Tokens, tokenise
from headrace_compute.model import Block, UploadSpec
from headrace_compute.schemas.contract import ColumnContract, describe

_NOT_UTF8 = "is not UTF-8; convert it."
_SURROGATES = (
    "has half of a surrogate pair (U+D800 to U+DFFF), which is not a character; write the whole one, in "
    "four bytes of UTF-8 or both escapes of JSON, or replace it by U+FFFD."
)
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_NO_SUCH_YEAR = "is not in the years 1 to 9999; check the column's unit."
_NOT_A_NUMBER = "is not a finite decimal number; write it as 4.5 or leave it empty."

_KINDS_TAKEN: Mapping[ColumnType, tuple[Kind, ...]] = {
    "string": (Kind.STRING, Kind.INTEGER),
    "timestamp": (Kind.STRING,),
    "double": (Kind.INTEGER, Kind.FLOAT, Kind.NOT_FINITE),
}
_JSON_FAULTS = {
    ObjectFault.NO_OBJECT: "The line is not a JSON object; write one object per line.",
    ObjectFault.ENDS_EARLY: "The line ends within its object; write it on one line, and send all of it.",
    ObjectFault.SYNTAX: "The line is not JSON from byte {byte} on; have a JSON library write it.",
    ObjectFault.CONTROL: "Byte {byte} of the line is a control character in a string; escape it, as in \\n.",
    ObjectFault.TOO_DEEP: f"The line is nested deeper than {MAX_DEPTH:,} levels; send a flat object.",
    ObjectFault.TEXT_BEHIND: "Text follows the object at byte {byte} of the line; write one object per line.",
    ObjectFault.TWICE: "The object names a column again at byte {byte} of the line; name each column once.",
}


@dataclass(frozen=True)
class Failure:
    """Records that broke one rule.

    Attributes:
        column: The column at fault, '' for the record as a whole.
        error: What the message says behind the column and the value.
        rows: int64, ascending indices into the block.
        errors: In place of `error`, one per row, where not all have the same fault.
        messages: Whole messages, one per row, where `error` cannot say it.
        duplicate_of: int64 per row, the row_number of the row that stays; duplicates only.
    """

    column: str
    code: str
    error: str
    rows: np.ndarray
    errors: pa.StringArray | None = None
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
        unnamed: Places of columns without a name, counted from 1.
        keys: Which record has which, where each names its own; None where all have the same columns.
    """

    table: pa.Table
    failures: tuple[Failure, ...]
    unreadable: np.ndarray
    records: Records
    present: frozenset[str]
    unknown: Mapping[str, int] = field(default_factory=dict)
    unnamed: tuple[int, ...] = ()
    keys: Keys | None = None


def parse(spec: UploadSpec, block: Block, payload: np.ndarray | pa.Table | bytes) -> Parsed:
    """Parses a block.

    Args:
        payload: For csv and json_lines, whole records as uint8; for rows, a table of the contract's
            columns, raw: numbers as float64, all else as strings; for arrow, a table as
            `arrow.raw_table` makes it.

    Raises:
        UnknownColumnError: JSON lines have a key outside the contract, and `spec` rejects them.
    """
    columns = describe(spec.data_type).columns
    if block.format == "csv":
        return _parse_csv(spec, block, np.frombuffer(payload, np.uint8), columns)
    if block.format == "rows":
        return _parse_rows(payload, columns)
    if block.format == "arrow":
        return _parse_arrow(spec, payload, columns)
    return _parse_json_lines(spec, block, np.frombuffer(payload, np.uint8), columns)


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
    miscounted = (tokens.fields != width) & ~tokens.misquoted
    if miscounted.any():
        failures.append(_wrong_field_count(tokens, payload, np.flatnonzero(miscounted), width))
    if tokens.misquoted.any():
        # Its commas may not be what they seem, so nothing is said of its fields.
        failures.append(_bad_quote(tokens, payload, np.flatnonzero(tokens.misquoted)))
    unreadable = miscounted | tokens.misquoted
    return Parsed(
        table=pa.table(arrays, names),
        failures=tuple(failures),
        unreadable=unreadable,
        records=CsvRecords(block, payload, names, tokens),
        present=frozenset(names).intersection(spec.columns),
        unknown=dict.fromkeys(map(shorten, outside(columns, spec.columns)), 0),
        unnamed=unnamed(spec.columns),
    )


def _wrong_field_count(tokens: Tokens, payload: np.ndarray, rows: np.ndarray, width: int) -> Failure:
    counts = join("The record has ", pa.array(tokens.fields[rows]).cast(pa.string()), "")
    remedies = _remedies(
        tokens,
        payload,
        rows,
        "quote values that hold commas or line ends, and write quotes inside of them twice",
    )
    messages = join("", counts, join(f" field(s) and the header {width}; ", remedies, "."))
    return Failure("", "WRONG_FIELD_COUNT", "", rows, messages=messages)


def _bad_quote(tokens: Tokens, payload: np.ndarray, rows: np.ndarray) -> Failure:
    remedies = _remedies(tokens, payload, rows, 'write a quote inside a quoted value as ""')
    messages = join("The record has text behind a closing quote; ", remedies, ".")
    return Failure("", "BAD_QUOTE", "", rows, messages=messages)


def _remedies(tokens: Tokens, payload: np.ndarray, rows: np.ndarray, usual: str) -> pa.StringArray:
    """For each of some records what is to be done: UNESCAPE if it has an ESCAPED_QUOTE."""
    first, second = ESCAPED_QUOTE
    places = np.flatnonzero((payload[:-1] == first) & (payload[1:] == second))
    before_start, before_end = np.searchsorted(places, [tokens.starts[rows], tokens.ends[rows]])
    return pc.if_else(pa.array(before_end > before_start), UNESCAPE, usual)


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
        unknown=dict.fromkeys(map(shorten, outside(columns, spec.columns)), 0),
        unnamed=unnamed(spec.columns),
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


def _parse_json_lines(
    spec: UploadSpec, block: Block, payload: np.ndarray, columns: Sequence[ColumnContract]
) -> Parsed:
    names = tuple(column.name for column in columns)
    objects = take_apart(payload, block.rows, names)
    arrays, failures = [], []
    faulty = objects.faults != ObjectFault.NONE
    if faulty.any():
        failures.append(_bad_json(objects, np.flatnonzero(faulty), names))
    for slot, column in enumerate(columns):
        kinds = objects.kinds[slot]
        taken = np.isin(kinds, _KINDS_TAKEN[column.type])
        array, failed = _typed(column, objects.texts(slot, taken))
        arrays.append(array)
        failures += failed
        kind = "number" if column.type == "double" else "string"
        wrong = ~taken & (kinds > Kind.NULL)
        failures += _failed(column, "BAD_TYPE", f"is not a JSON {kind}; send a {kind}.", wrong)
    keys = _keys(spec, block, objects, names)
    return Parsed(
        table=pa.table(arrays, names),
        failures=tuple(failures),
        unreadable=faulty,
        records=JsonRecords(block, names, objects),
        present=frozenset(name for name, given in zip(names, keys.given, strict=True) if given.any()),
        unknown=keys.counts(),
        keys=keys,
    )


def _bad_json(objects: Objects, rows: np.ndarray, names: Sequence[str]) -> Failure:
    faults, places = objects.faults[rows].tolist(), objects.places[rows].tolist()
    messages = [
        _JSON_FAULTS[fault].format(byte=place + 1) for fault, place in zip(faults, places, strict=True)
    ]
    return Failure("", "BAD_JSON", "", rows, messages=pa.array(messages, pa.string()))


def _keys(spec: UploadSpec, block: Block, objects: Objects, names: Sequence[str]) -> Keys:
    """Which record has which key.

    Raises:
        UnknownColumnError: There is one outside the contract, and they are rejected.
    """
    given = tuple(kinds != Kind.ABSENT for kinds in objects.kinds)
    if not objects.others.size:
        return Keys(given)
    keys, rows = objects.other_keys().dictionary_encode(null_encoding="encode"), objects.rows_of_others()
    shown = [shorten((key or b"").decode("utf-8", "replace")) for key in keys.dictionary.to_pylist()]
    if spec.reject_unknown:
        line = block.first_line + int(objects.lines[rows[0]])
        key = f"the key {shown[0]}" if shown[0].strip() else "a key without a name"
        raise UnknownColumnError(
            f"The object in line {line} has {key}, outside the contract {','.join(names)}; "
            "leave such keys out, or have unknown columns ignored.",
            {"columns": shown[0], "line": str(line)},
        )
    # By key, and of each key by record: two bytes are sorted in one pass.
    places = keys.indices.to_numpy()
    order = np.argsort(places.astype(np.uint16) if len(shown) <= 1 << 16 else places, kind="stable")
    places, rows = places[order], rows[order]
    is_first = np.append(True, (places[1:] != places[:-1]) | (rows[1:] != rows[:-1]))
    return Keys(given, tuple(shown), places[is_first].astype(np.int64), rows[is_first])


def _typed(column: ColumnContract, values: pa.Array) -> tuple[pa.Array, list[Failure]]:
    """A column's values in the contract's type, and which of them do not parse.

    Args:
        values: binary without empty values, or float64.
    """
    if column.type == "string":
        texts, faults = repair_text(values)
        return texts, _bad_texts(column, values, np.flatnonzero(faults & Fault.NOT_UTF8))
    if column.type == "timestamp":
        times, status = parse_timestamps(values)
        array = pa.array(times, TIMESTAMP, mask=status != Status.PARSED)
        return array, _bad_timestamps(column, values, np.flatnonzero(status == Status.BAD))
    if pa.types.is_floating(values.type):
        given = values.is_valid().to_numpy(zero_copy_only=False)
        # Adding zero turns -0.0 into 0.0: equal rows must have equal bits.
        numbers = values.fill_null(0.0).to_numpy() + 0.0
        # NaN is how rows and frames write null.
        bad = given & np.isinf(numbers)
        parsed = given & np.isfinite(numbers)
    else:
        numbers, status = parse_numbers(values)
        bad, parsed = status == Status.BAD, status == Status.PARSED
    array = pa.array(numbers, pa.float64(), mask=~parsed)
    return array, _failed(column, "BAD_NUMBER", _NOT_A_NUMBER, bad)


def _failed(column: ColumnContract, code: str, error: str, bad: np.ndarray) -> list[Failure]:
    rows = np.flatnonzero(bad)
    return [Failure(column.name, code, error, rows)] if rows.size else []


def _bad_texts(column: ColumnContract, values: pa.Array, rows: np.ndarray) -> list[Failure]:
    if not rows.size:
        return []
    bad = values.take(pa.array(rows)).to_pylist()
    errors = pa.array([_SURROGATES if _SURROGATE.search(text) else _NOT_UTF8 for text in bad], pa.string())
    return [Failure(column.name, "BAD_TEXT", "", rows, errors=errors)]


def _bad_timestamps(column: ColumnContract, values: pa.Array, rows: np.ndarray) -> list[Failure]:
    if not rows.size:
        return []
    faults = timestamp_faults(values.take(pa.array(rows)))
    return [Failure(column.name, "BAD_TIMESTAMP", "", rows, errors=faults)]


def _null_if_empty(texts: pa.BinaryArray) -> pa.BinaryArray:
    return pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, pa.binary()), texts)
