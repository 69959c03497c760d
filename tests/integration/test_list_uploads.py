"""ListUploads against a real server."""

import uuid
from typing import Any

import grpc
import pytest
from harness.dialogue import HEADER, Dialogue, Talk, chunk, failure_of, finish, header, lines

from headrace import Client
from headrace.v1 import upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

BAD = "u,i,nod,2026-01-01,\n"


def _list(stub: PipelineServiceStub, tenant: str, **fields: Any) -> list[upload_pb2.UploadSummary]:
    return list(stub.ListUploads(upload_pb2.ListUploadsRequest(tenant_id=tenant, **fields)).uploads)


def test_uploads_are_listed_with_how_they_ended(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    assert _list(stub, tenant) == []
    client.ingest_interactions(
        tenant, [{"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2026-01-01"}]
    )
    rows = HEADER + lines(3) + lines(1) + BAD
    done = Dialogue(stub, [header(tenant), chunk(rows), finish()]).result
    strict = header(tenant, policy=upload_pb2.POLICY_ALL_OR_NOTHING)
    refused = Dialogue(stub, [strict, chunk(rows), finish()]).result
    empty = Dialogue(stub, [header(tenant), chunk(HEADER + BAD), finish()]).result
    left = Dialogue(stub, [header(tenant)]).started.upload_id
    talk = Talk(stub, header(tenant, data_type="items", format=upload_pb2.FORMAT_JSON_LINES))
    opened = talk.wait_for("started").upload_id
    stub.AbortUpload(upload_pb2.AbortUploadRequest(tenant_id=tenant, upload_id=left))
    found = [
        (each.upload_id, each.state, each.outcome, each.data_type, each.format)
        for each in _list(stub, tenant)
    ]
    state, csv = upload_pb2.UploadState, upload_pb2.FORMAT_CSV
    assert found == [
        (opened, state.UPLOAD_STATE_OPEN, 0, "items", upload_pb2.FORMAT_JSON_LINES),
        (left, state.UPLOAD_STATE_ABORTED, 0, "interactions", csv),
        (empty.upload_id, state.UPLOAD_STATE_DONE, upload_pb2.OUTCOME_EMPTY, "interactions", csv),
        (refused.upload_id, state.UPLOAD_STATE_DONE, upload_pb2.OUTCOME_REFUSED, "interactions", csv),
        (done.upload_id, state.UPLOAD_STATE_DONE, upload_pb2.OUTCOME_COMMITTED, "interactions", csv),
    ]
    *_, committed = _list(stub, tenant)
    assert (committed.version, committed.rows_received, committed.rows_accepted) == (done.version, 5, 3)
    assert (committed.rows_rejected, committed.rows_duplicate) == (2, 1)
    asked = upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=done.upload_id)
    assert committed.create_time == stub.GetUpload(asked).create_time
    talk.end()
    assert _list(stub, f"{tenant}-other") == []


def test_pages_have_the_size_asked_for_and_no_other_tokens(stub: PipelineServiceStub, tenant: str) -> None:
    ids = [Dialogue(stub, [header(tenant)]).started.upload_id for _ in range(5)]
    request = upload_pb2.ListUploadsRequest(tenant_id=tenant, page_size=2)
    sizes, found = [], []
    while True:
        page = stub.ListUploads(request)
        sizes.append(len(page.uploads))
        found += [each.upload_id for each in page.uploads]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert (sizes, found) == ([2, 2, 1], ids[::-1])
    for token in ("zzz", "../..", f"{10**15}-{uuid.uuid4()}x"):
        with pytest.raises(grpc.RpcError) as caught:
            _list(stub, tenant, page_token=token)
        invalid = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", {"field": "page_token"})
        assert failure_of(caught.value) == invalid
