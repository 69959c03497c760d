"""What ends workers is its sender's doing, by whatever call it came: the sender waits, nobody else."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import chaos
import grpc
import pytest
from chaos.inject import FOLDER, Order
from google.protobuf import struct_pb2
from harness.dialogue import HEADER, Dialogue, chunk, failure_of, finish, header, lines
from harness.server import Server, start_server
from harness.watch import eventually

from headrace.v1 import ingest_pb2, row_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub


@dataclass
class Mortal:
    """A server whose workers can be made to die of a stage.

    Attributes:
        orders: Where they look for what is to happen to them; see `chaos.inject`.
    """

    server: Server
    orders: Path

    @contextmanager
    def deadly(self, point: str) -> Iterator[None]:
        """Has workers die as soon as they come to a point, whichever of them does, again and again."""
        over = threading.Event()

        def rearm() -> None:
            armed = self.orders / f"{point}.armed"
            while not over.wait(0.01):
                if not armed.exists():
                    Order(point, "kill workers").arm(self.orders)
            armed.unlink(missing_ok=True)

        arming = threading.Thread(target=rearm)
        arming.start()
        try:
            eventually((self.orders / f"{point}.armed").exists)
            yield
        finally:
            over.set()
            arming.join()


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    """With one worker of each kind."""
    folder, site = tmp_path_factory.mktemp("mortal"), Path(chaos.__file__).parent / "site"
    orders = folder / "orders"
    orders.mkdir()
    path = os.pathsep.join([str(site), str(site.parent.parent)])
    started = start_server(folder / "data", HEADRACE_WORKERS="1", PYTHONPATH=path, **{FOLDER: str(orders)})
    yield Mortal(started, orders)
    assert started.stop() == 0


@pytest.fixture
def stub(mortal: Mortal) -> Iterator[PipelineServiceStub]:
    with grpc.insecure_channel(mortal.server.address) as channel:
        yield PipelineServiceStub(channel)


def refusal(call: Callable[[], object]) -> tuple[str, dict[str, str]]:
    """Reason and metadata of a call that fails; nothing if it does not."""
    try:
        call()
    except grpc.RpcError as error:
        return failure_of(error)[1:]
    return "", {}


def suspended(*calls: Callable[[], object]) -> list[dict[str, str]]:
    """Makes calls until all of them are refused, one after the other; the metadata of that.

    Suspensions grow, so they outlast the calls on a busy machine too, whose workers may take longer to come
    back than callers wait.
    """
    seen = set[str]()
    while True:
        told = [refusal(call) for call in calls]
        seen.update(reason for reason, _ in told)
        assert seen <= {"", "POISON_BLOCK", "COMPUTE_UNAVAILABLE", "SUSPENDED"}
        if all(reason == "SUSPENDED" for reason, _ in told):
            return [metadata for _, metadata in told]


def test_small_ingests_that_end_workers_are_suspended_by_their_tenant(
    mortal: Mortal, stub: PipelineServiceStub, tenant: str
) -> None:
    row = row_pb2.Interaction(user_id="u", item_id="i", interaction_type="view", timestamp="2026-01-01")

    def ingest(tenant: str) -> int:
        request = ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=[row])
        return stub.IngestInteractions(request, timeout=120).result.rows_accepted

    with mortal.deadly("group.after"):
        (metadata,) = suspended(lambda: ingest(tenant))
    assert metadata["tenant"] == tenant
    assert mortal.server.logged(event="worker died", tenant=tenant)
    assert ingest(f"{tenant}-other") == 1
    time.sleep(float(metadata["retry_seconds"]))
    assert ingest(tenant) == 1


def test_validations_that_end_workers_are_suspended_by_their_address(
    mortal: Mortal, stub: PipelineServiceStub, tenant: str
) -> None:
    sample = struct_pb2.Struct()
    sample.update({"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2026-01-01"})
    rows = chunk(HEADER + lines(7))

    def validate_sample() -> object:
        request = validation_pb2.ValidateSampleRequest(data_type="interactions", sample_data=[sample])
        return stub.ValidateSample(request, timeout=120)

    def validate() -> object:
        requests = [
            validation_pb2.ValidateRequest(header=validation_pb2.ValidateHeader(data_type="interactions")),
            validation_pb2.ValidateRequest(chunk=validation_pb2.ValidateChunk(text=rows.chunk.text)),
            validation_pb2.ValidateRequest(finish=validation_pb2.ValidateFinish()),
        ]
        return list(stub.Validate(iter(requests), timeout=120))

    with mortal.deadly("block.after"):
        told = suspended(validate_sample, validate)
    assert [metadata["address"] for metadata in told] == ["ipv4:127.0.0.1"] * 2
    # Who names a tenant is another one.
    assert Dialogue(stub, [header(tenant), rows, finish()]).result.rows_accepted == 7
