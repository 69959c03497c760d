"""What a request may hold is known before it is decoded."""

from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import ingest_pb2, row_pb2, table_pb2, upload_pb2, validation_pb2
from headrace_compute.errors import InvalidDataError
from headrace_compute.kernels.wire import count_objects, count_values
from headrace_server.rpc.bounds import MAX_CHUNK_BYTES, MAX_CHUNK_ROWS, bound_of
from headrace_server.rpc.decoding import Decoder

SERVICE = "/headrace.v1.PipelineService/"
ROWS = (
    upload_pb2.UploadRequest.CHUNK_FIELD_NUMBER,
    upload_pb2.UploadChunk.ROWS_FIELD_NUMBER,
    row_pb2.RowBatch.ITEMS_FIELD_NUMBER,
)
GROUP = b"\x33\x08\x01\x34"
"""Field 6 as a group that holds a varint: nothing of ours has one, and decoders skip it."""


def rows_chunk(*rows: row_pb2.Item) -> upload_pb2.UploadRequest:
    return upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(rows=row_pb2.RowBatch(items=rows)))


def counted(data: bytes, limit: int = 1_000) -> tuple[int, int]:
    return count_values(data, ROWS, limit)


texts = st.text(max_size=200)
items = st.builds(row_pb2.Item, item_id=texts, price=st.none() | st.floats(), description=texts)


@given(st.lists(st.lists(items, max_size=5), max_size=5), st.booleans())
def test_rows_are_counted_as_decoding_makes_them(chunks: list[list[row_pb2.Item]], grouped: bool) -> None:
    between = GROUP if grouped else b""
    data = between.join(rows_chunk(*rows).SerializeToString() for rows in chunks)
    decoded = upload_pb2.UploadRequest.FromString(data)
    rows = decoded.chunk.rows.items
    assert counted(data) == (len(rows), sum(len(row.SerializeToString()) for row in rows))


@given(st.lists(items, min_size=1, max_size=5), st.binary(max_size=20), st.integers(0, 500))
def test_bytes_that_are_no_message_are_counted_without_fault(
    rows: list[row_pb2.Item], junk: bytes, at: int
) -> None:
    data = rows_chunk(*rows).SerializeToString()
    damaged = data[:at] + junk + data[at + len(junk) // 2 :]
    assert 0 <= counted(damaged)[0] <= len(damaged)
    assert counted(junk)[0] <= len(junk)


def test_counting_ends_behind_the_limit() -> None:
    assert counted(rows_chunk(*[row_pb2.Item()] * 50).SerializeToString(), 9) == (10, 0)


def refusal(method: str, message: Any) -> InvalidDataError:
    decoder = Decoder(f"{SERVICE}{method}", type(message).FromString)
    with pytest.raises(InvalidDataError) as caught:
        decoder.one(message.SerializeToString())
    return caught.value


def test_too_many_rows_are_refused_and_the_most_are_taken() -> None:
    row, item = row_pb2.Interaction(), row_pb2.Item()
    batch = ingest_pb2.IngestInteractionsRequest(rows=[row] * 10_001)
    error = refusal("IngestInteractions", batch)
    assert error.message == ("Field rows has more than 10,000 rows, the most; send more as a stream.")
    assert (error.reason, error.attributes) == ("INVALID_FIELD", {"field": "rows"})
    sample = validation_pb2.ValidateSampleRequest()
    for _ in range(10_001):
        sample.sample_data.add()
    assert refusal("ValidateSample", sample).attributes == {"field": "sample_data"}
    objects = ingest_pb2.IngestRowsRequest()
    for _ in range(10_001):
        objects.rows.add()
    assert refusal("IngestRows", objects).attributes == {"field": "rows"}
    error = refusal("Upload", rows_chunk(*[item] * (MAX_CHUNK_ROWS + 1)))
    assert error.attributes == {"field": "chunk.rows.items"}
    most = rows_chunk(*[item] * MAX_CHUNK_ROWS)
    upload = Decoder(f"{SERVICE}Upload", upload_pb2.UploadRequest.FromString)
    assert upload.one(most.SerializeToString()) == most


def test_a_chunk_of_rows_has_no_more_bytes_than_one_of_bytes() -> None:
    row = row_pb2.Item(description="x" * (MAX_CHUNK_BYTES // 2 - 9))
    bound = bound_of(f"{SERVICE}Upload")
    fits = rows_chunk(row, row_pb2.Item(description="x" * (MAX_CHUNK_BYTES // 2 - 11)))
    assert fits.chunk.rows.ByteSize() <= MAX_CHUNK_BYTES < len(fits.SerializeToString())
    bound.check("Upload", fits.SerializeToString())
    error = refusal("Upload", rows_chunk(row, row))
    assert error.message == "Field chunk.rows has 8,388,610 bytes; send at most 8,388,608."


def test_a_question_is_short() -> None:
    error = refusal("ReadTable", table_pb2.ReadTableRequest(columns=["x" * 65_536]))
    assert error.message == (
        "The request has 65,540 bytes, and /headrace.v1.PipelineService/ReadTable takes 65,536 at most; "
        "send less in one message."
    )
    method = f"{SERVICE}ReadTable"
    assert error.reason == "MESSAGE_TOO_LARGE"
    assert error.attributes == {"method": method, "size_bytes": "65540", "limit_bytes": "65536"}


structs = st.recursive(
    st.none() | st.floats() | st.text(max_size=9) | st.booleans(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=4),
    max_leaves=25,
)


def values_in(value: Any) -> int:
    """The values of all objects and lists in a value."""
    if isinstance(value, dict):
        return len(value) + sum(map(values_in, value.values()))
    return len(value) + sum(map(values_in, value)) if isinstance(value, list) else 0


@given(st.lists(st.dictionaries(st.text(max_size=3), structs, max_size=5), max_size=5))
def test_what_objects_hold_is_counted_before_they_are_decoded(rows: list[dict[str, Any]]) -> None:
    request = ingest_pb2.IngestRowsRequest(tenant_id="acme", request_id="x" * 20)
    for row in rows:
        request.rows.add().update(row)
    found = count_objects(request.SerializeToString(), request.ROWS_FIELD_NUMBER, 1_000, 1_000)
    assert found == (max(map(len, rows), default=0), sum(map(values_in, rows)))
    junk = request.SerializeToString()[3:]
    assert count_objects(junk, request.ROWS_FIELD_NUMBER, 1_000, 1_000).values <= len(junk)


def test_objects_of_too_many_keys_are_refused_and_the_most_are_taken() -> None:
    names = [str(number) for number in range(1_001)]
    for method, field, message in (
        ("IngestRows", "rows", ingest_pb2.IngestRowsRequest()),
        ("ValidateSample", "sample_data", validation_pb2.ValidateSampleRequest()),
    ):
        row = getattr(message, field).add()
        row.update(dict.fromkeys(names[1:]))
        Decoder(f"{SERVICE}{method}", type(message).FromString).one(message.SerializeToString())
        row.update({"0": None})
        error = refusal(method, message)
        assert error.attributes == {"field": field}
        assert error.message == f"Field {field} has an object with more than 1,000 keys; send columns alone."
        row.fields["0"].list_value.values.extend([struct_pb2.Value()] * 199_000)
        del row.fields["1"]
        Decoder(f"{SERVICE}{method}", type(message).FromString).one(message.SerializeToString())
        row.fields["0"].list_value.values.add()
        assert refusal(method, message).message == (
            f"The objects of field {field} hold more than 200,000 values; send fewer."
        )


def test_what_merges_into_one_object_is_counted_together() -> None:
    value = struct_pb2.Value()
    value.struct_value.update(dict.fromkeys(map(str, range(600))))
    # Decoding merges a message that comes several times; nobody writes one so but whoever means harm.
    merged = value.SerializeToString() * 400
    entry = b"\x12" + length(len(merged)) + merged
    struct = b"\x0a" + length(len(entry)) + entry
    request = b"\x1a" + length(len(struct)) + struct
    assert len(ingest_pb2.IngestRowsRequest.FromString(request).rows[0].fields[""].struct_value.fields) == 600
    with pytest.raises(InvalidDataError, match="hold more than 200,000 values"):
        bound_of(f"{SERVICE}IngestRows").check("IngestRows", request)


def length(size: int) -> bytes:
    """A length on the wire."""
    found = bytearray()
    while size > 0x7F:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*found, size))
