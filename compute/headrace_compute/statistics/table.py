"""The table feature_statistics: one row for each version of a table of features and column."""

import pyarrow as pa

from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.statistics.summary import PROBABILITIES, TableStatistics

_COMMENTS: dict[str, tuple[pa.DataType, str]] = {
    "table": (pa.string(), "The table."),
    "version": (pa.int64(), "Its version."),
    "column": (pa.string(), "The column."),
    "type": (pa.string(), "Its Arrow type."),
    "measure": (
        pa.string(),
        "What its numbers are: value; age, in days before as_of; bytes of a text; elements of a list.",
    ),
    "as_of": (TIMESTAMP, "The as_of of the version."),
    "count": (pa.int64(), "Rows with a value."),
    "nulls": (pa.int64(), "Rows without one."),
    "distinct": (pa.int64(), "Distinct values; null of lists."),
    "distinct_error": (pa.float64(), "Relative standard error of distinct; 0 where it is exact."),
    "mean": (pa.float64(), "Mean of the numbers; null if there are none."),
    "stddev": (pa.float64(), "Their standard deviation, as a whole population."),
    "minimum": (pa.float64(), "The smallest."),
    "maximum": (pa.float64(), "The largest."),
    **{
        f"p{round(100 * p):02d}": (pa.float64(), f"The ceil({p} * count)-th smallest number.")
        for p in PROBABILITIES
    },
    "quantile_error": (
        pa.float64(),
        "How far p01 to p99 may be off, relative to themselves (or 2^-1030); 0: exact.",
    ),
    "histogram": (
        pa.list_(pa.struct({"lower": pa.float64(), "upper": pa.float64(), "count": pa.int64()})),
        "Numbers in each bin that has any; bins have the same edges in all versions.",
    ),
    "top_values": (
        pa.list_(pa.struct({"value": pa.string(), "count": pa.int64()})),
        "The most frequent values, cut at 256 bytes; of lists of counts each place and the sum there. Null "
        "if not counted.",
    ),
}

SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"comment": comment}) for name, (kind, comment) in _COMMENTS.items()]
)


def statistics_rows(table: str, version: int, statistics: TableStatistics) -> pa.Table:
    """The rows of one version of a table."""
    rows = []
    for column in statistics.columns:
        quantiles = column.quantiles or (None,) * len(PROBABILITIES)
        names = ("count", "nulls", "distinct", "distinct_error", "mean", "stddev", "minimum", "maximum")
        rows.append(
            {
                "table": table,
                "version": version,
                "column": column.name,
                "type": column.type,
                "measure": column.measure,
                "as_of": statistics.as_of_us,
                **{name: getattr(column, name) for name in names},
                **{
                    f"p{round(100 * p):02d}": value for p, value in zip(PROBABILITIES, quantiles, strict=True)
                },
                "quantile_error": column.quantile_error,
                "histogram": [
                    dict(zip(("lower", "upper", "count"), bin, strict=True)) for bin in column.histogram
                ],
                "top_values": None
                if column.values_total is None
                else [{"value": value, "count": count} for value, count in column.top_values],
            }
        )
    return pa.Table.from_pylist(rows, SCHEMA.remove_metadata())
