"""Attacks on the disk: a run that would overfill it, and a disk that is full whatever is written."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import grpc
from harness.dialogue import HEADER, Dialogue, chunk, failure_of, finish, header, lines, negatives
from harness.disk import fill
from harness.watch import eventually

from attack.calls import SECONDS
from attack.neighbour import ROW
from attack.runs import stock
from attack.stage import Result, Stage
from headrace.v1 import ingest_pb2, run_pb2, upload_pb2

DISK_MIB = 320
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"
STEP_BYTES = 4 << 10
"""Room made at a time: a call may fit into it, what it entails in the background does not."""

CROWD_SECONDS = 300.0
"""All small ingests on a disk with hardly any room take no longer."""

COMPACTED, CHECKPOINTED = 64, 100
"""The server maintains a table when its version is divisible by these."""


def overfill(stage: Stage) -> int:
    """A run whose output is larger than the disk, over and over."""
    stub, count, end = stage.stub(), 0, time.monotonic() + stage.seconds
    stock(stub, "greedy", 100_000)
    while not count or time.monotonic() < end:
        found = _failure(lambda: list(stub.SampleNegatives(negatives("greedy", 1_000), timeout=SECONDS)))
        assert found == FULL, f"a run larger than the disk ended with {found}"
        count += 1
    return count


def full(stage: Stage) -> Result:
    """No room in whatever is written: upload, small ingest, runs, compaction, checkpoint, event, cursor."""
    stub, calls, disk = stage.stub(), 0, stage.data.parent
    stock(stub, "acme", 20_000)
    upload_id, request_id = str(uuid.uuid4()), str(uuid.uuid4())
    writes: list[Callable[[], Any]] = [
        lambda: _upload(stub, upload_id),
        lambda: _ingest(stub, request_id),
        lambda: list(stub.ComputeFeatures(run_pb2.ComputeFeaturesRequest(tenant_id="acme"), timeout=SECONDS)),
        lambda: list(stub.SampleNegatives(negatives("acme", 4), timeout=SECONDS)),
    ]
    filler = fill(disk, 0)
    for write in writes:
        found = _failure(write)
        assert found == FULL, f"a write to a full disk ended with {found}"
        calls += 1
    calls += _crowd(stage, stub, filler, 2 * CHECKPOINTED)
    put_off = [line for line in stage.server.log if line.get("event") == "maintenance is put off"]
    assert {line["reason"] for line in put_off} == {"STORE_FULL"}, f"maintenance was not put off: {put_off}"

    filler.unlink()
    for write in writes:
        assert (found := _failure(write)) is None, f"a write to a disk with room again ended with {found}"
        calls += 1
    while (version := _newest(stage)) % COMPACTED or version <= 3 * CHECKPOINTED:
        _ingest(stub, str(uuid.uuid4()))
        calls += 1
    eventually(lambda: _checkpoint(stage) >= 2 * CHECKPOINTED)
    eventually(lambda: _told(stage) == _to_tell(stage))
    stage.held.close()
    after = stage.suffer(lambda _: 0)
    after.calls = calls
    return after


def _crowd(stage: Stage, stub: Any, filler: Any, version: int) -> int:
    """Small ingests until the table has a version, with room for hardly one at a time; returns how many."""
    calls, deadline = 0, time.monotonic() + CROWD_SECONDS
    with filler.open("r+b", buffering=0) as file:
        while _newest(stage) < version:
            calls += 1
            assert time.monotonic() < deadline, (
                f"the table is at version {_newest(stage)} after {calls} calls"
            )
            if _failure(lambda: _ingest(stub, str(uuid.uuid4()))) is not None:
                file.truncate(filler.stat().st_size - STEP_BYTES)
    return calls


def _upload(stub: Any, upload_id: str) -> None:
    data = (HEADER + lines(20_000, 20_000)).encode()
    question = upload_pb2.GetUploadRequest(tenant_id="acme", upload_id=upload_id)
    try:
        start = stub.GetUpload(question, timeout=SECONDS).persisted_offset
    except grpc.RpcError:
        start = 0
    requests = [
        header("acme", upload_id=upload_id),
        chunk(data[start:], offset=start),
        finish(total_size=len(data)),
    ]
    talk = Dialogue(stub, requests, timeout=SECONDS)
    if talk.error is not None:
        raise talk.error
    assert talk.result.rows_accepted == 20_000


def _ingest(stub: Any, request_id: str) -> None:
    stub.IngestInteractions(
        ingest_pb2.IngestInteractionsRequest(tenant_id="acme", rows=[ROW], request_id=request_id),
        timeout=SECONDS,
    )


def _failure(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str] | None:
    """Code and reason of a call that fails."""
    try:
        call()
    except grpc.RpcError as error:
        code, reason, _ = failure_of(error)
        return code, reason
    return None


def _log(stage: Stage) -> Any:
    return stage.data / "raw-data/acme/interactions/_delta_log"


def _newest(stage: Stage) -> int:
    """The newest version of the table."""
    return max(int(path.stem) for path in _log(stage).glob("*.json"))


def _checkpoint(stage: Stage) -> int:
    """The newest version that has a checkpoint."""
    return max(
        (int(path.name.partition(".")[0]) for path in _log(stage).glob("*.checkpoint.parquet")), default=0
    )


def _to_tell(stage: Stage) -> list[int]:
    """Versions of the table that brought rows, in order: events tell of each once."""
    return sorted(
        int(path.stem) for path in _log(stage).glob("*.json") if b'"dataChange":true' in path.read_bytes()
    )


def _told(stage: Stage) -> list[int]:
    """Versions that the event log tells of, in its order; a line without an end does not count yet."""
    log = (stage.data / "events/interactions-raw.jsonl").read_bytes()
    events = map(json.loads, log.split(b"\n")[:-1])
    return [event["data"]["version"] for event in events if event["source"] == "/headrace/acme"]
