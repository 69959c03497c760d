"""Sketches: what is kept of the rows of a part, so that those of all parts give a table's statistics.

A column is described by its numbers: of numeric columns the values, of timestamps their age, of texts and
lists the length. Of texts, and of lists of counts, the frequent values are counted besides.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.distinct import REGISTERS, merge_sketches
from headrace_compute.kernels.hashing import xxh64_strings
from headrace_compute.kernels.sketch import sketch_of
from headrace_compute.model import StoreConfig
from headrace_compute.statistics.numbers import NO_NUMBERS, Numbers, merge_numbers, numbers_of

MAX_VALUES = 4096
"""Distinct texts of a column that are counted; one that has more has no top values."""

_SLICE_ROWS = 65_536
"""Rows whose texts are counted at a time: a column of too many is given up after one or two."""

_DAY_US = 86_400_000_000

MAX_PLACES = 100
"""Lists of more counts have no sums by place."""

Measure = Literal["value", "age", "bytes", "elements"]
"""What a column's numbers are: its values; days from them to as_of; bytes of UTF-8; elements of a list."""


@dataclass(frozen=True)
class ColumnSketch:
    """What is kept of a column.

    Attributes:
        type: Its Arrow type.
        rows, nulls: How many there are, and without a value; NaN and infinities are none.
        numbers: Of its values, as `measure` says.
        values: How many rows have each text; of lists of counts the sum at each place from 0; None if there
            are too many, or the column has no such values.
        registers: HyperLogLog sketch of texts that are too many.
        is_key: Whether each value is in one row.
    """

    name: str
    type: str
    measure: Measure
    rows: int
    nulls: int
    numbers: Numbers
    values: Mapping[str, int] | None = None
    registers: bytes = bytes(REGISTERS)
    is_key: bool = False


@dataclass(frozen=True)
class TableSketch:
    """What is kept of some rows of a table; of none, there are no columns."""

    columns: tuple[ColumnSketch, ...] = ()


def sketch_table(rows: pa.Table, key: str, as_of_us: int) -> TableSketch:
    """Sketches all columns of some rows.

    Args:
        key: The column of which no two rows of the table have the same value.
        as_of_us: What ages are counted to.

    Raises:
        TypeError: There are no statistics for a column's type.
    """
    columns = (_sketch(name, rows[name], name == key, as_of_us) for name in rows.column_names)
    return TableSketch(tuple(columns))


def merge_sketches_of(config: StoreConfig, *sketches: TableSketch) -> TableSketch:
    """The sketch of all rows together; a stage. In any order it is the same."""
    return reduce(merge_tables, sketches, TableSketch())


def merge_tables(a: TableSketch, b: TableSketch) -> TableSketch:
    """The sketch of all rows of both."""
    if not a.columns or not b.columns:
        return a if a.columns else b
    return TableSketch(tuple(map(_merge, a.columns, b.columns)))


def _sketch(name: str, column: pa.ChunkedArray, is_key: bool, as_of_us: int) -> ColumnSketch:
    kind = column.type
    found = ColumnSketch(name, str(kind), "value", len(column), column.null_count, NO_NUMBERS, is_key=is_key)
    filled = column.drop_null() if column.null_count else column
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = filled.to_numpy()
        finite = values[np.isfinite(values)]
        return replace(found, nulls=len(column) - len(finite), numbers=numbers_of(finite))
    if pa.types.is_timestamp(kind):
        days = (as_of_us - filled.cast(pa.int64()).to_numpy()) / _DAY_US
        return replace(found, measure="age", numbers=numbers_of(days))
    if pa.types.is_string(kind):
        found = replace(found, measure="bytes", numbers=numbers_of(pc.binary_length(filled).to_numpy()))
        return found if is_key else _with_texts(found, filled)
    if pa.types.is_list(kind):
        lengths = numbers_of(pc.list_value_length(filled).to_numpy())
        values = _sums_by_place(filled, lengths) if pa.types.is_integer(kind.value_type) else None
        return replace(found, measure="elements", numbers=lengths, values=values)
    raise TypeError(f"column {name} has type {kind}, of which there are no statistics")


def _with_texts(sketch: ColumnSketch, texts: pa.ChunkedArray) -> ColumnSketch:
    counts: Counter[str] = Counter()
    for first in range(0, len(texts), _SLICE_ROWS):
        found = pc.value_counts(texts.slice(first, _SLICE_ROWS))
        if len(found) <= MAX_VALUES:
            counts.update(
                dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))
            )
        if max(len(found), len(counts)) > MAX_VALUES:
            return replace(sketch, registers=_registers(texts))
    return replace(sketch, values=counts)


def _registers(texts: pa.Array | pa.ChunkedArray) -> bytes:
    return sketch_of(xxh64_strings(texts), np.ones(len(texts), np.bool_))


def _sums_by_place(lists: pa.ChunkedArray, lengths: Numbers) -> Mapping[str, int] | None:
    """The sums of all first elements, of all second ones, …; None if lists have several lengths, or many."""
    if lengths.minimum != lengths.maximum or lengths.maximum > MAX_PLACES:
        return None
    sums = Counter[str]()
    for chunk in lists.chunks:
        counts = chunk.flatten().to_numpy().reshape(len(chunk), int(lengths.maximum)).sum(axis=0)
        sums.update({str(place): count for place, count in enumerate(counts.tolist())})
    return sums


def _merge(a: ColumnSketch, b: ColumnSketch) -> ColumnSketch:
    merged = replace(
        a, rows=a.rows + b.rows, nulls=a.nulls + b.nulls, numbers=merge_numbers(a.numbers, b.numbers)
    )
    if a.measure == "elements":
        numbers = merged.numbers
        is_whole = a.values is not None and b.values is not None and numbers.minimum == numbers.maximum
        return replace(merged, values=_added(a, b) if is_whole else None)
    if a.measure != "bytes" or a.is_key:
        return merged
    values = _added(a, b) if a.values is not None and b.values is not None else None
    if values is not None and len(values) <= MAX_VALUES:
        return replace(merged, values=values)
    return replace(merged, values=None, registers=merge_sketches(_registers_of(a), _registers_of(b)))


def _added(a: ColumnSketch, b: ColumnSketch) -> Counter[str]:
    counts = Counter(a.values)
    counts.update(b.values or {})
    return counts


def _registers_of(column: ColumnSketch) -> bytes:
    if column.values is None:
        return column.registers
    return _registers(pa.array(list(column.values), pa.string()))
