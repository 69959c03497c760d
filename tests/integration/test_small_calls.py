"""Ingest, validation, schema and table calls against a real server."""

import math
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2, timestamp_pb2
from harness.dialogue import HEADER, Dialogue, chunk, failure_of, finish, header, info_of, lines
from harness.server import Server

from headrace import Client
from headrace.errors import InvalidArgumentError, NoInteractionsError
from headrace.v1 import ingest_pb2, row_pb2, run_pb2, table_pb2, upload_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

GOOD = row_pb2.Interaction(user_id="u", item_id="i", interaction_type="view", timestamp="2026-01-01")
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def _fails(call: Any, request: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.RpcError) as caught:
        answer = call(request, timeout=30)
        list(answer) if hasattr(answer, "__iter__") else None
    return failure_of(caught.value)


def test_an_ingested_row_is_visible_when_the_call_returns(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    answer = stub.IngestInteractions(ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=[GOOD]))
    assert answer.result.outcome == upload_pb2.OUTCOME_COMMITTED
    assert client.read_table(tenant, "interactions").num_rows == 1


def test_a_repeated_request_id_returns_the_first_answer(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    request = ingest_pb2.IngestItemsRequest(
        tenant_id=tenant, rows=[row_pb2.Item(item_id="i", title="t", price=1.5)], request_id=str(uuid.uuid4())
    )
    first, second = stub.IngestItems(request), stub.IngestItems(request)
    assert first == second
    assert client.read_table(tenant, "items").num_rows == 1


def test_bad_rows_of_an_ingest_are_told_in_the_answer(stub: PipelineServiceStub, tenant: str) -> None:
    bad = row_pb2.Interaction(user_id="u\x07", item_id="i", interaction_type="view", timestamp="tomorrow")
    answer = stub.IngestInteractions(ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=[GOOD, bad]))
    assert (answer.result.rows_accepted, answer.result.rows_rejected) == (1, 1)
    errors = {(each.row_number, each.column, each.code) for each in answer.row_errors.errors}
    assert errors == {(1, "user_id", "BAD_TEXT"), (1, "timestamp", "BAD_TIMESTAMP")}


def test_an_ingest_without_rows_or_with_too_many_is_refused(stub: PipelineServiceStub, tenant: str) -> None:
    for rows in ([], [GOOD] * 10_001):
        request = ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=rows)
        assert _fails(stub.IngestInteractions, request) == (INVALID, "INVALID_FIELD", {"field": "rows"})


def test_validate_reports_as_upload_does_and_stores_nothing(
    stub: PipelineServiceStub, client: Client, server: Server, tenant: str
) -> None:
    data = HEADER + lines(3000) + lines(7) + "u,,nod,32-01-01,six\n"
    requests = [
        validation_pb2.ValidateRequest(header=validation_pb2.ValidateHeader(data_type="interactions")),
        validation_pb2.ValidateRequest(chunk=validation_pb2.ValidateChunk(text=data)),
        validation_pb2.ValidateRequest(finish=validation_pb2.ValidateFinish()),
    ]
    *progress, last = stub.Validate(iter(requests))
    assert all(each.WhichOneof("response") == "progress" for each in progress)
    report = Dialogue(stub, [header(tenant), chunk(data), finish()]).result.report
    assert last.report == report
    assert (report.rows_received, report.rows_duplicate, report.rows_rejected) == (3008, 7, 8)
    scratch = server.data_dir / "raw-data" / "_headrace" / "scratch"
    assert [path for path in scratch.rglob("*") if path.is_file()] == []


def test_a_validation_out_of_order_is_refused_in_band(stub: PipelineServiceStub) -> None:
    request = validation_pb2.ValidateRequest(finish=validation_pb2.ValidateFinish())
    responses: list[validation_pb2.ValidateResponse] = []
    with pytest.raises(grpc.RpcError) as caught:
        responses.extend(stub.Validate(iter([request])))
    assert failure_of(caught.value)[:2] == (INVALID, "UNEXPECTED_MESSAGE")


def test_a_sample_of_json_objects_is_validated(stub: PipelineServiceStub) -> None:
    rows: list[dict[str, Any]] = [
        {"user_id": 70, "item_id": "i", "interaction_type": "like", "timestamp": "2026-01-01", "rating": 5},
        {
            "user_id": 0.5,
            "item_id": "i",
            "interaction_type": "like",
            "timestamp": "2026-01-01",
            "rating": "5",
        },
        {
            "user_id": "u",
            "item_id": "i",
            "interaction_type": "like",
            "timestamp": "2026-01-01",
            "colour": "red",
        },
    ]
    request = validation_pb2.ValidateSampleRequest(data_type="interactions")
    for row in rows:
        request.sample_data.append(json_format.ParseDict(row, struct_pb2.Struct()))
    report = stub.ValidateSample(request).report
    assert (report.rows_received, report.rows_accepted, report.rows_rejected) == (3, 2, 1)
    assert {(check.column, check.code) for check in report.checks} == {
        ("user_id", "BAD_TYPE"),
        ("rating", "BAD_TYPE"),
    }
    assert [(warning.code, warning.column) for warning in report.warnings] == [("UNKNOWN_COLUMN", "colour")]


def test_a_sample_with_nan_is_reported_on(stub: PipelineServiceStub) -> None:
    request = validation_pb2.ValidateSampleRequest(data_type="interactions")
    for number in (math.nan, math.inf):
        row = request.sample_data.add()
        row.update({"user_id": "u", "item_id": "i", "interaction_type": "like", "timestamp": "2026-01-01"})
        row.update({"rating": number, "nested": {"list": [number, None, True]}})
    report = stub.ValidateSample(request).report
    assert {(check.column, check.code): check.failing_rows for check in report.checks} == {
        ("rating", "BAD_NUMBER"): 1
    }


def test_the_schema_is_the_contract(stub: PipelineServiceStub) -> None:
    schema = stub.GetSchema(validation_pb2.GetSchemaRequest(data_type="interactions"))
    columns = {column.name: column for column in schema.columns}
    assert list(columns) == ["user_id", "item_id", "interaction_type", "timestamp", "rating"]
    assert [column.required for column in schema.columns] == [True, True, True, True, False]
    assert set(columns["interaction_type"].allowed_values) == {
        "view",
        "click",
        "purchase",
        "like",
        "add_to_cart",
    }
    assert (columns["rating"].minimum, columns["rating"].maximum) == (1.0, 5.0)
    assert columns["user_id"].max_bytes == 256
    codes = {rule.code for column in schema.columns for rule in column.rules} | {
        rule.code for rule in schema.rules
    }
    assert codes >= {
        "MISSING", "TOO_LONG", "BAD_TEXT", "NOT_IN_SET", "BAD_TIMESTAMP", "FUTURE_TIMESTAMP", "BAD_NUMBER",
        "OUT_OF_RANGE", "WRONG_FIELD_COUNT", "DUPLICATE",
    }  # fmt: skip
    assert _fails(stub.GetSchema, validation_pb2.GetSchemaRequest(data_type="users"))[1] == "INVALID_FIELD"


def test_rows_are_read_as_json_with_columns_limit_and_version(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    for n in range(2):
        client.ingest_interactions(tenant, [{**_row(), "item_id": f"i{n}"}])
    request = table_pb2.ReadTableRequest(
        tenant_id=tenant, table="interactions", columns=["item_id", "row_number"]
    )
    started, *rest = stub.ReadTable(request)
    assert (started.started.rows, list(started.started.columns)) == (2, ["item_id", "row_number"])
    rows = [json_format.MessageToDict(row) for message in rest for row in message.json.rows]
    assert sorted(rows, key=str) == [
        {"item_id": "i0", "row_number": "0"},
        {"item_id": "i1", "row_number": "0"},
    ]
    assert client.read_table(tenant, "interactions", limit=1).num_rows == 1
    assert client.read_table(tenant, "interactions", version=1).num_rows == 1


def test_what_is_not_there_is_not_found(stub: PipelineServiceStub, client: Client, tenant: str) -> None:
    missing = grpc.StatusCode.NOT_FOUND
    read = table_pb2.ReadTableRequest(tenant_id=tenant, table="interactions")
    assert _fails(stub.ReadTable, read) == (missing, "TABLE_NOT_FOUND", {"table": "interactions"})
    read = table_pb2.ReadTableRequest(tenant_id=tenant, table="../../etc")
    assert _fails(stub.ReadTable, read)[:2] == (missing, "TABLE_NOT_FOUND")
    client.ingest_interactions(tenant, [_row()])
    read = table_pb2.ReadTableRequest(tenant_id=tenant, table="interactions", version=9)
    expected = {"table": "interactions", "version": "9", "newest": "1"}
    assert _fails(stub.ReadTable, read) == (missing, "VERSION_NOT_FOUND", expected)
    read = table_pb2.ReadTableRequest(tenant_id=tenant, table="interactions", columns=["colour"])
    assert _fails(stub.ReadTable, read) == (INVALID, "INVALID_FIELD", {"field": "columns"})
    read = table_pb2.ReadTableRequest(
        tenant_id=tenant, table="interactions", columns=["user_id", "item_id", "user_id"]
    )
    assert _fails(stub.ReadTable, read) == (INVALID, "INVALID_FIELD", {"field": "columns"})
    upload_id = str(uuid.uuid4())
    for call, request in (
        (stub.GetUpload, upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=upload_id)),
        (stub.ListRejects, upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=upload_id)),
        (stub.AbortUpload, upload_pb2.AbortUploadRequest(tenant_id=tenant, upload_id=upload_id)),
    ):
        assert _fails(call, request) == (missing, "UPLOAD_NOT_FOUND", {"upload_id": upload_id})


def test_what_no_call_can_mean_is_told_by_its_field(stub: PipelineServiceStub, tenant: str) -> None:
    read = table_pb2.ReadTableRequest(tenant_id=tenant)
    assert _fails(stub.ReadTable, read) == (INVALID, "INVALID_FIELD", {"field": "table"})
    bad_page = (INVALID, "INVALID_FIELD", {"field": "page_token"})
    for token in ("zzz", "../..", "9", f"{10**15}-{uuid.uuid4()}x"):
        tables = table_pb2.ListTablesRequest(tenant_id=tenant, page_token=token)
        assert _fails(stub.ListTables, tables) == bad_page
        runs = run_pb2.ListRunsRequest(tenant_id=tenant, page_token=token)
        assert _fails(stub.ListRuns, runs) == bad_page


def test_rejects_of_an_open_upload_cannot_be_listed_yet(stub: PipelineServiceStub, tenant: str) -> None:
    upload_id = Dialogue(stub, [header(tenant)]).started.upload_id
    request = upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=upload_id)
    assert _fails(stub.ListRejects, request)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_OPEN")


def test_runs_without_interactions_or_positives_say_what_to_change(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    code = grpc.StatusCode.FAILED_PRECONDITION
    features = run_pb2.ComputeFeaturesRequest(tenant_id=tenant)
    negatives = run_pb2.SampleNegativesRequest(tenant_id=tenant)
    assert _fails(stub.ComputeFeatures, features)[:2] == (code, "NO_INTERACTIONS")
    assert _fails(stub.SampleNegatives, negatives)[:2] == (code, "NO_INTERACTIONS")
    client.ingest_interactions(tenant, [_row()])
    early = run_pb2.ComputeFeaturesRequest(tenant_id=tenant)
    early.as_of.FromJsonString("2020-01-01T00:00:00Z")
    assert _fails(stub.ComputeFeatures, early)[:2] == (code, "NO_INTERACTIONS")
    failure = _fails(stub.SampleNegatives, negatives)
    assert failure[:2] == (code, "NO_POSITIVES")
    assert failure[2] == {
        "pairs": "1",
        "core_pairs": "0",
        "min_interactions_per_user": "5",
        "min_interactions_per_item": "5",
    }
    assert [table.name for table in client.list_tables(tenant)] == ["interactions"]


def test_an_event_at_the_end_of_time_is_a_run_s_newest(stub: PipelineServiceStub, tenant: str) -> None:
    rows = HEADER + "u,a,click,2024-01-01T00:00:00Z,\nu,b,click,9999-12-31T23:59:59.999999Z,\n"
    opening = header(tenant)
    opening.header.max_future_skew.FromTimedelta(timedelta(days=3_000_000))
    assert Dialogue(stub, [opening, chunk(rows), finish()]).result.rows_accepted == 2
    features = run_pb2.ComputeFeaturesRequest(tenant_id=tenant)
    negatives = run_pb2.SampleNegativesRequest(
        tenant_id=tenant, min_interactions_per_user=0, min_interactions_per_item=0
    )
    made = list(stub.ComputeFeatures(features))[-1].result
    assert (made.interactions, made.as_of.ToJsonString()) == (2, "9999-12-31T23:59:59.999999999Z")
    sampled = list(stub.SampleNegatives(negatives))[-1].result
    assert (sampled.source_pairs, sampled.as_of) == (2, made.as_of)
    features.as_of.CopyFrom(made.as_of)
    assert list(stub.ComputeFeatures(features))[-1].result.interactions == 2


def _leave_last_out() -> run_pb2.Split:
    return run_pb2.Split(leave_last_out=run_pb2.LeaveLastOutSplit())


def _temporal(cuts: Sequence[int] = (), fractions: Sequence[float] = ()) -> run_pb2.Split:
    moments = [timestamp_pb2.Timestamp(seconds=cut) for cut in cuts]
    return run_pb2.Split(temporal=run_pb2.TemporalSplit(cuts=moments, fractions=fractions))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"negative_ratio": 0}, "negative_ratio"),
        ({"negative_ratio": 1001}, "negative_ratio"),
        ({"strategy": "random"}, "strategy"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"zipf_exponent": 4.5}, "zipf_exponent"),
        ({"uniform_share": 1.5}, "uniform_share"),
        ({"zipf_exponent": 1.5}, "zipf_exponent"),
        ({"uniform_share": 0.0}, "uniform_share"),
        ({"strategy": "uniform", "alpha": 0.5}, "alpha"),
        ({"strategy": "zipf", "alpha": 0.0}, "alpha"),
        ({"strategy": "exposed", "uniform_share": 0.4}, "uniform_share"),
        ({"same_category_share": -0.1}, "same_category_share"),
        ({"same_category_share": 1.01}, "same_category_share"),
        ({"same_category_share": float("nan")}, "same_category_share"),
        (
            {"strategy": "exposed", "positive_interaction_types": ["view", "click"]},
            "positive_interaction_types",
        ),
        ({"positive_interaction_types": ["nod"]}, "positive_interaction_types"),
        ({"split": run_pb2.Split()}, "split"),
        ({"split": _temporal()}, "split.temporal"),
        ({"split": _temporal(cuts=[1], fractions=[0.5])}, "split.temporal"),
        ({"split": _temporal(cuts=[1, 2, 3])}, "split.temporal.cuts"),
        ({"split": _temporal(cuts=[2, 1])}, "split.temporal.cuts"),
        ({"split": _temporal(cuts=[-(10**15)])}, "split.temporal.cuts"),
        ({"split": _temporal(cuts=[5]), "as_of": timestamp_pb2.Timestamp(seconds=5)}, "split.temporal.cuts"),
        ({"split": _temporal(fractions=[0.0])}, "split.temporal.fractions"),
        ({"split": _temporal(fractions=[float("nan")])}, "split.temporal.fractions"),
        ({"split": _temporal(fractions=[0.5, 0.5])}, "split.temporal.fractions"),
        ({"with_features": "daily"}, "with_features"),
        ({"with_features": "snapshot", "split": _leave_last_out()}, "with_features"),
        ({"feature_columns": ["item_price"]}, "feature_columns"),
        ({"with_features": "snapshot", "feature_columns": ["item_prise"]}, "feature_columns"),
        ({"with_features": "snapshot", "feature_columns": ["user_recent_items"]}, "feature_columns"),
        ({"history": 1001}, "history"),
        ({"history_timestamps": True}, "history_timestamps"),
        ({"history_interaction_types": ["view"]}, "history_interaction_types"),
        ({"history": 5, "history_interaction_types": ["nod"]}, "history_interaction_types"),
        ({"eval_negative_ratio": 5}, "eval_negative_ratio"),
        ({"split": _temporal(fractions=[0.5]), "eval_negative_ratio": 0}, "eval_negative_ratio"),
        ({"dataset": "interactions"}, "dataset"),
        ({"dataset": "../x"}, "dataset"),
    ],
)
def test_a_bad_sampling_parameter_is_named(
    stub: PipelineServiceStub, tenant: str, fields: dict[str, Any], field: str
) -> None:
    request = run_pb2.SampleNegativesRequest(tenant_id=tenant, **fields)
    assert _fails(stub.SampleNegatives, request) == (INVALID, "INVALID_FIELD", {"field": field})


def test_a_parameter_that_its_strategy_does_not_heed_is_told_with_those_that_do(
    client: Client, tenant: str
) -> None:
    told = "zipf_exponent is 2.0, which strategy popularity does not heed; leave it out, or choose zipf"
    with pytest.raises(InvalidArgumentError, match=told):
        client.sample_negatives(tenant, zipf_exponent=2.0)
    told = "alpha is 1.0, which strategy uniform .* or choose popularity or mixed or exposed"
    with pytest.raises(InvalidArgumentError, match=told):
        client.sample_negatives(tenant, strategy="uniform", alpha=1.0)
    # A default that is written out means nothing.
    with pytest.raises(NoInteractionsError):
        client.sample_negatives(tenant, strategy="uniform", alpha=0.75, zipf_exponent=1.0, uniform_share=0.5)


def test_every_call_answers_with_its_request_id(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        request = validation_pb2.GetSchemaRequest(data_type="items")
        _, call = PipelineServiceStub(channel).GetSchema.with_call(
            request, metadata=(("x-request-id", "abc"),)
        )
        assert dict(call.trailing_metadata())["x-request-id"] == "abc"
    assert server.logged(request_id="abc", code="OK")


def test_rows_of_a_run_are_streamed_on_request(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    client.ingest_interactions(tenant, [_row()])
    responses = list(
        stub.ComputeFeatures(run_pb2.ComputeFeaturesRequest(tenant_id=tenant, include_rows=True))
    )
    kinds = [response.WhichOneof("response") for response in responses]
    assert kinds[-3:] == ["rows", "rows", "result"]
    assert set(kinds[:-3]) == {"progress"}
    assert {response.rows.table for response in responses[-3:-1]} == {"user_features", "item_features"}


def test_a_run_tells_nothing_but_its_result_on_request(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    client.ingest_interactions(tenant, [_row()])
    every: dict[str, Any] = {"min_interactions_per_user": 0, "min_interactions_per_item": 0}
    request_id = str(uuid.uuid4())
    features = run_pb2.ComputeFeaturesRequest(tenant_id=tenant, omit_progress=True, request_id=request_id)
    negatives = run_pb2.SampleNegativesRequest(tenant_id=tenant, omit_progress=True, **every)
    (made,) = stub.ComputeFeatures(features)
    (sampled,) = stub.SampleNegatives(negatives)
    assert (made.result.interactions, sampled.result.positives) == (1, 1)
    negatives.include_rows = True
    assert [each.WhichOneof("response") for each in stub.SampleNegatives(negatives)] == ["rows", "result"]
    # It is the same run, however it is to be told of.
    features.omit_progress = False
    assert list(stub.ComputeFeatures(features))[-1] == made
    early = run_pb2.ComputeFeaturesRequest(tenant_id=f"{tenant}-other", omit_progress=True)
    assert _fails(stub.ComputeFeatures, early)[1] == "NO_INTERACTIONS"


def _row() -> dict[str, Any]:
    return {"user_id": "u", "item_id": "i", "interaction_type": "like", "timestamp": "2026-01-01"}


def test_a_request_above_the_limit_is_told_with_its_remedy(client: Client, tenant: str) -> None:
    rows = [{"item_id": str(n), "title": "t", "description": "x" * 2_000} for n in range(9_000)]
    with pytest.raises(InvalidArgumentError, match=r"16,777,216 is the most .* send fewer rows") as caught:
        client.ingest_items(tenant, rows)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not caught.value.retryable


def test_tables_are_listed_by_pages(stub: PipelineServiceStub, client: Client, tenant: str) -> None:
    client.ingest_interactions(tenant, [_row()])
    client.ingest_items(tenant, [{"item_id": "i", "title": "t"}])
    request = table_pb2.ListTablesRequest(tenant_id=tenant, page_size=4)
    found = []
    while True:
        page = stub.ListTables(request)
        found += [table.name for table in page.tables]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == ["interactions", "items"] == [table.name for table in client.list_tables(tenant)]


def test_a_message_of_empty_rows_is_refused_before_it_is_decoded(stub: PipelineServiceStub) -> None:
    rows = row_pb2.RowBatch(items=[row_pb2.Item()] * 1_000_000)
    requests = [
        validation_pb2.ValidateRequest(header=validation_pb2.ValidateHeader(data_type="items")),
        validation_pb2.ValidateRequest(chunk=validation_pb2.ValidateChunk(rows=rows)),
    ]
    told = []
    with pytest.raises(grpc.RpcError) as caught:
        for response in stub.Validate(iter(requests), compression=grpc.Compression.Gzip, timeout=60):
            told.append(response)
    assert [info_of(response.error)[0] for response in told] == ["INVALID_FIELD"]
    assert failure_of(caught.value) == (INVALID, "INVALID_FIELD", {"field": "chunk.rows.items"})
