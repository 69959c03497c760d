"""The report that clients read, derived from findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headrace_compute.distinct import estimate
from headrace_compute.findings import Bound, ColumnFindings, Findings, Reject, WarningFindings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

END_US = 253_402_300_800_000_000
"""The end of the year 9999 in microseconds since the epoch: no event is at it or after it."""


@dataclass(frozen=True)
class Check:
    """One rule that was broken; fields as in headrace.v1.Check."""

    column: str
    code: str
    failing_rows: int
    percent_of_rows: float
    percent_of_non_null: float
    samples: tuple[Reject, ...]


@dataclass(frozen=True)
class ColumnSummary:
    """The values of one column; fields as in headrace.v1.ColumnSummary."""

    column: str
    nulls: int
    distinct_approx: int
    min: str | None
    max: str | None
    mean: float | None


@dataclass(frozen=True)
class Warning:
    """Something odd that rejects no row; fields as in headrace.v1.Warning."""

    code: str
    column: str
    count: int
    message: str
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What validation found; fields as in headrace.v1.Report."""

    rows_received: int
    rows_accepted: int
    rows_rejected: int
    rows_duplicate: int
    checks: tuple[Check, ...]
    columns: tuple[ColumnSummary, ...]
    warnings: tuple[Warning, ...]


def report_of(findings: Findings) -> Report:
    """The report on some findings."""
    return Report(
        rows_received=findings.received,
        rows_accepted=findings.accepted,
        rows_rejected=findings.rejected,
        rows_duplicate=findings.duplicates,
        checks=_checks(findings),
        columns=tuple(_summary(name, column) for name, column in findings.columns.items()),
        warnings=_warnings(findings),
    )


def warning_of(code: str, column: str, count: int, samples: Sequence[str]) -> Warning:
    """A warning with its message.

    Args:
        count: Rows concerned; 0 when a column as a whole is.
        samples: Values concerned.
    """
    return Warning(code, column, count, _message(code, column, count, samples), tuple(samples))


def iso_time(time_us: int) -> str:
    """Microseconds since the epoch as ISO 8601 in UTC; the end of the year 9999 as its last nanosecond."""
    if time_us >= END_US:
        return "9999-12-31T23:59:59.999999999Z"
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


def _checks(findings: Findings) -> tuple[Check, ...]:
    place = {name: i for i, name in enumerate(findings.columns)}
    keys = sorted(findings.checks, key=lambda key: (place.get(key[0], len(place)), key[1]))
    return tuple(_check(findings, *key) for key in keys)


def _check(findings: Findings, column: str, code: str) -> Check:
    check = findings.checks[column, code]
    nulls = findings.columns[column].nulls if column in findings.columns else 0
    return check_of(column, code, check.failing_rows, findings.received, nulls, check.samples)


def check_of(
    column: str, code: str, failing_rows: int, received: int, nulls: int, samples: tuple[Reject, ...]
) -> Check:
    """A broken rule with its shares.

    Args:
        received: Records in all.
        nulls: Of these, the ones in which the column is empty.
    """
    # A missing value fails in no record that has one.
    failing_filled = 0 if code == "MISSING" else failing_rows
    return Check(
        column=column,
        code=code,
        failing_rows=failing_rows,
        percent_of_rows=_percent(failing_rows, received),
        percent_of_non_null=_percent(failing_filled, received - nulls),
        samples=samples,
    )


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def _summary(name: str, column: ColumnFindings) -> ColumnSummary:
    return ColumnSummary(
        column=name,
        nulls=column.nulls,
        distinct_approx=estimate(column.sketch),
        min=_text(column, column.minimum),
        max=_text(column, column.maximum),
        mean=column.total / column.numbers if column.numbers else None,
    )


def _text(column: ColumnFindings, bound: Bound | None) -> str | None:
    if bound is None:
        return None
    return iso_time(int(bound)) if column.type == "timestamp" else str(bound)


def _warnings(findings: Findings) -> tuple[Warning, ...]:
    warnings = dict(findings.warnings)
    for name, column in findings.columns.items():
        if column.present and column.nulls == findings.received > findings.unreadable:
            warnings["ALL_NULL", name] = WarningFindings()
    return tuple(
        warning_of(code, column, warning.count, warning.samples)
        for (code, column), warning in sorted(warnings.items())
    )


def _message(code: str, column: str, count: int, samples: Sequence[str]) -> str:
    match code:
        case "ALL_NULL":
            return f"{column} is empty in every row; check that the column is the one you mean."
        case "UNKNOWN_COLUMN" if column:
            return f"{column!r} is not a column of the contract and was ignored; rename it or leave it out."
        case "UNKNOWN_COLUMN":
            return "More columns outside the contract were ignored; leave them out."
        case "UNNAMED_COLUMN" if count:
            return f"A key without a name was ignored in {count} rows; name it or leave it out."
        case "UNNAMED_COLUMN":
            places = ", ".join(samples)
            return (
                f"Columns without a name were ignored (places from 1: {places}); name them or leave them out."
            )
        case "ITEM_REDEFINED":
            return f"{count} rows define an item again with other values; the last row of an item counts."
        case "REJECTS_LEFT_OUT":
            return f"{count} rejects are counted but not listed, as they are so many; go by those listed."
        case "UNKNOWN_ITEM":
            return f"{count} interactions are with items that the catalog lacks; upload those items."
    return code
