"""Drift: how far the distribution of a column is from what it was in another version of its table.

Distances are those that TensorFlow Data Validation uses: L-infinity on frequent values, and the
Jensen-Shannon divergence on histograms, of which both versions have the same edges. Null is a value too.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headrace_compute.errors import InvalidFieldError
from headrace_compute.statistics.summary import ColumnStatistics, TableStatistics

Distance = Literal["l_infinity", "jensen_shannon"]

UNWATCHED = frozenset({"user_id", "item_id", "bucket"})
"""Columns that are not for any distribution: only a limit of their own is one for them."""

_Shares = dict[str | int | None, float]


@dataclass(frozen=True)
class DriftLimits:
    """From when on drift is worth a warning.

    Attributes:
        l_infinity, jensen_shannon: The largest distance that is no drift; None: any. Not for UNWATCHED.
        columns: The same for single columns, by names such as `user_features.avg_rating`.
        baselines: Versions to compare with, by table; others are compared with the version before.

    Raises:
        InvalidFieldError: A limit is not 0 to 1.
    """

    l_infinity: float | None = None
    jensen_shannon: float | None = None
    columns: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        general = {"l_infinity": self.l_infinity, "jensen_shannon": self.jensen_shannon}
        for name, limit in {**general, **self.columns}.items():
            if limit is not None and not 0 <= limit <= 1:
                raise InvalidFieldError(
                    f"Field drift_limits has {limit} for {name[:80]}; a limit must be 0 to 1.",
                    {"field": "drift_limits"},
                )

    def of(self, table: str, drift: "ColumnDrift") -> float | None:
        """The limit of a column of a table; None: none."""
        general = self.l_infinity if drift.distance == "l_infinity" else self.jensen_shannon
        return self.columns.get(f"{table}.{drift.column}", None if drift.column in UNWATCHED else general)


@dataclass(frozen=True)
class ColumnDrift:
    """The drift of a column.

    Attributes:
        value: 0 where nothing has changed, to 1.
        error: How far it may be off, because not all values are listed.
    """

    column: str
    distance: Distance
    value: float
    error: float = 0.0


def table_drift(before: TableStatistics, after: TableStatistics) -> list[ColumnDrift]:
    """The drift of each column that both versions have, with the same measure."""
    former = {(column.name, column.measure): column for column in before.columns}
    return [
        column_drift(former[column.name, column.measure], column)
        for column in after.columns
        if (column.name, column.measure) in former
    ]


def column_drift(before: ColumnStatistics, after: ColumnStatistics) -> ColumnDrift:
    """The drift of a column: L-infinity if values are counted in both versions, else Jensen-Shannon."""
    if before.values_total is not None and after.values_total is not None:
        p, q = _value_shares(before), _value_shares(after)
        unlisted = max(_unlisted(before), _unlisted(after))
        return ColumnDrift(after.name, "l_infinity", l_infinity(p, q), unlisted)
    shift = max(before.shift, after.shift)
    p, q = _bin_shares(before, shift), _bin_shares(after, shift)
    return ColumnDrift(after.name, "jensen_shannon", jensen_shannon(p, q))


def l_infinity(p: Mapping[str | int | None, float], q: Mapping[str | int | None, float]) -> float:
    """The largest difference of a value's shares; 1 if one version has no rows and the other has."""
    if not p or not q:
        return 0.0 if p == q else 1.0
    return max(abs(p.get(value, 0.0) - q.get(value, 0.0)) for value in {*p, *q})


def jensen_shannon(p: Mapping[str | int | None, float], q: Mapping[str | int | None, float]) -> float:
    """The Jensen-Shannon divergence, logarithms of base 2 (J. Lin, IEEE Trans. Inf. Theory 37(1), 1991)."""
    if not p or not q:
        return 0.0 if p == q else 1.0
    terms = []
    for value in {*p, *q}:
        middle = (p.get(value, 0.0) + q.get(value, 0.0)) / 2
        terms += [share / 2 * math.log2(share / middle) for share in (p.get(value), q.get(value)) if share]
    return min(1.0, max(0.0, math.fsum(terms)))


def _value_shares(column: ColumnStatistics) -> _Shares:
    # Texts that are alike where they were cut are still two.
    values: Sequence[str | int] = column.top_hashes or [value for value, _ in column.top_values]
    counts = Counter[str | int | None](
        dict(zip(values, (count for _, count in column.top_values), strict=True))
    )
    return _shares(counts, column.nulls, (column.values_total or 0) + column.nulls)


def _bin_shares(column: ColumnStatistics, shift: int) -> _Shares:
    counts: Counter[str | int | None] = Counter()
    for code, count in column.bins:
        counts[code >> (shift - column.shift)] += count
    return _shares(counts, column.nulls, column.count + column.nulls)


def _shares(counts: Counter[str | int | None], nulls: int, total: int) -> _Shares:
    counts[None] = nulls
    return {value: count / total for value, count in counts.items() if count}


def _unlisted(column: ColumnStatistics) -> float:
    """The largest share that a value may have which is not listed."""
    total = column.values_total or 0
    if sum(count for _, count in column.top_values) == total:
        return 0.0
    return column.top_values[-1][1] / (total + column.nulls)
