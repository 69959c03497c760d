"""Loads, before the first call, the libraries that stages otherwise load on demand."""

import pyarrow as pa

from headrace_compute.ingest.block import findings_of
from headrace_compute.ingest.examine import examine
from headrace_compute.inputs.duckdb_session import DuckDBSession
from headrace_compute.kernels.hashing import bucket_of
from headrace_compute.model import Block, DataType, UploadSpec
from headrace_compute.schemas.contract import describe

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
        message, line = Block(0, "rows", 0, 1, 0, 1, 0), Block(0, "json_lines", 0, 1, 0, 1, 0)
        for block, payload in ((message, row), (line, b'{"": null}')):
            examined = examine(spec, block, payload)
            findings_of(spec, block, examined)
            bucket_of(examined.key_hashes)
    with DuckDBSession({}):
        pass
