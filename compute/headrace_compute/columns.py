"""Columns: those of the data contract, and what every stored row has besides.

The one list of them: tables, schemas, readers, events and reports take theirs from here. Plain values, so
that the server and the relay load neither pandera nor Polars for it.
"""

from collections.abc import Mapping
from typing import Literal

from headrace_compute.model import DataType

ColumnType = Literal["string", "double", "timestamp"]
"""What a value of the contract can be."""

StoredType = ColumnType | Literal["long", "short"]
"""What a value of a stored row can be, as Delta calls it."""

CONTRACT: Mapping[DataType, Mapping[str, ColumnType]] = {
    "interactions": {
        "user_id": "string",
        "item_id": "string",
        "interaction_type": "string",
        "timestamp": "timestamp",
        "rating": "double",
    },
    "items": {
        "item_id": "string",
        "title": "string",
        "category": "string",
        "price": "double",
        "brand": "string",
        "description": "string",
    },
}
"""Columns of the data contract, in its order."""

KEY: Mapping[DataType, str] = {"interactions": "user_id", "items": "item_id"}
"""The column whose hash is a row's bucket, and whose value is an event's key."""

ORIGIN: Mapping[str, StoredType] = {"upload_id": "string", "row_number": "long", "ingested_at": "timestamp"}
"""Where a stored row came from, and when."""

BUCKET = "bucket"

INTERACTION_TYPES = ("view", "click", "purchase", "like", "add_to_cart")


def stored_columns(data_type: DataType) -> dict[str, StoredType]:
    """Columns of a stored row, in order."""
    return {**CONTRACT[data_type], **ORIGIN, BUCKET: "short"}
