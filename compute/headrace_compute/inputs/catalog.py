"""The current catalog: per item_id the last whole row of the items table."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headrace_compute.columns import ORIGIN
from headrace_compute.delta.layout import SCHEMAS
from headrace_compute.inputs.duckdb_session import DuckDBSession
from headrace_compute.model import DataFile, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_parts
from headrace_compute.sql import load_query

CATALOG_SCHEMA = pa.schema(
    [field for field in SCHEMAS["items"] if field.name not in ("description", *ORIGIN)]
)
"""What runs take from the catalog, one row per item, in the order of item_id."""

_ORDER_COLUMNS = ("ingested_at", "upload_id", "row_number")


def current_catalog(config: StoreConfig, item_files: Sequence[DataFile]) -> pa.Table:
    """Reads the catalog as of a version of the items table.

    Args:
        config: Where objects live.
        item_files: The files of the version.

    Returns:
        CATALOG_SCHEMA, one row per item_id, in the order of item_id.
    """
    columns = (*CATALOG_SCHEMA.names, *_ORDER_COLUMNS)
    return latest_items(read_parts(open_store(config), item_files, columns))


def latest_items(items: pa.Table) -> pa.Table:
    """Keeps the last row per item_id by (ingested_at, upload_id, row_number).

    Args:
        items: The columns of CATALOG_SCHEMA, ingested_at, upload_id and row_number.

    Returns:
        CATALOG_SCHEMA, in the order of item_id.
    """
    keys = items.select(["item_id", *_ORDER_COLUMNS])
    with DuckDBSession({"items": keys.append_column("position", pa.array(np.arange(len(items))))}) as session:
        latest = session.query(load_query("current_catalog"))
    return items.select(CATALOG_SCHEMA.names).take(latest["position"]).cast(CATALOG_SCHEMA).combine_chunks()
