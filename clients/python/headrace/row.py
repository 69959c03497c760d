"""Converts the rows of callers to messages of the contract."""

import warnings
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
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

A missing key, `None`, NaN, NaT and the empty string all mean "no value". A text,
such as an id, may be an integer, which is sent as its decimal digits. `timestamp` may
be a `datetime` (naive = UTC) or a `date`; a number is sent too, for the server to
reject its row. Keys that are not columns are ignored with a `UserWarning`.
"""

_SHOWN = 80

NOT_UNICODE = "half of a surrogate pair is not a character: write the whole one, or replace it by U+FFFD"
"""The remedy for a str that UTF-8 cannot encode."""


def to_interaction(row: Row, number: int = 0, *, reject_unknown: bool = False) -> row_pb2.Interaction:
    """An interaction as a message.

    Args:
        number: Which row it is, from 0, to be named in errors.
        reject_unknown: Whether a key that is no column is an error.

    Raises:
        ValueError: A value is of a type that the message cannot carry, such as a boolean for `rating`.
    """
    if isinstance(row, row_pb2.Interaction):
        return row
    return _message(row_pb2.Interaction, row, f"Row {number}", reject_unknown)


def to_item(row: Row, number: int = 0, *, reject_unknown: bool = False) -> row_pb2.Item:
    """An item as a message; otherwise as `to_interaction`."""
    if isinstance(row, row_pb2.Item):
        return row
    return _message(row_pb2.Item, row, f"Row {number}", reject_unknown)


def columns_of(data_type: DataType) -> tuple[str, ...]:
    """The contract's columns of a data type."""
    kind = row_pb2.Item if data_type == "items" else row_pb2.Interaction
    return tuple(kind.DESCRIPTOR.fields_by_name)


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
            wrong.append(f"{column} is {shown(value)}; {_remedy(column, value, is_text)}")
        else:
            values[column] = sent
    if wrong:
        raise ValueError(f"{place}: {', '.join(wrong)}.")
    return kind(**values)  # type: ignore[arg-type]  # the loop above has seen to the types


def _tell_unknown(unknown: list[str], columns: list[str], place: str, reject: bool) -> None:
    names = ", ".join(shown(name) for name in unknown)
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
    if isinstance(value, Integral) and not isinstance(value, bool):
        return _digits(value)
    if column == "timestamp" and isinstance(value, date):
        return _moment(value)
    if column == "timestamp" and isinstance(value, Real) and not isinstance(value, bool):
        return repr(float(value))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str) or not is_unicode(value):
        return None
    return value


def _digits(value: Integral) -> str | None:
    try:
        return str(int(value))
    except ValueError:
        return None  # Python writes out no more than 4,300 digits; an id has at most 256 bytes.


def _moment(value: date) -> str:
    if not isinstance(value, datetime) or value.tzinfo is None:
        return value.isoformat()
    try:
        # In UTC, because ISO 8601 has no seconds in an offset, and old local times do.
        return value.astimezone(UTC).isoformat()
    except OverflowError:
        # Beyond the years 1 to 9999, for the server to reject; still beyond, whatever seconds the offset has.
        east = value.utcoffset() or timedelta(0)
        minutes = -(-abs(east) // timedelta(minutes=1))
        offset = f"{'-' if east < timedelta(0) else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
        return value.replace(tzinfo=None).isoformat() + offset


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode a text: it has no lone surrogates."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _number(value: object) -> float | None:
    """A value as a number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return -inf if value < 0 else inf  # Rejected by the server as any infinity.


def _remedy(column: str, value: object, is_text: bool) -> str:
    if isinstance(value, str) and is_text:
        return NOT_UNICODE
    if isinstance(value, bytes) and is_text:
        return "decode it to a str, as it is not UTF-8"
    if column == "timestamp":
        return "give a str, datetime or date"
    return "give a str or int" if is_text else "give a float or int"


def shown(value: object) -> str:
    """A value as errors show it."""
    try:
        text = ascii(value)
    except ValueError:
        return "a number of very many digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
