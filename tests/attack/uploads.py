"""Attacks with uploads: Parquet that kills or starves who reads it, headers, packed streams, places held."""

import gzip
import threading
import time
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines
from harness.streams import INTERACTIONS, encrypted_parquet, parquet, table_of

from attack.calls import SECONDS, Calls
from attack.stage import Stage
from headrace.v1 import upload_pb2

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
PARQUET: dict[str, Any] = {"format": upload_pb2.FORMAT_PARQUET}
GZIP: dict[str, Any] = {"compression": upload_pb2.COMPRESSION_GZIP}
GOOD = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2025-01-01"}
SENDERS = 4


def _whole(stub: Any, tenant: str, data: bytes, **fields: Any) -> Any:
    """An upload in one go, as a call whose responses are still to be taken."""
    pieces = [chunk(data[at : at + (1 << 20)], offset=at) for at in range(0, len(data), 1 << 20)]
    return stub.Upload(iter([header(tenant, **fields), *pieces, finish()]), timeout=SECONDS)


def encrypted(stage: Stage) -> int:
    """Four senders of 2 KB of Parquet with an encrypted column."""
    data, stub, calls = (
        encrypted_parquet(table_of([GOOD]), "user_id"),
        stage.stub(),
        Calls(INVALID, EXHAUSTED),
    )
    calls.flood(SENDERS, stage.seconds, lambda n: _whole(stub, f"sealed-{n}", data, **PARQUET))
    return calls.count(needed={INVALID})


def _bad_rows(count: int) -> bytes:
    rows = {
        name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["?" * 8]))
        for name in INTERACTIONS
    }
    return parquet(pa.table(rows), count)


def dictionary(stage: Stage) -> int:
    """Some KB of Parquet that become a million rows, all bad, from four senders; then of three million."""
    stub, calls = stage.stub(), Calls(INVALID, EXHAUSTED)
    data = _bad_rows(1_000_000)
    assert len(data) < 100_000
    calls.at_once(SENDERS, lambda n: _whole(stub, f"bad-{n}", data, **PARQUET))
    data = _bad_rows(3_000_000)
    calls.make(lambda: _whole(stub, "bad-0", data, **PARQUET))
    return calls.count()


def groups(stage: Stage) -> int:
    """Parquet of four thousand groups of three rows, from four senders."""
    stub, calls = stage.stub(), Calls(EXHAUSTED)
    data = parquet(table_of([GOOD | {"item_id": f"i{n}"} for n in range(12_000)]), 3)
    calls.at_once(SENDERS, lambda n: _whole(stub, f"cut-{n}", data, **PARQUET))
    return calls.count(needed={grpc.StatusCode.OK})


def wide_header(stage: Stage) -> int:
    """A header of a MiB of commas, from four senders."""
    stub, calls = stage.stub(), Calls(INVALID, EXHAUSTED)
    data = b"," * ((1 << 20) - 1) + b"\n"
    calls.flood(SENDERS, stage.seconds, lambda n: _whole(stub, f"wide-{n}", data))
    return calls.count(needed={INVALID})


def packed(stage: Stage) -> int:
    """Thirty uploads of gzip at once by one tenant, one after the other."""
    stub, calls = stage.stub(), Calls(EXHAUSTED)
    data = gzip.compress((HEADER + lines(100_000)).encode(), 1)
    calls.flood(30, stage.seconds, lambda _: _whole(stub, "packer", data, **GZIP))
    return calls.count(needed={grpc.StatusCode.OK})


def headers(stage: Stage) -> int:
    """All places for streams taken by forty tenants that send a header and nothing more."""
    stub, over = stage.stub(), threading.Event()
    stage.held.callback(over.set)

    def silent(number: int) -> Any:
        yield header(f"idle-{number % 40}")
        over.wait(SECONDS)

    held: list[Any] = [stub.Upload(silent(number), timeout=SECONDS) for number in range(256)]
    for call in held:
        stage.held.callback(call.cancel)
        assert next(call).WhichOneof("response") == "started"
    new = stage.stub()
    end = time.monotonic() + stage.seconds
    while time.monotonic() < end:
        # A new tenant finds a place while those are held.
        rows = chunk(HEADER + lines(7))
        assert Dialogue(new, [header("newcomer"), rows, finish()]).result.rows_accepted == 7
    return len(held)
