"""Record batches, read back with aiokafka's own decoder."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.partitioner import DefaultPartitioner, murmur2
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.events import record_batch
from headrace_server.events.batch import EventBatch
from headrace_server.events.compression import CODECS, Compression
from headrace_server.events.record_batch import BATCH_BYTES, Encoder, RecordTooLargeError, partitions_of

Row = tuple[str, str, int, bytes]
"""Key, id, time in microseconds, value."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

texts = st.text(max_size=40)
times_us = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
rows = st.lists(st.tuples(texts, texts, times_us, st.binary(max_size=300)), min_size=1, max_size=60)


def batch_of(rows: Sequence[Row], tenant: str = "acme") -> EventBatch:
    keys, ids, times, values = zip(*rows, strict=True)
    return EventBatch(
        tenant=tenant,
        type="headrace.interaction.v1",
        content_type="application/json",
        keys=pa.array(keys, pa.string()),
        ids=pa.array(ids, pa.string()),
        times_us=pa.array(times, pa.int64()),
        values=pa.array(values, pa.binary()),
    )


def encoded(
    rows: Sequence[Row], partitions: int = 3, codec: Compression = "lz4", batch_bytes: int = BATCH_BYTES
) -> list[tuple[int, int, list[Any]]]:
    """Partition, size and decoded records of each batch, in order."""
    found = []
    for sequence, (partition, batch) in enumerate(
        Encoder(codec, batch_bytes).batches(batch_of(rows), partitions)
    ):
        batch._set_producer_state(7, 1, sequence)
        data = batch._build()
        assert len(data) == batch.size()
        (decoded,) = batches_in(data)
        assert decoded.validate_crc()
        assert (decoded.producer_id, decoded.producer_epoch, decoded.base_sequence) == (7, 1, sequence)
        assert (decoded.compression_type, decoded.magic) == (CODECS[codec].number, 2)
        records = list(decoded)
        assert decoded.last_offset_delta == len(records) - 1 == batch.record_count() - 1
        assert [record.offset for record in records] == list(range(len(records)))
        found.append((partition, batch.size(), records))
    return found


def batches_in(data: bytes) -> list[Any]:
    memory, found = MemoryRecords(data), []
    while memory.has_next():
        found.append(memory.next_batch())
    return found


def row_of(record: Any) -> Row:
    """The row a record came from; its time as `ce_time` has it."""
    headers = dict(record.headers)
    at = datetime.strptime(headers["ce_time"].decode(), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return (
        record.key.decode(),
        headers["ce_id"].decode(),
        (at - EPOCH) // timedelta(microseconds=1),
        record.value,
    )


@given(rows, st.integers(1, 7), st.sampled_from(list(CODECS)))
def test_what_is_encoded_is_decoded_in_the_order_of_each_partition(
    rows: list[Row], partitions: int, codec: Compression
) -> None:
    found: dict[int, list[Row]] = {number: [] for number in range(partitions)}
    for partition, _, records in encoded(rows, partitions, codec):
        found[partition] += map(row_of, records)
    choose = DefaultPartitioner()
    expected: dict[int, list[Row]] = {number: [] for number in range(partitions)}
    for row in rows:
        expected[choose(row[0].encode(), list(range(partitions)), [])].append(row)
    assert found == expected


def test_headers_are_those_of_cloud_events_in_binary_mode() -> None:
    at = datetime(2026, 1, 31, 12, 30, 5, 70, UTC)
    rows = [("acme/u", "acme/upload/7", (at - EPOCH) // timedelta(microseconds=1), b"{}")]
    ((_, _, (record,)),) = encoded(rows)
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"acme/upload/7",
        "ce_source": b"/headrace/acme",
        "ce_type": b"headrace.interaction.v1",
        "ce_time": b"2026-01-31T12:30:05.000070Z",
        "ce_tenantid": b"acme",
        "content-type": b"application/json",
    }
    assert len(record.headers) == 7


def test_a_record_has_the_time_of_its_encoding_so_that_retention_keeps_it() -> None:
    before = int(time.time() * 1000)
    ((_, _, records),) = encoded([("k", "i", 0, b""), ("k", "j", 1, b"")])
    assert {record.timestamp_type for record in records} == {0}
    assert all(before <= record.timestamp <= time.time() * 1000 for record in records)


@given(st.lists(texts, min_size=1, max_size=20), st.integers(1, 1000))
def test_partitions_are_those_of_the_default_partitioner(keys: list[str], partitions: int) -> None:
    expected = [(murmur2(key.encode()) & 0x7FFFFFFF) % partitions for key in keys]
    assert partitions_of(pa.array(keys, pa.string()), partitions).tolist() == expected


@pytest.mark.parametrize(
    ("key", "hash"),
    [
        # From Kafka's own UtilsTest.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_has_the_vectors_of_kafka(key: bytes, hash: int) -> None:
    data = np.frombuffer(key, np.uint8)
    assert int(record_batch.murmur2(data, 0, data.size)) == hash & 0xFFFFFFFF


@pytest.mark.parametrize("codec", list(CODECS))
def test_batches_are_cut_below_their_limit(codec: Compression) -> None:
    noise = np.random.default_rng(1).bytes(400_000)
    rows = [(f"k{n % 5}", str(n), n, noise[n * 100 : n * 100 + 100]) for n in range(4_000)]
    found = encoded(rows, 2, codec, batch_bytes=50_000)
    assert len(found) > 4
    assert max(size for _, size, _ in found) <= 50_000
    for partition in range(2):
        ids = [row_of(record)[1] for part, _, records in found if part == partition for record in records]
        assert ids == sorted(ids, key=int)
    assert sum(len(records) for _, _, records in found) == 4_000


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_more_than_a_window_at_once_is_all_there(codec: Compression) -> None:
    rows = [(f"k{n % 11}", str(n), n, bytes(2_000)) for n in range(20_000)]
    found = encoded(rows, 4, codec)
    ids = [row_of(record)[1] for _, _, records in found for record in records]
    assert sorted(ids, key=int) == [str(n) for n in range(20_000)]
    assert max(size for _, size, _ in found) <= BATCH_BYTES


def test_one_partition_may_take_everything() -> None:
    rows = [("same", str(n), n, b"v" * 500) for n in range(10_000)]
    found = encoded(rows, 100)
    assert len({partition for partition, _, _ in found}) == 1
    assert [row_of(record)[1] for _, _, records in found for record in records] == [
        str(n) for n in range(10_000)
    ]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_an_event_that_fits_no_batch_is_named(codec: Compression) -> None:
    noise = np.random.default_rng(1).bytes(60_000)
    rows = [("k", "first", 0, b"small"), ("k", "second", 0, noise), ("k", "third", 0, b"small")]
    with pytest.raises(
        RecordTooLargeError, match=r"'second' has a payload of 60,000 bytes; a batch holds 49,939"
    ):
        encoded(rows, 1, codec, batch_bytes=50_000)


def test_a_large_event_goes_if_it_fits_when_compressed() -> None:
    rows = [("k", "first", 0, b"small"), ("k", "second", 0, b"x" * 3_000_000), ("k", "third", 0, b"small")]
    found = encoded(rows, 1, "zstd")
    assert [row_of(record)[1] for _, _, records in found for record in records] == [
        "first",
        "second",
        "third",
    ]


def test_no_events_make_no_batch() -> None:
    empty = batch_of([("k", "i", 0, b"")])
    empty = EventBatch(
        empty.tenant,
        empty.type,
        empty.content_type,
        empty.keys[:0],
        empty.ids[:0],
        empty.times_us[:0],
        empty.values[:0],
    )
    assert list(Encoder("lz4").batches(empty, 3)) == []


def test_sliced_columns_are_read_from_where_they_begin() -> None:
    whole = batch_of([(f"k{n}", f"i{n}", n, b"v%d" % n) for n in range(10)])
    part = EventBatch(
        whole.tenant,
        whole.type,
        whole.content_type,
        whole.keys[4:7],
        whole.ids[4:7],
        whole.times_us[4:7],
        whole.values[4:7],
    )
    ((_, batch),) = Encoder("none").batches(part, 1)
    (decoded,) = batches_in(batch._build())
    assert [row_of(record) for record in decoded] == [(f"k{n}", f"i{n}", n, b"v%d" % n) for n in (4, 5, 6)]


def test_a_batch_can_be_built_again_with_the_same_bytes() -> None:
    ((_, batch),) = Encoder("lz4").batches(batch_of([("k", "i", 0, b"v")]), 1)
    batch._set_producer_state(1, 2, 3)
    assert batch._build() == batch._build()
    assert batch.closed()
    refused: object = batch.append(timestamp=None, key=b"", value=b"")  # type: ignore[func-returns-value]
    assert refused is None


@pytest.mark.parametrize(
    ("codec", "decode"),
    [("gzip", gzip_decode), ("snappy", snappy_decode), ("lz4", lz4_decode), ("zstd", zstd_decode)],
)
def test_what_takes_many_blocks_is_read_back(codec: Compression, decode: Callable[[bytes], bytes]) -> None:
    rng = np.random.default_rng(2)
    text = b"".join(b'{"user_id":"user_%06d"}' % n for n in rng.integers(0, 10_000, 20_000))
    data = text + rng.bytes(300_000) + bytes(100_000)
    assert decode(CODECS[codec].compress(memoryview(data))) == data


def test_incompressible_blocks_are_stored() -> None:
    noise = np.random.default_rng(3).bytes(200_000)
    packed = CODECS["lz4"].compress(memoryview(noise))
    assert len(packed) < len(noise) + 40
