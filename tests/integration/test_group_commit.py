"""Small ingests that share commits, against real servers: nothing is lost, nothing doubled."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from deltalake import DeltaTable
from harness.dialogue import Dialogue, chunk, failure_of, finish, header
from harness.phoenix import Phoenix
from harness.server import Server
from harness.watch import eventually

from headrace import Client
from headrace.v1 import ingest_pb2, row_pb2, upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub


def ingest(tenant: str, user: str, request_id: str = "") -> ingest_pb2.IngestInteractionsRequest:
    """One row."""
    row = row_pb2.Interaction(user_id=user, item_id="i", interaction_type="view", timestamp="2026-01-01")
    return ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=[row], request_id=request_id)


def users_in(address: str, tenant: str) -> list[str]:
    with Client(address) as client:
        users: list[str] = sorted(client.read_table(tenant, "interactions")["user_id"].to_pylist())
        return users


def test_a_thousand_at_once_share_commits(server: Server, tenant: str) -> None:
    users = [f"u{number:04d}" for number in range(1_000)]

    def send(some: list[str]) -> list[ingest_pb2.IngestInteractionsResponse]:
        # One connection has room for 256 calls at once.
        with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = PipelineServiceStub(channel)
            calls = [stub.IngestInteractions.future(ingest(tenant, user), timeout=60) for user in some]
            return [call.result() for call in calls]

    with ThreadPoolExecutor(10) as threads:
        batches = threads.map(send, [users[start : start + 100] for start in range(0, 1_000, 100)])
        answers = [answer for batch in batches for answer in batch]
    assert all(answer.result.rows_accepted == 1 for answer in answers)
    assert users_in(server.address, tenant) == users
    assert max(answer.result.version for answer in answers) < 200


def test_a_request_id_with_other_rows_is_refused(stub: PipelineServiceStub, tenant: str) -> None:
    request_id = str(uuid.uuid4())
    stub.IngestInteractions(ingest(tenant, "ann", request_id))
    with pytest.raises(grpc.RpcError) as caught:
        stub.IngestInteractions(ingest(tenant, "bob", request_id))
    assert failure_of(caught.value) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "ID_IN_USE",
        {"request_id": request_id, "upload_id": request_id},
    )


def test_request_ids_of_the_two_data_types_never_meet(stub: PipelineServiceStub, tenant: str) -> None:
    request_id = str(uuid.uuid4())
    first = stub.IngestInteractions(ingest(tenant, "ann", request_id))
    item = row_pb2.Item(item_id="i", title="t")
    second = stub.IngestItems(
        ingest_pb2.IngestItemsRequest(tenant_id=tenant, rows=[item], request_id=request_id)
    )
    assert second.result.rows_accepted == 1
    assert len({request_id, first.result.upload_id, second.result.upload_id}) == 3


@pytest.mark.parametrize("named", [False, True])
def test_the_id_of_a_small_ingest_is_no_upload_s(stub: PipelineServiceStub, tenant: str, named: bool) -> None:
    request_id = str(uuid.uuid4()) if named else ""
    upload_id = stub.IngestInteractions(ingest(tenant, "ann", request_id)).result.upload_id
    opening = header(tenant, upload_id=upload_id)
    assert Dialogue(stub, [opening, chunk(b"x"), finish()]).failure == (
        grpc.StatusCode.ALREADY_EXISTS,
        "ID_IN_USE",
        {"upload_id": upload_id},
    )
    asked = upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=upload_id)
    assert stub.GetUpload(asked).HasField("result")


def test_a_table_of_hundreds_of_commits_has_few_files_and_a_checkpoint(
    server: Server, stub: PipelineServiceStub, tenant: str
) -> None:
    users = [f"u{number:04d}" for number in range(330)]
    for number, user in enumerate(users):
        stub.IngestInteractions(ingest(tenant, user))
        if number % 50 == 49:
            assert users_in(server.address, tenant) == users[: number + 1]
    assert users_in(server.address, tenant) == users
    folder = server.data_dir / "raw-data" / tenant / "interactions"
    log = folder / "_delta_log"
    # Both are made behind the ingests, when a worker is free.
    eventually(lambda: len(DeltaTable(str(folder)).file_uris()) < 200)
    eventually(lambda: bool(list(log.glob("*.checkpoint.parquet"))))
    assert users_in(server.address, tenant) == users
    eventually(lambda: len(list(log.glob("*.json"))) == DeltaTable(str(folder)).version() + 1)


def test_what_was_acked_survives_kill_9_and_retries_double_nothing(phoenix: Phoenix, tenant: str) -> None:
    requests = {str(uuid.uuid4()): f"u{number:04d}" for number in range(400)}
    acked: dict[str, ingest_pb2.IngestInteractionsResponse] = {}

    def send(address: str, request_id: str) -> None:
        try:
            with grpc.insecure_channel(address) as channel:
                stub = PipelineServiceStub(channel)
                acked[request_id] = stub.IngestInteractions(
                    ingest(tenant, requests[request_id], request_id), timeout=60
                )
        except grpc.RpcError:
            return
        if len(acked) == 150:
            enough.set()

    enough = threading.Event()
    with ThreadPoolExecutor(16) as threads:
        for request_id in requests:
            threads.submit(send, phoenix.address, request_id)
        assert enough.wait(60)
        phoenix.kill()
    before = dict(acked)
    assert 0 < len(before) < len(requests)
    phoenix.rest()
    stored = users_in(phoenix.address, tenant)
    assert len(stored) == len(set(stored))
    assert {requests[request_id] for request_id in before} <= set(stored)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda request_id: send(phoenix.address, request_id), requests))
    assert users_in(phoenix.address, tenant) == sorted(requests.values())
    assert {request_id: acked[request_id] for request_id in before} == before
