"""Runs with a request_id: they belong to their tenant, and outlive clients and servers."""

import asyncio
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from harness.dialogue import HEADER, Dialogue, chunk, failure_of, finish, header, lines, negatives
from harness.server import Server
from harness.watch import eventually, files_below

from headrace import AsyncClient, Client
from headrace.errors import (
    IdInUseError,
    NoInteractionsError,
    RunCancelledError,
    RunFinishedError,
    RunNotFoundError,
)
from headrace.v1 import run_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

ENDLESS: dict[str, Any] = {
    "negative_ratio": 1000,
    "positive_interaction_types": ["view"],
    "max_interactions_per_user": 0,
    "min_interactions_per_user": 0,
    "min_interactions_per_item": 0,
}
"""Sixty million rows of 60,000: half a minute of work at least."""

SMALL = {**ENDLESS, "negative_ratio": 1}

LONG_AGO = datetime(1990, 1, 1, tzinfo=UTC)


@pytest.fixture
def rows(stub: PipelineServiceStub, tenant: str) -> int:
    """Interactions of the tenant."""
    talk = Dialogue(stub, [header(tenant), chunk(HEADER + lines(60_000)), finish()])
    return talk.result.rows_accepted


def _id() -> str:
    return str(uuid.uuid4())


def parts_of(server: Server, tenant: str) -> set[Path]:
    """Parts of a tenant's derived tables."""
    folders = (server.data_dir / bucket / tenant for bucket in ("features", "training-data"))
    return {path for folder in folders for path in files_below(folder) if path.suffix == ".parquet"}


def _begun(client: Client, tenant: str, request_id: str, **options: Any) -> threading.Thread:
    """A run whose client waits in a thread, once it is at work."""

    def work() -> None:
        with Client(client.address) as own, pytest.raises(RunCancelledError):
            own.sample_negatives(tenant, request_id=request_id, **options)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: _stage(client, tenant, request_id) != "")
    return thread


def _stage(client: Client, tenant: str, request_id: str) -> str:
    try:
        return client.get_run(tenant, request_id).progress.stage
    except RunNotFoundError:
        return ""


def test_a_repeated_call_gets_the_first_result_and_makes_no_version(
    client: Client, server: Server, tenant: str, rows: int
) -> None:
    request_id, steps = _id(), list[str]()
    first = client.compute_features(
        tenant, request_id=request_id, on_progress=lambda progress: steps.append(progress.stage)
    )
    assert first.interactions == rows
    assert "users" in steps
    again = client.compute_features(tenant, request_id=request_id.upper())
    assert again == first
    run = client.get_run(tenant, request_id)
    assert (run.state, run.kind, run.attempts) == (run_pb2.RUN_STATE_DONE, "features", 1)
    assert run.features == first
    assert run.start_time.ToNanoseconds() < run.end_time.ToNanoseconds()
    assert {table.version for table in first.outputs} == {1}
    alone = client.compute_features(tenant)
    assert [table.version for table in alone.outputs] == [2, 2]
    for name in ("user_features", "item_features"):
        assert client.read_table(tenant, name, version=1) == client.read_table(tenant, name, version=2)
    assert len(files_below(server.data_dir / "raw-data/_headrace/open-runs" / tenant)) == 0
    assert len(files_below(server.data_dir / "raw-data/_headrace/runs" / tenant)) == 0


def test_what_a_run_reads_is_that_of_the_first_call(
    client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    request_id = _id()
    first = client.compute_features(tenant, request_id=request_id)
    Dialogue(stub, [header(tenant), chunk(HEADER + lines(10, first=rows)), finish()])
    assert client.compute_features(tenant, request_id=request_id) == first
    assert client.compute_features(tenant, request_id=_id()).interactions == rows + 10


def test_an_id_with_other_parameters_or_of_another_kind_is_refused(
    client: Client, tenant: str, rows: int
) -> None:
    request_id = _id()
    client.sample_negatives(tenant, request_id=request_id, **SMALL, seed=1)
    for call in (
        lambda: client.sample_negatives(tenant, request_id=request_id, **SMALL, seed=2),
        lambda: client.sample_negatives(
            tenant, request_id=request_id, **SMALL, seed=1, interactions_version=1
        ),
        lambda: client.compute_features(tenant, request_id=request_id),
    ):
        with pytest.raises(IdInUseError, match="other parameters") as caught:
            call()
        assert caught.value.metadata == {"request_id": request_id}
    assert client.sample_negatives(tenant, request_id=request_id, **SMALL, seed=1).output.version == 1


def test_rows_are_streamed_of_the_version_that_the_run_wrote(
    client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    request_id = _id()
    first = client.compute_features(tenant, request_id=request_id)
    client.compute_features(tenant)
    request = run_pb2.ComputeFeaturesRequest(tenant_id=tenant, request_id=request_id, include_rows=True)
    *before, last = stub.ComputeFeatures(request, timeout=60)
    assert last.result == first
    read = {response.rows.table: 0 for response in before if response.HasField("rows")}
    for response in before:
        if response.HasField("rows"):
            read[response.rows.table] += pa.ipc.open_stream(response.rows.arrow_ipc).read_all().num_rows
    assert read == {table.table: table.rows for table in first.outputs}


def test_what_keeps_a_run_from_beginning_leaves_the_id_free(client: Client, tenant: str) -> None:
    request_id = _id()
    with pytest.raises(NoInteractionsError):
        client.compute_features(tenant, request_id=request_id)
    with pytest.raises(RunNotFoundError):
        client.get_run(tenant, request_id)
    with pytest.raises(RunNotFoundError):
        client.cancel_run(tenant, request_id)
    assert list(client.runs(tenant)) == []


def test_an_error_that_every_try_would_meet_ends_the_run(client: Client, tenant: str, rows: int) -> None:
    request_id = _id()
    for _ in range(2):
        with pytest.raises(NoInteractionsError):
            client.compute_features(tenant, as_of=LONG_AGO, request_id=request_id)
    run = client.get_run(tenant, request_id)
    assert (run.state, run.attempts) == (run_pb2.RUN_STATE_FAILED, 1)
    assert "interactions" in run.error.message
    client.cancel_run(tenant, request_id)
    assert client.get_run(tenant, request_id).state == run_pb2.RUN_STATE_FAILED


def test_a_client_that_goes_away_leaves_its_run(
    client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    request_id = _id()
    request = negatives(tenant, 20)
    request.request_id = request_id
    call: Any = stub.SampleNegatives(request)
    next(call)
    call.cancel()
    follower = stub.SampleNegatives(request, timeout=60)
    assert list(follower)[-1].result.output.version == 1
    assert client.get_run(tenant, request_id).state == run_pb2.RUN_STATE_DONE


def test_a_cancelled_run_writes_nothing_and_its_clients_hear_of_it(
    client: Client, server: Server, tenant: str, rows: int
) -> None:
    request_id = _id()
    waiting = [_begun(client, tenant, request_id, **ENDLESS) for _ in range(2)]
    eventually(lambda: bool(parts_of(server, tenant)))
    assert client.get_run(tenant, request_id).state == run_pb2.RUN_STATE_RUNNING
    client.cancel_run(tenant, request_id)
    assert parts_of(server, tenant) == set()
    assert client.get_run(tenant, request_id).state == run_pb2.RUN_STATE_CANCELLED
    for thread in waiting:
        thread.join(30)
        assert not thread.is_alive()
    client.cancel_run(tenant, request_id)
    with pytest.raises(RunCancelledError, match="start a new one"):
        client.sample_negatives(tenant, request_id=request_id, **ENDLESS)
    assert [table.name for table in client.list_tables(tenant)] == ["interactions"]


def test_a_run_that_has_ended_cannot_be_cancelled(client: Client, tenant: str, rows: int) -> None:
    request_id = _id()
    client.compute_features(tenant, request_id=request_id)
    with pytest.raises(RunFinishedError) as caught:
        client.cancel_run(tenant, request_id)
    assert caught.value.metadata == {"request_id": request_id}
    assert client.get_run(tenant, request_id).state == run_pb2.RUN_STATE_DONE


def test_runs_are_listed_the_newest_first_and_paged(
    client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    ids = [_id() for _ in range(5)]
    for request_id in ids:
        client.sample_negatives(tenant, request_id=request_id, **SMALL)
    alone: Any = stub.SampleNegatives(negatives(tenant, 1000))
    next(alone)
    listed = list(client.runs(tenant))
    assert [run.request_id for run in listed] == ["", *reversed(ids)]
    assert (listed[0].kind, listed[0].state) == ("negatives", run_pb2.RUN_STATE_RUNNING)
    assert [run.request_id for run in client.runs(tenant, limit=3)] == ["", *reversed(ids)][:3]
    paged, request = list[run_pb2.Run](), run_pb2.ListRunsRequest(tenant_id=tenant, page_size=4)
    for size in (4, 2):
        page = stub.ListRuns(request, timeout=30)
        assert len(page.runs) == size
        paged += page.runs
        request.page_token = page.next_page_token
    assert not request.page_token
    assert [run.run_id for run in paged] == [run.run_id for run in listed]
    alone.cancel()
    eventually(lambda: [run.request_id for run in client.runs(tenant)] == list(reversed(ids)))


async def test_the_asyncio_client_has_the_same(server: Server, tenant: str, rows: int) -> None:
    done, stopped = _id(), _id()
    async with AsyncClient(server.address) as client:
        first = await client.compute_features(tenant, request_id=done)
        assert await client.compute_features(tenant, request_id=done) == first
        endless = asyncio.create_task(client.sample_negatives(tenant, request_id=stopped, **ENDLESS))
        while [run.request_id async for run in client.runs(tenant)] != [stopped, done]:
            await asyncio.sleep(0.05)
        await client.cancel_run(tenant, stopped)
        with pytest.raises(RunCancelledError):
            await endless
        assert (await client.get_run(tenant, stopped)).state == run_pb2.RUN_STATE_CANCELLED
        assert [run.request_id async for run in client.runs(tenant, limit=1)] == [stopped]


def test_an_id_that_is_none_is_refused(stub: PipelineServiceStub, tenant: str) -> None:
    request = run_pb2.ComputeFeaturesRequest(tenant_id=tenant, request_id="mine")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ComputeFeatures(request, timeout=30))
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert failure_of(caught.value) == (invalid, "INVALID_FIELD", {"field": "request_id"})
