"""Accepted rows: as the data table has them, and as an upload's sidecar remembers them."""

import numpy as np
import pyarrow as pa

from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.ingest.examine import Examined
from headrace_compute.kernels.hashing import bucket_of
from headrace_compute.kernels.rows import clustered
from headrace_compute.model import Block, UploadSpec

PLACE = {"row_number": pa.int64(), "line": pa.int64(), "byte_offset": pa.int64()}
"""Columns of a sidecar that say where a row stood."""


def data_order(examined: Examined) -> np.ndarray:
    """int64, the accepted rows: by bucket, in it each user's (or item's) together, and those as they came."""
    order: np.ndarray = examined.keep[clustered(examined.key_hashes[examined.keep])]
    return order


def data_table(
    examined: Examined, order: np.ndarray, upload_ids: pa.Array, row_numbers: np.ndarray, started_us: int
) -> pa.Table:
    """The accepted rows as the data table has them.

    Args:
        order: As `data_order` gives it.
        upload_ids, row_numbers: Of each row, in this order.
        started_us: Their `ingested_at`.
    """
    table = examined.parsed.table.take(pa.array(order))
    for name, values in (
        ("upload_id", upload_ids),
        ("row_number", pa.array(row_numbers)),
        ("ingested_at", pa.repeat(pa.scalar(started_us, TIMESTAMP), order.size)),
        ("bucket", pa.array(bucket_of(examined.key_hashes[order]))),
    ):
        table = table.append_column(name, values)
    return table


def sidecar_table(spec: UploadSpec, block: Block, examined: Examined) -> pa.Table:
    """Where each accepted row stood and how it hashes, by row_number.

    Columns: row_hash, for items key_hash (xxh64 of item_id), and those of PLACE.
    """
    keep, records = examined.keep, examined.parsed.records
    columns = {"row_hash": pa.array(examined.row_hashes[keep])}
    if spec.data_type == "items":
        columns["key_hash"] = pa.array(examined.key_hashes[keep])
    places = (pa.array(block.first_row + keep), records.lines(keep), records.offsets(keep))
    return pa.table(columns | dict(zip(PLACE, places, strict=True)))
