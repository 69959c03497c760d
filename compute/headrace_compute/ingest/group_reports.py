"""What each small ingest of a group is told: reports and rejects, apart for each upload."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from headrace_compute.findings import SAMPLES, Reject, unknown_columns
from headrace_compute.formats.records import shorten
from headrace_compute.ingest.examine import Examined, UploadRows
from headrace_compute.ingest.parse import Failure
from headrace_compute.ingest.rejects import reject_table, samples_of, some_of
from headrace_compute.model import Block, UploadSpec
from headrace_compute.report import (
    Check,
    ColumnSummary,
    Report,
    Warning,
    check_of,
    iso_time,
    warning_of,
)
from headrace_compute.schemas.contract import describe


@dataclass(frozen=True)
class RowGroup:
    """Rows of several uploads, examined as one block."""

    uploads: UploadRows
    block: Block
    upload: UploadSpec
    examined: Examined


@dataclass(frozen=True)
class GroupRejects:
    """Reject rows, and the upload of each: int64."""

    table: pa.Table
    owner: np.ndarray


def rejects_of(group: RowGroup, failures: Sequence[Failure]) -> GroupRejects:
    """Failures as the rejects table has them, each row under its own upload and number."""
    table = reject_table(group.upload, group.block, group.examined.parsed.records, failures)
    rows = table.column("row_number").to_numpy()
    owner = group.uploads.owner[rows]
    for name, values in (
        ("upload_id", group.uploads.ids.take(pa.array(owner))),
        ("row_number", pa.array(group.uploads.number[rows])),
    ):
        table = table.set_column(table.column_names.index(name), name, values)
    return GroupRejects(table, owner)


def reports_of(group: RowGroup) -> tuple[Report, ...]:
    """The report on each upload, in order; columns' distinct values are exact."""
    count = len(group.uploads.ids)
    received = np.diff(group.uploads.starts)
    accepted = np.bincount(group.uploads.owner[group.examined.keep], minlength=count)
    columns = _columns(group)
    checks = _checks(group, columns)
    warnings = _redefined(group) if group.upload.data_type == "items" else [[] for _ in range(count)]
    doubled = np.bincount(group.uploads.owner[group.examined.doubled], minlength=count)
    named, unknown = _named(group), _unknown(group)
    for place, summaries in enumerate(columns):
        empty = [
            each.column
            for each, is_named in zip(summaries, named[place], strict=True)
            if is_named and each.nulls == received[place]
        ]
        warnings[place] += [warning_of("ALL_NULL", column, 0, ()) for column in empty]
        warnings[place] += unknown[place]
        warnings[place].sort(key=lambda warning: (warning.code, warning.column))
    return tuple(
        Report(
            rows_received=int(received[place]),
            rows_accepted=int(accepted[place]),
            rows_rejected=int(received[place] - accepted[place]),
            rows_duplicate=int(doubled[place]),
            checks=tuple(checks[place]),
            columns=tuple(columns[place]),
            warnings=tuple(warnings[place]),
        )
        for place in range(count)
    )


def _columns(group: RowGroup) -> list[list[ColumnSummary]]:
    """The summaries of each upload's columns, in contract order."""
    summaries: list[list[ColumnSummary]] = [[] for _ in group.uploads.ids]
    starts, table = group.uploads.starts, group.examined.parsed.table
    for index, column in enumerate(describe(group.upload.data_type).columns):
        values = table.column(index)
        filled, readable = group.examined.cells(index)
        # 10,000 values at most: Python's own min, max and set are quick for a handful of rows.
        texts = (values.cast(pa.int64()) if column.type == "timestamp" else values).to_pylist()
        nulls = np.add.reduceat(~filled, starts[:-1], dtype=np.int64).tolist()
        for place, (first, last) in enumerate(pairwise(starts)):
            there = [texts[row] for row in range(first, last) if readable[row]]
            summaries[place].append(_summary(column.name, column.type, nulls[place], there))
    return summaries


def _summary(name: str, kind: str, nulls: int, values: list[Any]) -> ColumnSummary:
    low, high = (min(values), max(values)) if values else (None, None)
    mean = sum(values) / len(values) if values and kind == "double" else None
    return ColumnSummary(name, nulls, len(set(values)), _text(kind, low), _text(kind, high), mean)


def _text(kind: str, bound: Any) -> str | None:
    if bound is None:
        return None
    if kind == "timestamp":
        return iso_time(bound)
    return shorten(bound) if kind == "string" else str(bound)


def _checks(group: RowGroup, columns: Sequence[Sequence[ColumnSummary]]) -> list[list[Check]]:
    """The rules that each upload's rows broke, by column and code, with their first samples."""
    checks: list[list[Check]] = [[] for _ in group.uploads.ids]
    places = {column.name: place for place, column in enumerate(describe(group.upload.data_type).columns)}
    failures = group.examined.failures
    for failure in sorted(failures, key=lambda each: (places.get(each.column, len(places)), each.code)):
        owner = group.uploads.owner[failure.rows]
        failing = np.bincount(owner, minlength=len(group.uploads.ids))
        rank = np.arange(owner.size) - np.searchsorted(owner, owner)
        few = rejects_of(group, [some_of(failure, np.flatnonzero(rank < SAMPLES))])
        samples: dict[int, list[Reject]] = {}
        for place, reject in zip(few.owner.tolist(), samples_of(few.table), strict=True):
            samples.setdefault(place, []).append(reject)
        for place, rejects in samples.items():
            received = int(group.uploads.starts[place + 1] - group.uploads.starts[place])
            column = places.get(failure.column)
            nulls = columns[place][column].nulls if column is not None else 0
            checks[place].append(
                check_of(failure.column, failure.code, int(failing[place]), received, nulls, tuple(rejects))
            )
    return checks


def _named(group: RowGroup) -> np.ndarray:
    """For each upload and contract column whether any row of it names the column: bool."""
    keys = group.examined.parsed.keys
    if keys is None:
        return np.ones((len(group.uploads.ids), group.examined.parsed.table.num_columns), np.bool_)
    starts = group.uploads.starts[:-1]
    return np.stack([np.logical_or.reduceat(given, starts) for given in keys.given], axis=1)


def _unknown(group: RowGroup) -> list[list[Warning]]:
    """For each upload: keys outside the contract."""
    keys, count = group.examined.parsed.keys, len(group.uploads.ids)
    if keys is None or not keys.unknown:
        return [[] for _ in range(count)]
    return [
        [warning_of(*key, found.count, found.samples) for key, found in unknown_columns(counts).items()]
        for counts in keys.counts_by(group.uploads.owner, count)
    ]


def _redefined(group: RowGroup) -> list[list[Warning]]:
    """For each upload: rows that define one of its items again."""
    names = group.examined.parsed.table.column("item_id").to_pylist()
    seen: set[tuple[int, str]] = set()
    again: list[list[str]] = [[] for _ in group.uploads.ids]
    for row in group.examined.keep.tolist():
        key = (int(group.uploads.owner[row]), names[row])
        if key in seen:
            again[key[0]].append(names[row])
        seen.add(key)
    return [
        [warning_of("ITEM_REDEFINED", "item_id", len(items), items[:SAMPLES])] if items else []
        for items in again
    ]
