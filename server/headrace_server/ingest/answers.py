"""The answer to a small ingest, as its receipt stores it and as a message of the contract.

A receipt holds everything but the samples of rejects: those are read from the rejects themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from headrace.v1 import upload_pb2
from headrace_compute.delta import tables
from headrace_compute.findings import SAMPLES, Reject
from headrace_compute.model import DataType, StoreConfig
from headrace_compute.report import Check, ColumnSummary, Report, Warning
from headrace_server.rpc import messages

ERRORS = 20
"""Bad rows shown with an answer."""

_REJECT_FIELDS = [field.name for field in fields(Reject)]


@dataclass(frozen=True)
class Answer:
    """How a small ingest ended.

    Attributes:
        started_us: The `ingested_at` of its rows.
        version: The version of the data table that made its rows visible; None if none was accepted.
        rejects_key: The part that holds its rejects, among others'; empty if it has none.
    """

    upload_id: str
    started_us: int
    version: int | None
    report: Report
    rejects_key: str = ""

    @property
    def outcome(self) -> str:
        """COMMITTED or EMPTY: small ingests have no policy that could refuse them."""
        return outcome_of(self.report)


def outcome_of(report: Report) -> str:
    """COMMITTED if any row was accepted, EMPTY otherwise."""
    return "COMMITTED" if report.rows_accepted else "EMPTY"


def to_json(report: Report) -> list[Any]:
    """A report without samples, compact."""
    return [
        [report.rows_received, report.rows_accepted, report.rows_rejected, report.rows_duplicate],
        [
            [each.column, each.code, each.failing_rows, each.percent_of_rows, each.percent_of_non_null]
            for each in report.checks
        ],
        [[*vars(each).values()] for each in report.columns],
        [[*vars(each).values()] for each in report.warnings],
    ]


def from_json(body: Sequence[Any], rejects: Sequence[Mapping[str, Any]]) -> Report:
    """The report again.

    Args:
        body: What `to_json` made.
        rejects: The upload's rows of the rejects table, in order of row_number.
    """
    (received, accepted, rejected, duplicate), checks, columns, warnings = body
    return Report(
        rows_received=received,
        rows_accepted=accepted,
        rows_rejected=rejected,
        rows_duplicate=duplicate,
        checks=tuple(
            Check(column, code, failing, of_rows, of_filled, _samples(column, code, rejects))
            for column, code, failing, of_rows, of_filled in checks
        ),
        columns=tuple(ColumnSummary(*column) for column in columns),
        warnings=tuple(
            Warning(code, column, count, message, tuple(samples))
            for code, column, count, message, samples in warnings
        ),
    )


def result_message(
    config: StoreConfig, tenant: str, data_type: DataType, answer: Answer
) -> upload_pb2.UploadResult:
    """The result as the contract has it."""
    report = answer.report
    table = tables.table_key(config, tenant, data_type)
    rejects = tables.rejects_key(config, tenant)
    return upload_pb2.UploadResult(
        upload_id=answer.upload_id,
        outcome=upload_pb2.Outcome.Value(f"OUTCOME_{answer.outcome}"),
        table_uri=tables.table_uri(config, table) if answer.version is not None else "",
        version=answer.version,
        rows_received=report.rows_received,
        rows_accepted=report.rows_accepted,
        rows_rejected=report.rows_rejected,
        rows_duplicate=report.rows_duplicate,
        rejects_uri=tables.table_uri(config, rejects) if report.rows_rejected else "",
        report=messages.report_message(report),
    )


def row_errors(report: Report) -> upload_pb2.RowErrors:
    """The first bad rows."""
    samples = [sample for check in report.checks for sample in check.samples]
    samples.sort(key=lambda reject: reject.row_number)
    return upload_pb2.RowErrors(errors=map(messages.reject_message, samples[:ERRORS]))


def _samples(column: str, code: str, rejects: Sequence[Mapping[str, Any]]) -> tuple[Reject, ...]:
    rows = [row for row in rejects if (row["column"], row["code"]) == (column, code)]
    return tuple(Reject(**{name: row[name] for name in _REJECT_FIELDS}) for row in rows[:SAMPLES])
