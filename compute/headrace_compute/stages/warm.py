"""Loading, ahead of the first call, the libraries that stages load when they need them."""

import pyarrow as pa

from headrace_compute.kernels.hashing import bucket_of
from headrace_compute.model import Block, DataType, UploadSpec
from headrace_compute.schemas.contract import describe
from headrace_compute.stages.duck import Duck
from headrace_compute.stages.ingest import examine

DATA_TYPES: tuple[DataType, ...] = ("interactions", "items")


def load() -> None:
    """Loads pandera with Polars, and DuckDB; validates one row, so that no caller's is the first."""
    for data_type in DATA_TYPES:
        columns = describe(data_type).columns
        row = pa.table(
            {
                column.name: pa.array([None], pa.float64())
                if column.type == "double"
                else pa.array(["2026-01-01"])
                for column in columns
            }
        )
        spec = UploadSpec("", data_type, "", "", "", 0, 0)
        bucket_of(examine(spec, Block(0, "rows", 0, 1, 0, 1, 0), row).key_hashes)
    with Duck({}):
        pass
