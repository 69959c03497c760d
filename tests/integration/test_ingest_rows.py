"""IngestRows against a real server: rows as JSON objects, whose values may have any type."""

import json
import math
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from harness.dialogue import Dialogue, chunk, failure_of, finish, header
from harness.phoenix import Phoenix

from headrace import Client
from headrace.v1 import ingest_pb2, row_pb2, upload_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT
GOOD: dict[str, Any] = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2026-01-01"}


def _request(
    tenant: str, rows: Sequence[dict[str, Any]], data_type: str = "interactions", request_id: str = ""
) -> ingest_pb2.IngestRowsRequest:
    structs = []
    for row in rows:
        structs.append(struct_pb2.Struct())
        structs[-1].update(row)
    return ingest_pb2.IngestRowsRequest(
        tenant_id=tenant, data_type=data_type, rows=structs, request_id=request_id
    )


def _fails(call: Any, request: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    return failure_of(caught.value)


ODD: list[tuple[dict[str, Any], set[tuple[str, str]]]] = [
    ({}, set()),
    ({"user_id": 7}, set()),
    ({"rating": None}, set()),
    ({"rating": math.nan}, set()),
    ({"rating": 3.5, "colour": "red"}, set()),
    ({"colour": {"deep": [1, {"er": None}]}, "": True}, set()),
    ({"rating": "five"}, {("rating", "BAD_TYPE")}),
    ({"rating": True}, {("rating", "BAD_TYPE")}),
    ({"rating": 6}, {("rating", "OUT_OF_RANGE")}),
    ({"rating": math.inf}, {("rating", "BAD_NUMBER")}),
    ({"user_id": 7.5}, {("user_id", "BAD_TYPE")}),
    ({"user_id": 2.0**60}, {("user_id", "BAD_TYPE")}),
    ({"user_id": None}, {("user_id", "MISSING")}),
    ({"user_id": math.nan}, {("user_id", "MISSING")}),
    ({"user_id": ["u"]}, {("user_id", "BAD_TYPE")}),
    (
        {"item_id": {"id": "i"}, "interaction_type": "nod"},
        {("item_id", "BAD_TYPE"), ("interaction_type", "NOT_IN_SET")},
    ),
    ({"timestamp": 1_767_225_600}, {("timestamp", "BAD_TYPE")}),
    ({"timestamp": "yesterday"}, {("timestamp", "BAD_TIMESTAMP")}),
]
"""What differs from a good row, and what it is rejected for: docs/semantics.md, JSON lines."""


def test_each_value_is_judged_as_in_a_line_of_json(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    rows = [{**GOOD, "item_id": f"i{number}", **odd} for number, (odd, _) in enumerate(ODD)]
    answer = stub.IngestRows(_request(tenant, rows))
    result = answer.result
    faults = {(number, *fault) for number, (_, found) in enumerate(ODD) for fault in found}
    bad = {number for number, _, _ in faults}
    assert {(each.row_number, each.column, each.code) for each in answer.row_errors.errors} == faults
    assert (result.outcome, result.rows_received) == (upload_pb2.OUTCOME_COMMITTED, len(ODD))
    assert (result.rows_accepted, result.rows_rejected) == (len(ODD) - len(bad), len(bad))
    warnings = {(each.code, each.column): each.count for each in result.report.warnings}
    assert warnings == {("UNKNOWN_COLUMN", "colour"): 2, ("UNNAMED_COLUMN", ""): 1}
    stored = client.read_table(tenant, "interactions").to_pylist()
    assert {row["row_number"]: (row["user_id"], row["item_id"], row["rating"]) for row in stored} == {
        number: ("7" if number == 1 else "u", f"i{number}", 3.5 if number == 4 else None)
        for number in range(len(ODD))
        if number not in bad
    }
    asked = upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=result.upload_id)
    listed = [each for page in stub.ListRejects(asked) for each in page.rejects]
    assert {(each.row_number, each.column, each.code) for each in listed} == faults
    assert not any(each.HasField("line") or each.HasField("byte_offset") for each in listed)


def test_the_report_is_that_of_a_sample_and_of_an_upload_of_the_same_lines(
    stub: PipelineServiceStub, tenant: str
) -> None:
    rows = [{**GOOD, **odd} for odd, _ in ODD if not any(map(_is_no_json, odd.values()))]
    request = _request(tenant, rows)
    report = stub.IngestRows(request).result.report
    sample = validation_pb2.ValidateSampleRequest(data_type="interactions", sample_data=request.rows)
    assert stub.ValidateSample(sample).report == report
    opening = header(tenant, format=upload_pb2.FORMAT_JSON_LINES)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    uploaded = Dialogue(stub, [opening, chunk(lines), finish()]).result.report
    for check in (*report.checks, *uploaded.checks):
        check.ClearField("samples")  # Which tell of lines, and show records as they were written.
    assert report == uploaded


def _is_no_json(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def test_columns_that_no_row_names_are_not_told_to_be_empty(stub: PipelineServiceStub, tenant: str) -> None:
    report = stub.IngestRows(_request(tenant, [{"item_id": "i", "title": "t", "brand": None}], "items"))
    assert [(each.code, each.column) for each in report.result.report.warnings] == [("ALL_NULL", "brand")]


def test_no_rows_too_many_and_too_large_ones_are_refused(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    for rows in ([], [GOOD] * 10_001):
        failure = _fails(stub.IngestRows, _request(tenant, rows))
        assert failure == (INVALID, "INVALID_FIELD", {"field": "rows"})
    large = _request(tenant, [{"item_id": "i", "title": "x" * (4 << 20)}], "items")
    code, reason, metadata = _fails(stub.IngestRows, large)
    assert (code, reason, metadata["limit_bytes"]) == (INVALID, "MESSAGE_TOO_LARGE", str(4 << 20))
    assert _fails(stub.IngestRows, _request(tenant, [GOOD], "users"))[2] == {"field": "data_type"}
    assert _fails(stub.IngestRows, _request("", [GOOD]))[2] == {"field": "tenant_id"}
    assert _fails(stub.IngestRows, _request(tenant, [GOOD], request_id="x"))[2] == {"field": "request_id"}
    assert client.list_tables(tenant) == []


def test_ten_thousand_bad_rows_are_counted_exactly_and_shown_in_part(
    stub: PipelineServiceStub, tenant: str
) -> None:
    answer = stub.IngestRows(_request(tenant, [{**GOOD, "rating": "five"}] * 9_999 + [GOOD]))
    (check,) = answer.result.report.checks
    assert (check.column, check.code, check.failing_rows, len(check.samples)) == (
        "rating",
        "BAD_TYPE",
        9_999,
        20,
    )
    assert (answer.result.rows_accepted, answer.result.rows_rejected) == (1, 9_999)
    assert [each.row_number for each in answer.row_errors.errors] == list(range(20))


def test_a_repeated_request_id_returns_the_first_answer(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    request = _request(tenant, [{**GOOD, "rating": 7, "colour": 1}, GOOD], request_id=str(uuid.uuid4()))
    first = stub.IngestRows(request)
    turned = _request(
        tenant, [dict(reversed(row.items())) for row in [{**GOOD, "rating": 7, "colour": 1}, GOOD]]
    )
    turned.request_id = request.request_id
    assert stub.IngestRows(request) == first == stub.IngestRows(turned)
    assert client.read_table(tenant, "interactions").num_rows == 1
    asked = upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=first.result.upload_id)
    assert stub.GetUpload(asked).result == first.result


def test_a_request_id_with_other_rows_or_in_another_call_is_refused(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    request_id = str(uuid.uuid4())
    stub.IngestRows(_request(tenant, [GOOD], request_id=request_id))
    taken = (grpc.StatusCode.ALREADY_EXISTS, "ID_IN_USE", {"request_id": request_id, "upload_id": request_id})
    other = _request(tenant, [{**GOOD, "rating": 5}], request_id=request_id)
    assert _fails(stub.IngestRows, other) == taken
    message = ingest_pb2.IngestInteractionsRequest(
        tenant_id=tenant, rows=[row_pb2.Interaction(**GOOD)], request_id=request_id
    )
    assert _fails(stub.IngestInteractions, message) == taken
    # Ids of the two data types never meet.
    stub.IngestRows(_request(tenant, [{"item_id": "i", "title": "t"}], "items", request_id))
    assert client.read_table(tenant, "interactions").num_rows == 1


def test_both_kinds_of_small_calls_at_once_lose_and_double_nothing(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    def send(number: int) -> int:
        row = {**GOOD, "user_id": f"u{number}"}
        if number % 2:
            return int(stub.IngestRows(_request(tenant, [row, {**row, "rating": "x"}])).result.version)
        message = ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=[row_pb2.Interaction(**row)])
        return int(stub.IngestInteractions(message).result.version)

    with ThreadPoolExecutor(32) as threads:
        versions = list(threads.map(send, range(300)))
    users = client.read_table(tenant, "interactions")["user_id"].to_pylist()
    assert sorted(users) == sorted(f"u{number}" for number in range(300))
    assert len(set(versions)) < 150


def test_what_was_acked_survives_kill_9_and_retries_double_nothing(phoenix: Phoenix, tenant: str) -> None:
    requests = [
        _request(
            tenant, [{**GOOD, "user_id": f"u{number}"}, {"user_id": number}], request_id=str(uuid.uuid4())
        )
        for number in range(200)
    ]
    acked: dict[str, ingest_pb2.IngestRowsResponse] = {}
    enough = threading.Event()
    uploads = _two_uploads(phoenix.address, tenant)

    def send(request: ingest_pb2.IngestRowsRequest) -> None:
        try:
            with grpc.insecure_channel(phoenix.address) as channel:
                acked[request.request_id] = PipelineServiceStub(channel).IngestRows(request, timeout=60)
        except grpc.RpcError:
            return
        if len(acked) == 60:
            enough.set()

    with ThreadPoolExecutor(8) as threads:
        for request in requests:
            threads.submit(send, request)
        assert enough.wait(60)
        phoenix.kill()
    before = dict(acked)
    assert 0 < len(before) < len(requests)
    phoenix.rest()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(send, requests))
    assert {request_id: acked[request_id] for request_id in before} == before
    _check_listed(phoenix.address, tenant, uploads)
    with Client(phoenix.address) as client:
        users = client.read_table(tenant, "interactions")["user_id"].to_pylist()
    assert sorted(users) == sorted(f"u{number}" for number in range(200))


def _two_uploads(address: str, tenant: str) -> list[str]:
    """An upload of items that ends, and one that is left open: a list must have both after a kill."""
    with grpc.insecure_channel(address) as channel:
        stub = PipelineServiceStub(channel)
        opening = header(tenant, data_type="items")
        ended = Dialogue(stub, [opening, chunk("item_id,title\ni,t\n"), finish()]).result.upload_id
        return [ended, Dialogue(stub, [opening]).started.upload_id]


def _check_listed(address: str, tenant: str, uploads: list[str]) -> None:
    """Looks for the two in a list, goes on with the open one, and looks again."""
    with grpc.insecure_channel(address) as channel:
        stub = PipelineServiceStub(channel)
        asked = upload_pb2.ListUploadsRequest(tenant_id=tenant)
        done, opened = upload_pb2.UPLOAD_STATE_DONE, upload_pb2.UPLOAD_STATE_OPEN
        listed = [(each.upload_id, each.state) for each in stub.ListUploads(asked).uploads]
        assert listed == [(uploads[1], opened), (uploads[0], done)]
        opening = header(tenant, data_type="items", upload_id=uploads[1])
        assert Dialogue(stub, [opening, chunk("item_id,title\nj,t\n"), finish()]).result.rows_accepted == 1
        accepted = [(each.upload_id, each.rows_accepted) for each in stub.ListUploads(asked).uploads]
        assert accepted == [(uploads[1], 1), (uploads[0], 1)]
