"""Converts the pipeline's values to messages of the contract. No decisions are made here."""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.v1 import upload_pb2, validation_pb2
from headrace_compute.findings import Reject
from headrace_compute.report import Report, Warning
from headrace_compute.schemas.contract import SchemaDescription
from headrace_server.rpc.pages import pages

REJECTS_PER_MESSAGE = 1_000


def reject_message(reject: Reject) -> validation_pb2.Reject:
    """A reject of a report."""
    return validation_pb2.Reject(
        row_number=reject.row_number,
        line=reject.line,
        byte_offset=reject.byte_offset,
        column=reject.column,
        code=reject.code,
        message=reject.message,
        value=reject.value,
        raw=reject.raw,
        duplicate_of=reject.duplicate_of,
    )


def stored_reject_message(row: Mapping[str, Any]) -> validation_pb2.Reject:
    """A row of the rejects table."""
    names = validation_pb2.Reject.DESCRIPTOR.fields_by_name
    return validation_pb2.Reject(**{name: row[name] for name in names})


def reject_pages(rows: Sequence[Mapping[str, Any]]) -> list[upload_pb2.ListRejectsResponse]:
    """Rows of the rejects table, as messages that every client takes."""
    return pages(rows, _reject_page, REJECTS_PER_MESSAGE)


def _reject_page(rows: Sequence[Mapping[str, Any]]) -> upload_pb2.ListRejectsResponse:
    return upload_pb2.ListRejectsResponse(rejects=map(stored_reject_message, rows))


def report_message(report: Report) -> validation_pb2.Report:
    """A report."""
    message = validation_pb2.Report(
        rows_received=report.rows_received,
        rows_accepted=report.rows_accepted,
        rows_rejected=report.rows_rejected,
        rows_duplicate=report.rows_duplicate,
    )
    for check in report.checks:
        message.checks.add(
            column=check.column,
            code=check.code,
            failing_rows=check.failing_rows,
            percent_of_rows=check.percent_of_rows,
            percent_of_non_null=check.percent_of_non_null,
            samples=map(reject_message, check.samples),
        )
    for column in report.columns:
        message.columns.add(
            column=column.column,
            nulls=column.nulls,
            distinct_approx=column.distinct_approx,
            min=column.min,
            max=column.max,
            mean=column.mean,
        )
    message.warnings.extend(map(warning_message, report.warnings))
    return message


def warning_message(warning: Warning) -> validation_pb2.Warning:
    """A warning of a report or run."""
    return validation_pb2.Warning(
        code=warning.code,
        column=warning.column,
        count=warning.count,
        message=warning.message,
        samples=warning.samples,
    )


def schema_message(schema: SchemaDescription) -> validation_pb2.GetSchemaResponse:
    """The contract of a data type."""
    message = validation_pb2.GetSchemaResponse(data_type=schema.data_type)
    for column in schema.columns:
        entry = message.columns.add(
            name=column.name,
            type=column.type,
            required=column.required,
            description=column.description,
            allowed_values=column.allowed_values,
            minimum=column.minimum,
            maximum=column.maximum,
            max_bytes=column.max_bytes,
        )
        for rule in column.rules:
            entry.rules.add(code=rule.code, description=rule.description)
    for rule in schema.rules:
        message.rules.add(code=rule.code, description=rule.description)
    return message
