"""Attacks with runs: many at once, and one that would take for ever."""

import time
from typing import Any

import grpc
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines, negatives

from attack.calls import SECONDS, Calls
from attack.stage import Stage
from headrace.v1 import run_pb2

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def stock(stub: Any, tenant: str, rows: int) -> None:
    """Gives a tenant interactions."""
    talk = Dialogue(stub, [header(tenant), chunk(HEADER + lines(rows)), finish()], timeout=SECONDS)
    assert talk.result.rows_accepted == rows


def features(stage: Stage) -> int:
    """Forty ComputeFeatures of one tenant at a time: some run, some wait, others are refused."""
    stub, calls = stage.stub(), Calls(EXHAUSTED)
    stock(stub, "runner", 150_000)
    request = run_pb2.ComputeFeaturesRequest(tenant_id="runner")
    calls.flood(40, stage.seconds, lambda _: stub.ComputeFeatures(request, timeout=SECONDS))
    return calls.count(needed={grpc.StatusCode.OK, EXHAUSTED})


def cancelled(stage: Stage) -> int:
    """Runs of a thousand negatives for each interaction, cancelled amid their work."""
    stub, count, end = stage.stub(), 0, time.monotonic() + stage.seconds
    stock(stub, "endless", 100_000)
    parts = stage.data / "training-data/endless"
    while not count or time.monotonic() < end:
        run: Any = stub.SampleNegatives(negatives("endless", 1_000), timeout=SECONDS)
        deadline = time.monotonic() + SECONDS / 2
        while not any(parts.rglob("*.parquet")):
            assert time.monotonic() < deadline, "the run does not begin to write"
            time.sleep(0.1)
        time.sleep(2)
        run.cancel()
        count += 1
        while any(parts.rglob("*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.1)
    return count
