"""Which table lies under which key, and with which columns."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, get_args

import pyarrow as pa

from headrace_compute.columns import CONTRACT, StoredType, stored_columns
from headrace_compute.errors import InvalidFieldError
from headrace_compute.model import NAME, DataType, Kind, StoreConfig

TIMESTAMP = pa.timestamp("us", tz="UTC")

_ARROW: dict[StoredType, pa.DataType] = {
    "string": pa.string(),
    "double": pa.float64(),
    "timestamp": TIMESTAMP,
    "long": pa.int64(),
    "short": pa.int16(),
}


def _schema(columns: Mapping[str, StoredType]) -> pa.Schema:
    return pa.schema({name: _ARROW[kind] for name, kind in columns.items()})


CONTRACT_SCHEMAS: dict[DataType, pa.Schema] = {
    data_type: _schema(columns) for data_type, columns in CONTRACT.items()
}
"""The contract's columns alone."""

SCHEMAS: dict[Kind, pa.Schema] = {
    "interactions": _schema(stored_columns("interactions")),
    "items": _schema(stored_columns("items")),
    "rejects": pa.schema(
        {
            "upload_id": pa.string(),
            "row_number": pa.int64(),
            "line": pa.int64(),
            "byte_offset": pa.int64(),
            "column": pa.string(),
            "code": pa.string(),
            "message": pa.string(),
            "value": pa.string(),
            "raw": pa.string(),
            "duplicate_of": pa.int64(),
            "ingested_at": TIMESTAMP,
            "published": pa.bool_(),
        }
    ),
}
"""Columns of the tables that uploads write. `published` is a partition column:
it is stored in the Delta log and in no part. Derived tables take theirs from the commit."""

STATS: dict[str, tuple[str, ...]] = {
    data_type: tuple(name for name, kind in stored_columns(data_type).items() if kind != "string")
    for data_type in CONTRACT
}
"""Columns whose bounds go to the Delta log."""

OF_DATASETS: tuple[Kind, ...] = ("training_data", "dataset_users", "dataset_items")
"""Tables that are named for a training set."""

FIXED: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind not in OF_DATASETS)
"""Tables with one name for every tenant."""


def interactions_key(config: StoreConfig, tenant: str) -> str:
    """Where a tenant's interactions lie."""
    return f"{config.raw}/{tenant}/interactions"


def items_key(config: StoreConfig, tenant: str) -> str:
    """Where a tenant's items lie."""
    return f"{config.raw}/{tenant}/items"


def rejects_key(config: StoreConfig, tenant: str) -> str:
    """Where a tenant's rejects lie."""
    return f"{config.processed}/{tenant}/rejects"


def user_features_key(config: StoreConfig, tenant: str) -> str:
    """Where a tenant's user features lie."""
    return f"{config.features}/{tenant}/user_features"


def item_features_key(config: StoreConfig, tenant: str) -> str:
    """Where a tenant's item features lie."""
    return f"{config.features}/{tenant}/item_features"


def feature_statistics_key(config: StoreConfig, tenant: str) -> str:
    """Where the statistics of a tenant's features lie."""
    return f"{config.features}/{tenant}/feature_statistics"


def vocabulary_key(config: StoreConfig, tenant: str, entity: Literal["user", "item"]) -> str:
    """Where the integers of a tenant's users, or items, lie."""
    return f"{config.training}/{tenant}/{entity}_vocabulary"


def datasets_key(config: StoreConfig, tenant: str) -> str:
    """The folder of a tenant's training sets."""
    return f"{config.training}/{tenant}/datasets"


def dataset_key(config: StoreConfig, tenant: str, dataset: str) -> str:
    """Where a training set lies.

    Raises:
        InvalidFieldError: the name is malformed, or another table has it.
    """
    if dataset in FIXED or not NAME.fullmatch(dataset):
        raise InvalidFieldError(
            f"Field dataset is {dataset[:80]!r}; it must be 1 to 63 of A-Z a-z 0-9 _ -, "
            f"starting with a letter or digit, and none of {', '.join(FIXED)}.",
            {"field": "dataset"},
        )
    return f"{datasets_key(config, tenant)}/{dataset}"


def table_key(config: StoreConfig, tenant: str, name: str) -> str:
    """Where the table lies that is known to callers as `name`.

    Raises:
        InvalidFieldError: no table can have that name.
    """
    keys: dict[str, Callable[[StoreConfig, str], str]] = {
        "interactions": interactions_key,
        "items": items_key,
        "rejects": rejects_key,
        "user_features": user_features_key,
        "item_features": item_features_key,
        "feature_statistics": feature_statistics_key,
        "user_vocabulary": partial(vocabulary_key, entity="user"),
        "item_vocabulary": partial(vocabulary_key, entity="item"),
    }
    return keys[name](config, tenant) if name in keys else dataset_key(config, tenant, name)


def table_name(key: str) -> str:
    """The name callers know a table by."""
    return key.rpartition("/")[2]
