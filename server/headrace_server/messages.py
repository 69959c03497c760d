"""From the pipeline's own values to the messages of the contract. Nothing is decided here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.v1 import health_pb2, upload_pb2, validation_pb2
from headrace_compute.findings import Findings, Reject
from headrace_compute.model import StoreConfig
from headrace_compute.report import Report, Warning, report_of
from headrace_compute.schemas.contract import SchemaDescription
from headrace_compute.storage import tables
from headrace_server.health import Health
from headrace_server.settings import Settings
from headrace_server.uploads.session import Session

REJECTS_A_MESSAGE = 1_000


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


def reject_pages(rows: Sequence[Mapping[str, Any]]) -> Iterator[upload_pb2.ListRejectsResponse]:
    """Rows of the rejects table, a thousand a message."""
    for start in range(0, len(rows), REJECTS_A_MESSAGE):
        some = rows[start : start + REJECTS_A_MESSAGE]
        yield upload_pb2.ListRejectsResponse(rejects=map(stored_reject_message, some))


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


def result_message(config: StoreConfig, session: Session) -> upload_pb2.UploadResult:
    """How an ended upload ended: from its finish and done records, so always the same."""
    finish, done = session.finish, session.done
    if finish is None or done is None:
        raise ValueError(f"upload {session.upload_id} has not ended")
    findings = Findings.from_json(finish["findings"])
    table = tables.table_key(config, session.tenant, session.header["data_type"])
    rejects = tables.rejects_key(config, session.tenant)
    return upload_pb2.UploadResult(
        upload_id=session.upload_id,
        outcome=upload_pb2.Outcome.Value(f"OUTCOME_{finish['outcome']}"),
        table_uri=tables.table_uri(config, table) if done["version"] is not None else "",
        version=done["version"],
        rows_received=finish["received"],
        rows_accepted=finish["accepted"],
        rows_rejected=finish["rejected"],
        rows_duplicate=finish["duplicates"],
        rejects_uri=tables.table_uri(config, rejects) if done["rejects_version"] is not None else "",
        refusal=finish["refusal"],
        report=report_message(report_of(findings)),
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


def health_message(settings: Settings, health: Health) -> health_pb2.CheckHealthResponse:
    """How the server is."""
    message = health_pb2.CheckHealthResponse(
        status=health.status,
        service=settings.service_name,
        version=settings.version,
        kafka_connected=health.events,
        s3_connected=health.store,
        mode="cluster" if settings.s3_endpoint else "embedded",
    )
    message.timestamp.GetCurrentTime()
    return message
