"""A hundred thousand bad rows, by every door: the total is exact, what is shown is bounded."""

from collections.abc import Sequence
from typing import Any

import pytest
from harness.dialogue import HEADER, Dialogue, chunk, finish, header

from headrace.v1 import ingest_pb2, upload_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

BAD = 100_000
GOOD = 3


def _csv() -> str:
    rows = [f"u,i{n},{'nod' if n < BAD else 'view'},2026-01-01,\n" for n in range(BAD + GOOD)]
    return HEADER + "".join(rows)


def _check(report: validation_pb2.Report, bad: int, good: int, first: Sequence[int]) -> None:
    assert (report.rows_received, report.rows_accepted, report.rows_rejected) == (bad + good, good, bad)
    (check,) = report.checks
    assert (check.column, check.code, check.failing_rows) == ("interaction_type", "NOT_IN_SET", bad)
    assert check.percent_of_rows == pytest.approx(100 * bad / (bad + good))
    assert [sample.row_number for sample in check.samples] == list(first)


def test_an_upload_tells_their_number_and_lists_them_all(stub: PipelineServiceStub, tenant: str) -> None:
    talk = Dialogue(stub, [header(tenant), chunk(_csv()), finish()])
    result = talk.result
    _check(result.report, BAD, GOOD, range(20))
    assert (result.outcome, result.rows_rejected) == (upload_pb2.OUTCOME_COMMITTED, BAD)
    shown = [error.row_number for each in talk.all("row_errors") for error in each.errors]
    assert 20 <= len(shown) <= 100
    assert len(set(shown)) == len(shown)
    asked = upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=result.upload_id)
    listed = [reject.row_number for page in stub.ListRejects(asked) for reject in page.rejects]
    assert listed == list(range(BAD))


def test_a_validation_tells_the_same(stub: PipelineServiceStub) -> None:
    requests = [
        validation_pb2.ValidateRequest(header=validation_pb2.ValidateHeader(data_type="interactions")),
        validation_pb2.ValidateRequest(chunk=validation_pb2.ValidateChunk(text=_csv())),
        validation_pb2.ValidateRequest(finish=validation_pb2.ValidateFinish()),
    ]
    *_, last = stub.Validate(iter(requests))
    _check(last.report, BAD, GOOD, range(20))


def test_small_calls_tell_theirs(stub: PipelineServiceStub, tenant: str) -> None:
    row: dict[str, Any] = {"user_id": "u", "interaction_type": "nod", "timestamp": "2026-01-01"}
    bad, ids = 0, set()
    for _ in range(BAD // 10_000):
        request = ingest_pb2.IngestRowsRequest(tenant_id=tenant, data_type="interactions")
        for number in range(10_000):
            request.rows.add().update({**row, "item_id": f"i{number}"})
        answer = stub.IngestRows(request, timeout=60)
        _check(answer.result.report, 10_000, 0, range(20))
        assert [error.row_number for error in answer.row_errors.errors] == list(range(20))
        bad += answer.result.rows_rejected
        ids.add(answer.result.upload_id)
    assert bad == BAD
    asked = upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=ids.pop())
    assert sum(len(page.rejects) for page in stub.ListRejects(asked)) == 10_000
