"""Runs that would fill the disk, and a server that starts on a full one."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness.dialogue import HEADER, Dialogue, chunk, failure_of, finish, header, lines, negatives
from harness.disk import fill, small_file_system
from harness.server import Server
from harness.watch import eventually, files_below

from headrace import Client
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 MiB."""
    with small_file_system(tmp_path / "disk", 128) as mounted:
        yield mounted


def _health(server: Server) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/health", timeout=10) as response:
        return json.load(response)


def test_a_run_that_would_fill_the_disk_is_refused_and_a_full_disk_keeps_no_server_from_starting(
    own_server: Callable[..., Server], disk: Path
) -> None:
    server = own_server(disk / "data")
    training = disk / "data/training-data/acme"
    with grpc.insecure_channel(server.address) as channel, Client(server.address) as client:
        stub = PipelineServiceStub(channel)
        rows = chunk(HEADER + lines(60_000))
        assert Dialogue(stub, [header("acme"), rows, finish()]).result.rows_accepted == 60_000
        with pytest.raises(grpc.RpcError) as caught:
            for response in stub.SampleNegatives(negatives("acme", 1000)):
                assert response.progress.stage not in ("sample", "commit")
        code, reason, metadata = failure_of(caught.value)
        assert (code, reason) == FULL
        assert int(metadata["needed_bytes"]) > int(metadata["free_bytes"]) > 10 << 20
        eventually(lambda: not files_below(training))
        list(stub.SampleNegatives(negatives("acme", 2)))
        assert _health(server)["status"] == "healthy"

        # A run dies with its server, and others fill the disk.
        run: Any = stub.SampleNegatives(negatives("acme", 300))
        whole = len(files_below(training))
        eventually(lambda: len(files_below(training)) > whole)
        server.process.kill()
        server.process.wait(60)
        run.cancel()
    filler = fill(disk, 0)
    again = own_server(disk / "data")
    assert len(files_below(training)) == whole  # What was dead is gone, though the disk was full.
    filler.write_bytes(b"")
    fill(disk, 0)
    with Client(again.address) as client:
        assert client.read_table("acme", "interactions").num_rows == 60_000
        eventually(lambda: bool(_health(again)["store_full"]))
        assert _health(again)["status"] == "degraded"
        filler.unlink()
        eventually(lambda: _health(again)["status"] == "healthy")
        client.upload_rows("acme", "items", [{"item_id": "i", "title": "x"}])
    assert again.stop() == 0
