"""Rows as messages: what callers hold, turned into what the contract carries."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor

from headrace.v1 import row_pb2

_Message = TypeVar("_Message", row_pb2.Interaction, row_pb2.Item)

DataType: TypeAlias = Literal["interactions", "items"]
"""What a row is."""

Row: TypeAlias = Mapping[str, object] | row_pb2.Interaction | row_pb2.Item
"""A row: a mapping from column name to value, or the message itself.

A missing key, `None` and the empty string all mean "no value". `timestamp` may
be a `datetime` (naive = UTC) or a `date`.
"""


def to_interaction(row: Row, row_number: int = 0) -> row_pb2.Interaction:
    """An interaction as a message.

    Raises:
        ValueError: A key is no column, or a value cannot be carried by its
            column at all, such as a number for `user_id`.
    """
    if isinstance(row, row_pb2.Interaction):
        return row
    if isinstance(row, Mapping):
        moment = row.get("timestamp")
        if isinstance(moment, date):
            row = {**row, "timestamp": moment.isoformat()}
    return _message(row_pb2.Interaction, row, row_number)


def to_item(row: Row, row_number: int = 0) -> row_pb2.Item:
    """An item as a message.

    Raises:
        ValueError: As for `to_interaction`.
    """
    return row if isinstance(row, row_pb2.Item) else _message(row_pb2.Item, row, row_number)


def row_batch(data_type: DataType, rows: Iterable[Row]) -> row_pb2.RowBatch:
    """Rows of one data type as the batch a chunk carries."""
    if data_type == "items":
        return row_pb2.RowBatch(items=[to_item(row, n) for n, row in enumerate(rows)])
    return row_pb2.RowBatch(interactions=[to_interaction(row, n) for n, row in enumerate(rows)])


def _message(kind: type[_Message], row: Row, row_number: int) -> _Message:
    name = kind.DESCRIPTOR.name
    if not isinstance(row, Mapping):
        raise ValueError(f"row {row_number}: expected a mapping or {name}, got {type(row).__name__}")
    columns = kind.DESCRIPTOR.fields_by_name
    unknown = sorted(str(key) for key in row if key not in columns)
    if unknown:
        raise ValueError(
            f"row {row_number}: {', '.join(unknown)} is no column of {name}; leave it out"
            f" (columns: {', '.join(columns)})"
        )
    try:
        return kind(**row)  # type: ignore[arg-type]  # protobuf checks every value
    except (TypeError, ValueError) as error:
        # Protobuf does not say which value it was.
        wrong = [
            _complaint(kind, column, row[column]) for column in row if not _fits(kind, column, row[column])
        ]
        raise ValueError(f"row {row_number}: {', '.join(wrong)}") from error


def _fits(kind: type[_Message], column: str, value: object) -> bool:
    try:
        kind(**{column: value})  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _complaint(kind: type[_Message], column: str, value: object) -> str:
    is_text = kind.DESCRIPTOR.fields_by_name[column].type == FieldDescriptor.TYPE_STRING
    return f"{column} is {value!r}; give {'a str' if is_text else 'a float or int'}"
