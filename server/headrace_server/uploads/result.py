"""The result of an ended upload, as the contract says it."""

from headrace.v1 import upload_pb2
from headrace_compute.delta import tables
from headrace_compute.findings import Findings
from headrace_compute.model import StoreConfig
from headrace_compute.report import report_of
from headrace_server.rpc.messages import report_message
from headrace_server.uploads.session import Session


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
