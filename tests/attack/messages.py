"""Attacks with single messages: small when compressed, enormous when decoded; or not decodable at all."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
from google.protobuf import timestamp_pb2
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines

from attack.calls import SECONDS, Calls
from attack.stage import Stage
from headrace.v1 import ingest_pb2, run_pb2, upload_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EMPTY_ROW = b"\x12\x00"
"""An element of field 2, `rows` of IngestInteractionsRequest, of no bytes."""

SERVICE = "/headrace.v1.PipelineService"


def _counted(data: bytes, field: int) -> bytes:
    """A field of bytes, or a message, on the wire."""
    size, length = len(data), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((field << 3 | 2,)) + bytes(length) + bytes((size,)) + data


def _ignoring(call: Callable[[], Any]) -> Callable[[int], Any]:
    """The same call, whatever number it is given."""
    return lambda _: call()


def empty_rows(stage: Stage) -> int:
    """Four messages at a time of 15 KB each, in which gzip has hidden 7.8 million empty rows."""
    message = _counted(b"packed", 1) + EMPTY_ROW * 7_800_000
    calls = Calls(INVALID, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with stage.channel() as channel:
        ingest: Any = channel.unary_unary(f"{SERVICE}/IngestInteractions", None, None)
        for _ in range(5):
            calls.at_once(4, lambda _: ingest(message, timeout=SECONDS, compression=grpc.Compression.Gzip))
    return calls.count(needed={INVALID})


def empty_chunk(stage: Stage) -> int:
    """Four million empty rows in one chunk of rows."""
    # Batch of interactions; the field of a chunk that holds it; the field of a request that holds the chunk.
    rows = upload_pb2.UploadChunk.DESCRIPTOR.fields_by_name["rows"].number
    request = upload_pb2.UploadRequest.DESCRIPTOR.fields_by_name["chunk"].number
    big = _counted(_counted(b"\x0a\x00" * 4_000_000, rows), request)
    first = header("packed", format=upload_pb2.FORMAT_ROWS).SerializeToString()
    calls = Calls(INVALID, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with stage.channel() as channel:
        upload: Any = channel.stream_stream(f"{SERVICE}/Upload", None, None)
        for _ in range(5):
            calls.at_once(4, lambda _: upload(iter([first, big]), timeout=SECONDS))
    return calls.count(needed={INVALID})


def objects(stage: Stage) -> int:
    """Four messages at a time with a JSON object of 300,000 keys, or with a list of 199,000 nulls."""
    keys = ingest_pb2.IngestRowsRequest(tenant_id="packed", data_type="items")
    keys.rows.add().update(dict.fromkeys(map(str, range(300_000))))
    nulls = ingest_pb2.IngestRowsRequest(tenant_id="packed", data_type="items")
    values = nulls.rows.add().fields["description"].list_value.values
    for _ in range(199_000):
        values.add()
    calls = Calls(INVALID, grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with stage.channel() as channel:
        ingest: Any = channel.unary_unary(f"{SERVICE}/IngestRows", None, None)
        for message in (keys.SerializeToString(), nulls.SerializeToString()):
            send = partial(ingest, message, timeout=SECONDS, compression=grpc.Compression.Gzip)
            for _ in range(5):
                calls.at_once(4, _ignoring(send))
    return calls.count(needed={INVALID, grpc.StatusCode.OK})


def statuses(stage: Stage) -> int:
    """Messages that cannot be decoded, and rows at the end of time."""
    calls = Calls(INVALID)
    truncated = b"\n\x05ab"
    stub = stage.stub()
    with stage.channel() as channel:
        schema: Any = channel.unary_unary(f"{SERVICE}/GetSchema", None, None)
        upload: Any = channel.stream_stream(f"{SERVICE}/Upload", None, None)
        for _ in range(200):
            calls.make(lambda: schema(truncated, timeout=SECONDS))
            calls.make(lambda: upload(iter([truncated]), timeout=SECONDS))
    rows = HEADER + lines(10) + "u,i,view,9999-12-31T23:59:59.999999Z,\n"
    opening = header("late", max_future_skew=timedelta(days=3_000_000))
    assert Dialogue(stub, [opening, chunk(rows), finish()]).result.rows_accepted == 11
    calls.make(
        lambda: stub.ComputeFeatures(run_pb2.ComputeFeaturesRequest(tenant_id="late"), timeout=SECONDS)
    )
    end = timestamp_pb2.Timestamp(seconds=253_402_300_799, nanos=999_999_999)
    request = run_pb2.ComputeFeaturesRequest(tenant_id="late", as_of=end)
    calls.make(lambda: stub.ComputeFeatures(request, timeout=SECONDS))
    return calls.count(needed={INVALID, grpc.StatusCode.OK})
