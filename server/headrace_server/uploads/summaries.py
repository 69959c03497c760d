"""Summaries: a tenant's uploads, the newest first, each in a line."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from headrace.v1 import upload_pb2
from headrace_compute.model import StoreConfig
from headrace_server.journal import listing
from headrace_server.journal.log import Record
from headrace_server.rows.options import UploadOptions
from headrace_server.rpc import requests
from headrace_server.services import Services
from headrace_server.uploads.index import listed_uploads
from headrace_server.uploads.records import journal_of

LISTED_UPLOADS = 100
"""Uploads of a list at most; some records of each are read."""

READERS = 8
"""Uploads whose records are read at a time."""


async def list_uploads(
    services: Services, request: upload_pb2.ListUploadsRequest
) -> upload_pb2.ListUploadsResponse:
    """A page of a tenant's uploads.

    Raises:
        InvalidFieldError: page_token is not of a page.
    """
    tenant = requests.check_tenant(request.tenant_id)
    if request.page_token and not listing.is_name(request.page_token):
        raise requests.bad_page_token(request.page_token)
    size = min(request.page_size or LISTED_UPLOADS, LISTED_UPLOADS)
    return await asyncio.to_thread(_page, services.config, tenant, request.page_token, size)


def _page(config: StoreConfig, tenant: str, after: str, size: int) -> upload_pb2.ListUploadsResponse:
    names = listed_uploads(config).page(tenant, after, size + 1)
    ids = map(listing.id_of, names[:size])
    with ThreadPoolExecutor(READERS, "summaries") as readers:
        found = list(readers.map(partial(_summary, config, tenant), ids))
    return upload_pb2.ListUploadsResponse(
        uploads=filter(None, found), next_page_token=names[size - 1] if len(names) > size else ""
    )


def _summary(config: StoreConfig, tenant: str, upload_id: str) -> upload_pb2.UploadSummary | None:
    """An upload as its first and its newest records tell of it; None if it has none."""
    found = journal_of(config, tenant, upload_id).ends(_tells_state)
    if found is None:
        return None
    opened, newest = found[0]["body"], {record["kind"]: record["body"] for record in found[1]}
    header = UploadOptions.from_json(opened["header"]).to_header(upload_id)
    summary = upload_pb2.UploadSummary(
        upload_id=upload_id,
        state=upload_pb2.UPLOAD_STATE_OPEN,
        data_type=header.data_type,
        format=header.format,
    )
    summary.create_time.FromMicroseconds(opened["started_us"])
    if "abort" in newest:
        summary.state = upload_pb2.UPLOAD_STATE_ABORTED
    elif "done" in newest:
        finish = newest["finish"]
        summary.state = upload_pb2.UPLOAD_STATE_DONE
        summary.outcome = upload_pb2.Outcome.Value(f"OUTCOME_{finish['outcome']}")
        summary.rows_received = finish["received"]
        summary.rows_accepted = finish["accepted"]
        summary.rows_rejected = finish["rejected"]
        summary.rows_duplicate = finish["duplicates"]
        if newest["done"]["version"] is not None:
            summary.version = newest["done"]["version"]
    elif "finish" in newest:
        summary.state = upload_pb2.UPLOAD_STATE_FINISHING
    return summary


def _tells_state(record: Record) -> bool:
    """Whether no older record matters: `done` needs its `finish`, `alive` and `epoch` say nothing."""
    return record["kind"] in ("finish", "abort", "block", "staged")
