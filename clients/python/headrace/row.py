"""Converts the rows of callers to messages of the contract."""

import warnings
from collections.abc import Mapping
from datetime import UTC, date, datetime
from math import inf
from numbers import Integral, Real
from typing import Literal, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor

from headrace.v1 import row_pb2

_Message = TypeVar("_Message", row_pb2.Interaction, row_pb2.Item)

DataType: TypeAlias = Literal["interactions", "items"]
"""What a row is."""

Row: TypeAlias = Mapping[str, object] | row_pb2.Interaction | row_pb2.Item
"""A row: a mapping from column name to value, or the message itself.

A missing key, `None`, NaN, NaT and the empty string all mean "no value". An id
may be an integer, which is sent as its decimal digits. `timestamp` may be a
`datetime` (naive = UTC) or a `date`. Keys that are no columns are ignored with
a `UserWarning`.
"""

_IDS = frozenset({"user_id", "item_id"})
_SHOWN = 80


def to_interaction(row: Row, number: int = 0, *, reject_unknown: bool = False) -> row_pb2.Interaction:
    """An interaction as a message.

    Args:
        number: Which row it is, from 0, to be named in errors.
        reject_unknown: Whether a key that is no column is an error.

    Raises:
        ValueError: A value is of a type that its column cannot carry, such as a boolean for `rating`.
    """
    if isinstance(row, row_pb2.Interaction):
        return row
    return _message(row_pb2.Interaction, row, f"Row {number}", reject_unknown)


def to_item(row: Row, number: int = 0, *, reject_unknown: bool = False) -> row_pb2.Item:
    """An item as a message; otherwise as `to_interaction`."""
    if isinstance(row, row_pb2.Item):
        return row
    return _message(row_pb2.Item, row, f"Row {number}", reject_unknown)


def _message(kind: type[_Message], row: Row, place: str, reject_unknown: bool) -> _Message:
    name = kind.DESCRIPTOR.name
    if not isinstance(row, Mapping):
        raise ValueError(f"{place}: expected a mapping or {name}, got {type(row).__name__}.")
    columns = kind.DESCRIPTOR.fields_by_name
    if unknown := sorted(str(key) for key in row if key not in columns):
        _tell_unknown(unknown, list(columns), place, reject_unknown)
    values: dict[str, object] = {}
    wrong: list[str] = []
    for column, field in columns.items():
        value = row.get(column)
        if _is_absent(value):
            continue
        is_text = field.type == FieldDescriptor.TYPE_STRING
        sent = _text(column, value) if is_text else _number(value)
        if sent is None:
            wrong.append(f"{column} is {_shown(value)}; give {_expected(column, is_text)}")
        else:
            values[column] = sent
    if wrong:
        raise ValueError(f"{place}: {', '.join(wrong)}.")
    return kind(**values)  # type: ignore[arg-type]  # the loop above has seen to the types


def _tell_unknown(unknown: list[str], columns: list[str], place: str, reject: bool) -> None:
    names = ", ".join(_shown(name) for name in unknown)
    if reject:
        raise ValueError(
            f"{place}: unknown column {names}; leave it out, or have unknown columns ignored"
            f" (columns: {', '.join(columns)})."
        )
    # Without the row, so that Python tells it once for a whole upload.
    warnings.warn(f"Unknown columns are ignored: {names}.", UserWarning, stacklevel=2)


def _is_absent(value: object) -> bool:
    # NaN and NaT are the values that differ from themselves.
    return value is None or (isinstance(value, Real | date) and value != value)


def _text(column: str, value: object) -> str | None:
    """A value as its text column carries it; None if it cannot."""
    if column in _IDS and isinstance(value, Integral) and not isinstance(value, bool):
        return _digits(value)
    if column == "timestamp" and isinstance(value, date):
        return _moment(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str) or not _is_unicode(value):
        return None
    return value


def _digits(value: Integral) -> str | None:
    try:
        return str(int(value))
    except ValueError:
        return None  # Python writes out no more than 4,300 digits; an id has at most 256 bytes.


def _moment(value: date) -> str | None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        return value.isoformat()
    try:
        # In UTC, because ISO 8601 has no seconds in an offset, and old local times do.
        return value.astimezone(UTC).isoformat()
    except OverflowError:
        return None  # Beyond the years 1 to 9999.


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _number(value: object) -> float | None:
    """A value as a number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return -inf if value < 0 else inf  # Rejected by the server as any infinity.


def _expected(column: str, is_text: bool) -> str:
    if column == "timestamp":
        return "a str, datetime or date"
    if column in _IDS:
        return "a str or int"
    return "a str" if is_text else "a float or int"


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except ValueError:
        return "a number of very many digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
