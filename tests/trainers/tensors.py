"""Makes tensors of a batch with every kind of column, and prints their types, shapes and values."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from headrace.torch import tensors

COLUMNS = {
    "name": pa.array(["a", None]),
    "whole": pa.array([1, 2], pa.int32()),
    "maybe": pa.array([0.5, None]),
    "flag": pa.array([True, False]),
    "time": pa.array([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
    "history": pa.array([[7, 8, 9], [5]], pa.list_(pa.int64())),
    "empty": pa.array([[], None], pa.list_(pa.int64())),
    "items": pa.array([["x"], []], pa.list_(pa.string())),
}


def told(value: Any) -> Any:
    return value if isinstance(value, list) else [str(value.dtype), list(value.shape), str(value.tolist())]


def main() -> None:
    # A slice, since what is before it must not come through.
    columns = {name: pa.concat_arrays([column[:1], column]) for name, column in COLUMNS.items()}
    batch = pa.record_batch(columns).slice(1)
    json.dump({name: told(value) for name, value in tensors(batch).items()}, sys.stdout)


if __name__ == "__main__":
    main()
