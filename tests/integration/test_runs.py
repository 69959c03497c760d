"""Runs that do not come to their end: the workers are free again, and nothing is left of them."""

from pathlib import Path
from typing import Any

import grpc
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines, negatives
from harness.phoenix import Phoenix
from harness.server import Server
from harness.watch import eventually, files_below

from headrace.v1 import run_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub


def _endless(tenant: str) -> run_pb2.SampleNegativesRequest:
    """Sixty million rows: half a minute of work at least."""
    return negatives(tenant, 1000)


def _upload(stub: PipelineServiceStub, tenant: str) -> None:
    rows = chunk(HEADER + lines(60_000))
    assert Dialogue(stub, [header(tenant), rows, finish()]).result.rows_accepted == 60_000


def _parts(server: Server, tenant: str) -> list[Path]:
    return files_below(server.data_dir / "training-data" / tenant)


def _entries(server: Server, tenant: str) -> list[Path]:
    return files_below(server.data_dir / "raw-data/_headrace/runs" / tenant)


def test_a_cancelled_run_frees_its_workers_and_leaves_nothing(
    server: Server, stub: PipelineServiceStub, tenant: str
) -> None:
    _upload(stub, tenant)
    run: Any = stub.SampleNegatives(_endless(tenant))
    eventually(lambda: bool(_parts(server, tenant)))
    assert len(_entries(server, tenant)) == 1
    run.cancel()
    eventually(lambda: not _parts(server, tenant) and not _entries(server, tenant))
    # Its stage has ended: had it not, it would go on writing.
    stub.GetSchema(validation_pb2.GetSchemaRequest(data_type="items"), timeout=60)
    assert server.logged(event="run cleared", tenant=tenant)
    assert not _parts(server, tenant)


def test_parts_of_a_run_whose_server_was_killed_go_at_the_next_start(phoenix: Phoenix, tenant: str) -> None:
    server = phoenix.rest()
    with grpc.insecure_channel(server.address) as channel:
        stub = PipelineServiceStub(channel)
        _upload(stub, tenant)
        run: Any = stub.SampleNegatives(_endless(tenant))
        eventually(lambda: bool(_parts(server, tenant)))
        phoenix.kill()
        run.cancel()
    assert _entries(server, tenant)
    again = phoenix.rest()
    assert not _parts(again, tenant)
    assert not _entries(again, tenant)
