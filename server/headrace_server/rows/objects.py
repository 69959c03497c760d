"""Rows that come as JSON objects in a message: `google.protobuf.Struct`, as JSON lines."""

import json
import math
import time
from collections.abc import Iterable
from typing import Any

from google.protobuf import struct_pb2

_EXACT = 2**53
"""Whole numbers below this are the same as doubles; this one stands for the next, too."""


TURN = 500
"""So many values are made at a time, in half a millisecond: Python itself would have others wait for five."""


def json_lines(rows: Iterable[struct_pb2.Struct]) -> list[bytes]:
    """Each row as one line of JSON, without its end; equal rows give equal lines."""
    made = _Objects()
    return [
        json.dumps(made.of(row), ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        for row in rows
    ]


class _Objects:
    """Makes objects of Structs, and lets the event loop have a turn at the interpreter now and then."""

    def __init__(self) -> None:
        self._values = 0

    def of(self, row: struct_pb2.Struct) -> dict[str, Any]:
        """The object that a Struct is."""
        return {key: self._plain(value) for key, value in row.fields.items()}

    def _plain(self, value: struct_pb2.Value) -> Any:
        """A JSON value as the caller wrote it: a Struct has doubles only, so whole ones were integers.

        NaN, by which rows and frames mean no value, is null.
        """
        self._values += 1
        if self._values % TURN == 0:
            time.sleep(0)
        match kind := value.WhichOneof("kind"):
            case "number_value":
                number = value.number_value
                if math.isnan(number):
                    return None
                return int(number) if abs(number) < _EXACT and number.is_integer() else number
            case "struct_value":
                return self.of(value.struct_value)
            case "list_value":
                return [self._plain(each) for each in value.list_value.values]
            case "null_value" | None:
                return None
            case _:
                return getattr(value, kind)
