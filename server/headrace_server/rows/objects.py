"""Rows that come as JSON objects in a message: `google.protobuf.Struct`, as JSON lines."""

import json
import math
from collections.abc import Iterable
from typing import Any

from google.protobuf import struct_pb2

_EXACT = 2**53
"""Whole numbers below this are the same as doubles; this one stands for the next, too."""


def json_lines(rows: Iterable[struct_pb2.Struct]) -> list[bytes]:
    """Each row as one line of JSON, without its end; equal rows give equal lines."""
    return [
        json.dumps(_object(row), ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        for row in rows
    ]


def _object(row: struct_pb2.Struct) -> dict[str, Any]:
    return {key: _plain(value) for key, value in row.fields.items()}


def _plain(value: struct_pb2.Value) -> Any:
    """A JSON value as the caller wrote it: a Struct has doubles only, so whole ones were integers.

    NaN, by which rows and frames mean no value, is null.
    """
    match kind := value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            if math.isnan(number):
                return None
            return int(number) if abs(number) < _EXACT and number.is_integer() else number
        case "struct_value":
            return _object(value.struct_value)
        case "list_value":
            return [_plain(each) for each in value.list_value.values]
        case "null_value" | None:
            return None
        case _:
            return getattr(value, kind)
