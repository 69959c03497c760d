"""Untrusted Arrow columns: validated, measured, and converted to a few types.

Offsets, views and indices in a file are untrusted. No value is read before
`validate(full=True)` has checked them against the buffers; text is treated as bytes
until then, because invalid UTF-8 rejects a row and not the file.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from headrace_compute.errors import RecordTooLargeError, TooLargeError, UnsupportedTypeError
from headrace_compute.formats.header import check_names
from headrace_compute.formats.value_text import value_texts
from headrace_compute.kernels.strings import string_buffers
from headrace_compute.model import MAX_RECORD_BYTES
from headrace_compute.schemas.contract import ColumnContract

WRONG_TYPE = b"headrace.wrong_type"
"""Field metadata: the Arrow type that the column came in, if the contract does not take it."""

DICTIONARY_BYTES = 256 << 20
"""Limit on the bytes of a dictionary of views."""

_INDEX = re.compile(r"__index_level_\d+__")
"""The names that pandas gives to levels of an index without a name."""

_EXTENSION = b"ARROW:extension:name"
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_ROW_BYTES = 16
"""Bytes counted for a row besides its texts, so that rows of nulls count too."""


def check_schema(
    schema: pa.Schema, contract: Sequence[ColumnContract], reject_unknown: bool
) -> tuple[str, ...]:
    """The column names of a schema; '' for columns without a name, pandas' index among them.

    Raises:
        UnsupportedTypeError: A column of the contract is, or holds, an extension type.
        TooLargeError, DuplicateColumnError, MissingColumnError, UnknownColumnError: See `check_names`.
    """
    names = tuple("" if _INDEX.fullmatch(name) else name for name in schema.names)
    check_names(contract, names, reject_unknown, "; names are case-sensitive")
    known = {column.name for column in contract}
    # The others are never read.
    if foreign := [field.name for field in schema if field.name in known and _extends(field)]:
        shown = ", ".join(foreign)
        raise UnsupportedTypeError(
            f"The columns {shown} have Arrow extension types, which are not taken; cast them to plain types.",
            {"columns": shown},
        )
    return names


def made_safe(batch: pa.RecordBatch, contract: Sequence[ColumnContract]) -> pa.RecordBatch:
    """The contract's columns of a batch, checked against their buffers, texts as binary.

    A column of a type that the contract does not take becomes what shows its values, as `value_texts`
    makes it, and its field has WRONG_TYPE.

    Raises:
        ArrowInvalid: The batch's metadata contradict its buffers.
        TooLargeError: A dictionary of views is too large to be written out.
    """
    batch.validate()
    fields, arrays = [], []
    for column in contract:
        place = batch.schema.get_field_index(column.name)
        if place < 0:
            continue
        kind = batch.schema.field(place).type
        array = _safe(batch.column(place))
        metadata = None
        if column.type == "string" and pt.is_integer(_value_type(kind)):
            array = _digits(array)
        elif not _is_taken(column, kind):
            metadata = {WRONG_TYPE: str(kind)[:64].encode()}
            array = value_texts(_nan_as_null(array))
        fields.append(pa.field(column.name, array.type, metadata=metadata))
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def row_bytes(batch: pa.RecordBatch, first_row: int) -> np.ndarray:
    """What each row of a safe batch weighs, int64.

    Raises:
        RecordTooLargeError: A row is above MAX_RECORD_BYTES, as it would be in CSV.
    """
    weights = np.full(batch.num_rows, _ROW_BYTES, np.int64)
    for array in batch.columns:
        weights += _lengths(array)
    if weights.size and weights.max() > MAX_RECORD_BYTES + _ROW_BYTES:
        row = first_row + int(np.argmax(weights > MAX_RECORD_BYTES + _ROW_BYTES))
        raise RecordTooLargeError(
            f"The record of row {row} has more than {MAX_RECORD_BYTES} bytes of text; shorten it.",
            {"row_number": str(row), "limit_bytes": str(MAX_RECORD_BYTES)},
        )
    return weights


def raw_table(batch: pa.RecordBatch) -> pa.Table:
    """A slice of a safe batch in few types: binary, float64, and times as they came."""
    arrays = [_raw(array) for array in batch.columns]
    fields = [
        pa.field(field.name, array.type, metadata=field.metadata)
        for field, array in zip(batch.schema, arrays, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(fields))


def times_of(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Dates and timestamps as microseconds since the epoch.

    Finer units are truncated towards the past, as the text of a timestamp is.

    Returns:
        int64, anything where null, and bool: whether the time lies outside the years 1 to 9999.
    """
    width = np.int32 if pt.is_date32(array.type) else np.int64
    numbers = array.view(pa.int32() if width is np.int32 else pa.int64()).fill_null(0).to_numpy()
    numbers = numbers.astype(np.int64)
    if pt.is_date32(array.type):
        seconds, rest_us = numbers * 86_400, np.zeros_like(numbers)
    else:
        per_second = _PER_SECOND["ms" if pt.is_date64(array.type) else array.type.unit]
        seconds = numbers // per_second
        rest = numbers - seconds * per_second
        rest_us = rest // (per_second // 10**6) if per_second > 10**6 else rest * (10**6 // per_second)
    outside = (seconds < _FIRST_SECOND) | (seconds > _LAST_SECOND)
    return np.where(outside, 0, seconds) * 10**6 + np.where(outside, 0, rest_us), outside


def _safe(array: pa.Array) -> pa.Array:
    """An array checked against its buffers, texts as binary, run ends as the indices of a dictionary."""
    kind = array.type
    if pt.is_run_end_encoded(kind):
        return _indexed(array)
    if pt.is_dictionary(kind):
        indices, values = array.indices, _without_views(_safe(array.dictionary))
        indices.validate(full=True)
        return pa.DictionaryArray.from_arrays(indices, values, safe=True)
    if pt.is_string(kind):
        array = array.view(pa.binary())
    elif pt.is_large_string(kind):
        array = array.view(pa.large_binary())
    elif pt.is_string_view(kind):
        array = array.view(pa.binary_view())
    else:
        array.validate(full=True)
        return array
    array.validate(full=True)
    return array


def _indexed(array: pa.Array) -> pa.Array:
    """Runs as a dictionary: weighed like any other, and written out only block by block."""
    array.validate(full=True)
    ends = array.run_ends.to_numpy()
    rows = np.arange(array.offset, array.offset + len(array))
    places = pa.array(np.searchsorted(ends, rows, "right"))
    values = _without_views(_safe(array.values))
    if pt.is_dictionary(values.type):
        return pa.DictionaryArray.from_arrays(values.indices.take(places), values.dictionary)
    return pa.DictionaryArray.from_arrays(places, values)


def _without_views(values: pa.Array) -> pa.Array:
    """A dictionary's safe values in a type that Arrow has a `take` for, which it lacks for views.

    Raises:
        TooLargeError: They are too large for that. Views may show the same bytes again and again.
    """
    if not pt.is_binary_view(values.type):
        return values
    if (size := int(np.sum(_lengths(values)))) > DICTIONARY_BYTES:
        raise TooLargeError(
            f"A dictionary has {size} bytes of text, more than {DICTIONARY_BYTES}; send the column plain.",
            {"what": "dictionary", "limit": str(DICTIONARY_BYTES)},
        )
    return values.cast(pa.binary())


def _value_type(kind: pa.DataType) -> pa.DataType:
    while pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        kind = kind.value_type
    return kind


def _digits(array: pa.Array) -> pa.Array:
    """Integers as decimal digits: an id is often one. Exact for every width."""
    if pt.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(array.indices, _digits(array.dictionary))
    return array.cast(pa.string()).view(pa.binary())


def _nan_as_null(array: pa.Array) -> pa.Array:
    """Floats with null for NaN, which says in frames that there is no value."""
    if pt.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(array.indices, _nan_as_null(array.dictionary))
    if not pt.is_floating(array.type):
        return array
    numbers = array.to_numpy(zero_copy_only=False)
    return pa.array(numbers, array.type, mask=np.isnan(numbers))


def _is_taken(column: ColumnContract, kind: pa.DataType) -> bool:
    """Whether the contract takes a column of this type as it is, plain or behind indices."""
    kind = _value_type(kind)
    if pt.is_null(kind):
        return True
    text = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
    if column.type == "double":
        return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))
    return bool(text or (column.type == "timestamp" and (pt.is_timestamp(kind) or pt.is_date(kind))))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))


def _extends(field: pa.Field) -> bool:
    if isinstance(field.type, pa.BaseExtensionType) or _EXTENSION in (field.metadata or {}):
        return True
    kind = field.type
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return isinstance(kind.value_type, pa.BaseExtensionType)
    return any(_extends(kind.field(place)) for place in range(kind.num_fields))


def _lengths(array: pa.Array) -> Any:
    """Bytes of each value, int64; 0 for what is no text or null."""
    kind = array.type
    if pt.is_dictionary(kind):
        if not _is_text(kind.value_type) or not len(array.dictionary):
            return 0
        of_each = np.broadcast_to(_lengths(array.dictionary), len(array.dictionary))
        places = array.indices.fill_null(0).to_numpy().astype(np.int64)
        return np.where(_valid(array.indices), of_each[places], 0)
    if pt.is_binary_view(kind):
        views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)
        return np.where(_valid(array), views[array.offset : array.offset + len(array), 0].astype(np.int64), 0)
    if _is_text(kind):
        _, offsets = string_buffers(array)
        return np.diff(offsets)
    return 0


def _valid(array: pa.Array) -> np.ndarray:
    """Where there is a value: bool. A dictionary may have nulls too."""
    valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
    if pt.is_dictionary(array.type) and len(array.dictionary):
        valid &= _valid(array.dictionary)[array.indices.fill_null(0).to_numpy().astype(np.int64)]
    return valid


def _raw(array: pa.Array) -> pa.Array:
    kind = array.type
    if pt.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if _is_text(kind):
        # Under a null a file may hold any bytes, which kernels would look at; taking leaves them behind.
        texts = array.cast(pa.binary())
        return texts.take(pa.array(np.arange(len(texts)))) if texts.null_count else texts
    if pt.is_decimal(kind):
        # As text: it is parsed to the nearest double, like the same number in CSV.
        return array.cast(pa.string()).view(pa.binary())
    if pt.is_integer(kind) or pt.is_floating(kind):
        return array.cast(pa.float64(), safe=False)
    return array
