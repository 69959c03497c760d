"""Columns: what a block's values look like, for the report."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.findings import Bound, ColumnFindings
from headrace_compute.formats.records import shorten
from headrace_compute.ingest.examine import Examined
from headrace_compute.kernels.extremes import extremes
from headrace_compute.kernels.sketch import sketch_of
from headrace_compute.model import DataType
from headrace_compute.schemas.contract import describe


def summarise(data_type: DataType, examined: Examined) -> dict[str, ColumnFindings]:
    """The summary of each contract column, over all records of a block."""
    summaries = {}
    for index, column in enumerate(describe(data_type).columns):
        values, there = examined.parsed.table.column(index), examined.valid[index]
        filled, readable = examined.cells(index)
        if column.type == "string":
            low, high = _text_bounds(values.combine_chunks(), readable)
        else:
            if readable is not there:
                values = values.filter(pa.array(readable))
            if column.type == "timestamp":
                values = values.cast(pa.int64())
            low, high = _bounds(values)
        numbers = values.drop_null().to_numpy() if column.type == "double" else np.empty(0)
        summaries[column.name] = ColumnFindings(
            type=column.type,
            present=column.name in examined.parsed.present,
            nulls=int(filled.size - np.count_nonzero(filled)),
            sketch=sketch_of(examined.hashes[index], readable),
            minimum=low,
            maximum=high,
            total=float(numbers.sum()),
            numbers=numbers.size,
        )
    return summaries


def _bounds(values: pa.ChunkedArray) -> tuple[Bound | None, Bound | None]:
    bounds = pc.min_max(values).as_py()
    return bounds["min"], bounds["max"]


def _text_bounds(values: pa.StringArray, readable: np.ndarray) -> tuple[Bound | None, Bound | None]:
    # Arrow's min_max compares whole texts, which took a tenth of a block's time.
    places = extremes(values, readable)
    return (
        (None, None)
        if places is None
        else (shorten(values[places[0]].as_py()), shorten(values[places[1]].as_py()))
    )
