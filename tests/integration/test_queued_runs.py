"""Runs beyond what may be under way: they wait for their turn, say so, and are let go of at once."""

import os
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from chaos.inject import FOLDER, Order
from harness.cluster import Cluster
from harness.dialogue import HEADER, Dialogue, chunk, failure_of, finish, header, lines
from harness.phoenix import Phoenix
from harness.watch import eventually

from headrace import Client
from headrace.errors import RunCancelledError
from headrace.v1 import run_pb2, verification_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

TESTS = Path(__file__).parents[1]
STAGE = "run-stage.after"
ROWS = 2_000
SECONDS = 120
"""How long something may take on a machine with much other work."""

LIMITS = {
    "HEADRACE_MAX_RUNS": "3",
    "HEADRACE_MAX_RUNS_PER_TENANT": "1",
    "HEADRACE_MAX_QUEUED_RUNS_PER_TENANT": "2",
}
QUEUED = run_pb2.RUN_STATE_QUEUED
RUNNING = run_pb2.RUN_STATE_RUNNING


@dataclass
class Narrow:
    """A server on which a tenant has one run under way and two in the queue."""

    phoenix: Phoenix
    orders: Path

    def have_next_run_stand_still(self) -> int:
        """Has the run that ends its first stage next go no further; returns how many did before."""
        Order(STAGE, "pause").arm(self.orders)
        return self.standing_still

    @property
    def standing_still(self) -> int:
        """How many runs have come to stand still so far."""
        return len(list(self.orders.glob(f"{STAGE}.hit-*")))

    @property
    def queued(self) -> float:
        """What the metrics say of the queue."""
        url = f"http://127.0.0.1:{self.phoenix.server.http_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as response:
            lines = response.read().decode().splitlines()
        (line,) = (line for line in lines if line.startswith('headrace_runs{state="queued"}'))
        return float(line.split()[1])


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Narrow]:
    folder = tmp_path_factory.mktemp("narrow")
    orders = folder / "orders"
    orders.mkdir()
    chaos = {"PYTHONPATH": f"{TESTS / 'chaos' / 'site'}:{TESTS}", FOLDER: str(orders)}
    made = Narrow(Phoenix(folder, **cluster.settings, **chaos, **LIMITS), orders)
    yield made
    assert made.phoenix.rest().stop() == 0


@pytest.fixture
def client(narrow: Narrow) -> Iterator[Client]:
    with Client(narrow.phoenix.rest().address) as connected:
        yield connected


@pytest.fixture
def stub(narrow: Narrow) -> Iterator[PipelineServiceStub]:
    with grpc.insecure_channel(narrow.phoenix.rest().address) as channel:
        yield PipelineServiceStub(channel)


@pytest.fixture
def rows(stub: PipelineServiceStub, tenant: str) -> int:
    """Interactions of the tenant."""
    return _upload(stub, tenant, ROWS)


def _upload(stub: PipelineServiceStub, tenant: str, rows: int, first: int = 0) -> int:
    talk = Dialogue(stub, [header(tenant), chunk(HEADER + lines(rows, first=first)), finish()])
    return talk.result.rows_accepted


def _begun(narrow: Narrow, stub: PipelineServiceStub, tenant: str, request_id: str = "") -> Any:
    """A run that is under way, and comes to no end."""
    before = narrow.have_next_run_stand_still()
    request = run_pb2.ComputeFeaturesRequest(tenant_id=tenant, request_id=request_id)
    # Left out, it is a stage that finds it, before the run begins.
    request.as_of.FromDatetime(datetime(2100, 1, 1, tzinfo=UTC))
    run: Any = stub.ComputeFeatures(request, timeout=10 * SECONDS)
    eventually(lambda: narrow.standing_still > before, SECONDS)
    return run


def _waiting(stub: PipelineServiceStub, tenant: str, **options: Any) -> tuple[Any, int]:
    """A features run that waits for its turn, and its place in the queue."""
    run: Any = stub.ComputeFeatures(run_pb2.ComputeFeaturesRequest(tenant_id=tenant, **options))
    progress = next(run).progress
    while not progress.stage:
        progress = next(run).progress  # One with a request_id has nothing to tell at first.
    assert progress.stage == "queued"
    return run, progress.queue_place


def _command(client: Client, *arguments: str) -> str:
    """What the command line answers."""
    command = [sys.executable, "-c", "from headrace.cli import main; main()", *arguments]
    environment = {**os.environ, "HEADRACE_GRPC_ADDRESS": client.address, "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_runs_wait_in_order_beside_other_tenants_and_say_where_they_stand(
    narrow: Narrow, client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    request_id, other = str(uuid.uuid4()), f"{tenant}-other"
    holder = _begun(narrow, stub, tenant)
    first, place = _waiting(stub, tenant)
    assert place == 1
    second, place = _waiting(stub, tenant, request_id=request_id)
    assert place == 2
    # What a run reads is what was there when it was asked for, however long it waits.
    _upload(stub, tenant, 10, first=50_000)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ComputeFeatures(run_pb2.ComputeFeaturesRequest(tenant_id=tenant)))
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure_of(caught.value) == (exhausted, "OVERLOADED", {"limit": "2", "what": "queued runs"})
    _upload(stub, other, 1_000)
    assert client.compute_features(other).interactions == 1_000
    listed = [(run.request_id, run.state, run.progress.queue_place) for run in client.runs(tenant)]
    assert listed == [(request_id, QUEUED, 2), ("", QUEUED, 1), ("", RUNNING, 0)]
    waiting = client.get_run(tenant, request_id)
    assert (waiting.state, waiting.progress.stage, waiting.attempts) == (QUEUED, "queued", 0)
    assert narrow.queued == 2
    told = _command(client, "runs", "--tenant", tenant)
    assert told.count("QUEUED") == 2, told
    assert "place 2" in told
    first.cancel()
    assert next(second).progress == run_pb2.RunProgress(stage="queued", queue_place=1)
    holder.cancel()
    *steps, last = list(second)
    assert steps[0].progress.stage == "read"
    assert last.result.interactions == rows
    done = client.get_run(tenant, request_id)
    assert (done.state, done.attempts) == (run_pb2.RUN_STATE_DONE, 1)
    assert narrow.queued == 0


def test_a_run_that_waits_ends_at_once_by_cancel_run_and_by_its_clients_deadline(
    narrow: Narrow, client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    request_id = str(uuid.uuid4())
    holder = _begun(narrow, stub, tenant)
    alone: Any = stub.ComputeFeatures(run_pb2.ComputeFeaturesRequest(tenant_id=tenant), timeout=2)
    assert next(alone).progress.queue_place == 1
    heard = threading.Event()

    def follow() -> None:
        with Client(client.address) as own, pytest.raises(RunCancelledError):
            own.compute_features(tenant, request_id=request_id)
        heard.set()

    thread = threading.Thread(target=follow)
    thread.start()
    eventually(lambda: [run.state for run in client.runs(tenant)] == [QUEUED, QUEUED, RUNNING])
    client.cancel_run(tenant, request_id)
    assert client.get_run(tenant, request_id).state == run_pb2.RUN_STATE_CANCELLED
    thread.join(SECONDS)
    assert heard.is_set()
    with pytest.raises(grpc.RpcError) as caught:
        list(alone)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: narrow.queued == 0)
    holder.cancel()


def test_a_run_that_waits_when_its_server_is_killed_waits_on_the_next_one(
    narrow: Narrow, client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    holder, waiting = str(uuid.uuid4()), str(uuid.uuid4())
    _begun(narrow, stub, tenant, holder)
    _waiting(stub, tenant, request_id=waiting)
    before = narrow.have_next_run_stand_still()
    narrow.phoenix.kill()
    narrow.phoenix.rest()
    eventually(lambda: narrow.standing_still > before, SECONDS)
    assert client.get_run(tenant, holder).state == RUNNING
    assert client.get_run(tenant, holder).attempts == 2
    run = client.get_run(tenant, waiting)
    assert (run.state, run.attempts) == (QUEUED, 0)
    client.cancel_run(tenant, holder)
    assert client.compute_features(tenant, request_id=waiting).interactions == rows
    assert client.get_run(tenant, waiting).attempts == 1


def test_a_verification_waits_and_ends_as_a_run_without_an_id_does(
    narrow: Narrow, client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    client.compute_features(tenant)
    request = verification_pb2.VerifyTableRequest(tenant_id=tenant, table="item_features")

    def listed() -> list[tuple[str, Any]]:
        return [(run.kind, run.state) for run in client.runs(tenant)]

    holder = _begun(narrow, stub, tenant)
    waiting: Any = stub.VerifyTable.future(request)
    eventually(lambda: listed() == [("verification", QUEUED), ("features", RUNNING)])
    assert narrow.queued == 1
    waiting.cancel()
    eventually(lambda: narrow.queued == 0)
    waiting = stub.VerifyTable.future(request)
    eventually(lambda: narrow.queued == 1)
    holder.cancel()
    found = waiting.result(SECONDS)
    assert (found.version.rows, found.HasField("difference")) == (client.list_tables(tenant)[2].rows, False)
    before = narrow.have_next_run_stand_still()
    held: Any = stub.VerifyTable.future(request)
    eventually(lambda: narrow.standing_still > before, SECONDS)
    assert listed() == [("verification", RUNNING)]
    held.cancel()
    eventually(lambda: not listed())
    assert client.compute_features(tenant).interactions == rows


@pytest.mark.slow
def test_a_server_that_stops_ends_calls_that_wait_and_leaves_durable_runs_to_the_next(
    narrow: Narrow, client: Client, stub: PipelineServiceStub, tenant: str, rows: int
) -> None:
    waiting = str(uuid.uuid4())
    holder = _begun(narrow, stub, tenant)
    alone, _ = _waiting(stub, tenant)
    durable, _ = _waiting(stub, tenant, request_id=waiting)
    assert narrow.phoenix.server.stop(seconds=SECONDS) == 0
    for run in (alone, durable):
        with pytest.raises(grpc.RpcError) as caught:
            list(run)
        assert failure_of(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    holder.cancel()
    narrow.phoenix.rest()
    assert client.compute_features(tenant, request_id=waiting).interactions == rows
    assert client.get_run(tenant, waiting).attempts == 1
