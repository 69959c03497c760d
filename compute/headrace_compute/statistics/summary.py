"""The statistics of a table's columns, made of its sketch; as they are stored and told."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headrace_compute.distinct import estimate
from headrace_compute.kernels.hashing import xxh64_strings
from headrace_compute.model import StoreConfig
from headrace_compute.statistics.numbers import DISTINCT_ERROR, QUANTILE_ERROR, bin_bounds
from headrace_compute.statistics.sketch import ColumnSketch, Measure, TableSketch

PROBABILITIES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

COARSE_SHIFT = 5
"""A histogram's bins are 2^5 times as wide as a sketch's: four between a power of two and the next."""

MAX_BINS = 256
"""Bins of a histogram at most: one of more has bins twice as wide, or four times, and so on."""

MAX_TOP_VALUES = 100
MAX_VALUE_BYTES = 256

_FORMAT = 1


@dataclass(frozen=True)
class ColumnStatistics:
    """The statistics of a column.

    Attributes:
        type: Its Arrow type.
        measure: What its numbers are.
        count, nulls: Rows with and without a value.
        distinct: Distinct values; None of lists.
        distinct_error: Relative standard error of that; 0 where it is exact.
        mean, stddev, minimum, maximum: Of the numbers; None if there are none.
        quantiles: Of PROBABILITIES; empty if there are none.
        quantile_error: How far these may be off, relative to themselves; 0 where they are exact.
        shift: Bins are those of `kernels.doubles`, 2^shift times as wide.
        bins: Their codes, ascending, and counts; those that have any.
        top_values: The most frequent values, cut at MAX_VALUE_BYTES, and their counts, most frequent first,
            equal counts by value; of lists of counts each place and the sum there.
        top_hashes: XXH64 of each of these texts before it was cut; empty of lists.
        values_total: What all values, also those that are not listed, count together; None if they are not
            counted.
    """

    name: str
    type: str
    measure: Measure
    count: int
    nulls: int
    distinct: int | None
    distinct_error: float
    mean: float | None
    stddev: float | None
    minimum: float | None
    maximum: float | None
    quantiles: tuple[float, ...]
    quantile_error: float
    shift: int
    bins: tuple[tuple[int, int], ...]
    top_values: tuple[tuple[str, int], ...]
    top_hashes: tuple[int, ...]
    values_total: int | None

    @property
    def histogram(self) -> list[tuple[float, float, int]]:
        """Lower edge, upper edge and count of each bin."""
        low, high = bin_bounds(np.array([code for code, _ in self.bins], np.int64), self.shift)
        counts = (count for _, count in self.bins)
        return list(zip(low.tolist(), high.tolist(), counts, strict=True))


@dataclass(frozen=True)
class TableStatistics:
    """The statistics of a version of a table.

    Attributes:
        as_of_us: What ages are counted to, microseconds since the epoch.
    """

    as_of_us: int
    columns: tuple[ColumnStatistics, ...]


def summarize(config: StoreConfig, as_of_us: int, *sketches: TableSketch) -> list[str]:
    """The statistics of tables, each as JSON, of their sketches; a stage."""
    return [to_json(statistics_of(sketch, as_of_us)) for sketch in sketches]


def statistics_of(sketch: TableSketch, as_of_us: int) -> TableStatistics:
    """The statistics of a table; equal ones, to the last bit, however its rows were sketched."""
    return TableStatistics(as_of_us, tuple(map(_column, sketch.columns)))


def to_json(statistics: TableStatistics) -> str:
    """Statistics for a commit's info; equal ones give equal text."""
    columns = [asdict(column) for column in statistics.columns]
    body = {"format": _FORMAT, "as_of_us": statistics.as_of_us, "columns": columns}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def from_json(text: str) -> TableStatistics:
    """Statistics of a commit's info.

    Raises:
        ValueError: A newer server wrote them.
    """
    found = json.loads(text)
    if found["format"] != _FORMAT:
        raise ValueError(f"statistics of format {found['format']}; this server reads {_FORMAT}")
    return TableStatistics(found["as_of_us"], tuple(map(_column_from_json, found["columns"])))


def _column_from_json(found: dict[str, Any]) -> ColumnStatistics:
    lists = {name: tuple(map(tuple, found[name])) for name in ("bins", "top_values")}
    lists |= {name: tuple(found[name]) for name in ("quantiles", "top_hashes")}
    return ColumnStatistics(**{**found, **lists})


def _column(sketch: ColumnSketch) -> ColumnStatistics:
    numbers = sketch.numbers
    shift, bins = _histogram(sketch)
    distinct, distinct_error = _distinct(sketch)
    top_values = _top_values(sketch)
    is_empty = numbers.count == 0
    return ColumnStatistics(
        name=sketch.name,
        type=sketch.type,
        measure=sketch.measure,
        count=sketch.rows - sketch.nulls,
        nulls=sketch.nulls,
        distinct=distinct,
        distinct_error=distinct_error,
        mean=numbers.mean,
        stddev=numbers.stddev,
        minimum=None if is_empty else numbers.minimum,
        maximum=None if is_empty else numbers.maximum,
        quantiles=tuple(numbers.quantiles(PROBABILITIES)),
        quantile_error=0.0 if numbers.is_exact else QUANTILE_ERROR,
        shift=shift,
        bins=tuple(bins),
        top_values=tuple((_cut(value), count) for value, count in top_values),
        top_hashes=_hashes(sketch, top_values),
        values_total=None if sketch.values is None else sum(sketch.values.values()),
    )


def _histogram(sketch: ColumnSketch) -> tuple[int, Sequence[tuple[int, int]]]:
    shift = COARSE_SHIFT
    while len(bins := sketch.numbers.histogram(shift)) > MAX_BINS:
        shift += 1
    return shift, bins


def _distinct(sketch: ColumnSketch) -> tuple[int | None, float]:
    if sketch.measure == "elements":
        return None, 0.0
    if sketch.is_key:
        return sketch.rows - sketch.nulls, 0.0
    if sketch.measure != "bytes":
        return sketch.numbers.distinct, 0.0 if sketch.numbers.is_exact else DISTINCT_ERROR
    if sketch.values is not None:
        return len(sketch.values), 0.0
    return estimate(sketch.registers), DISTINCT_ERROR


def _top_values(sketch: ColumnSketch) -> list[tuple[str, int]]:
    counts = list((sketch.values or {}).items())
    if sketch.measure == "elements":
        return sorted(counts, key=lambda each: int(each[0]))[:MAX_TOP_VALUES]
    counts.sort(key=lambda each: (-each[1], each[0].encode()))
    return counts[:MAX_TOP_VALUES]


def _hashes(sketch: ColumnSketch, top_values: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    if sketch.measure == "elements":
        return ()
    texts = pa.array([value for value, _ in top_values], pa.string())
    return tuple(xxh64_strings(texts).tolist())


def _cut(value: str) -> str:
    return value.encode()[:MAX_VALUE_BYTES].decode(errors="ignore")
