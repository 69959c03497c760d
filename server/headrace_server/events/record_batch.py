"""Events as Kafka record batches, encoded straight from Arrow's buffers.

The format is magic 2 of KIP-98 (https://kafka.apache.org/documentation/#recordbatch):
a header of 61 bytes with a checksum, then the records, compressed together. CloudEvents
are in binary mode (CloudEvents Kafka binding 1.0.2): attributes are headers, the payload
is the value. A record's own time is that of its encoding, not that of its event: brokers
apply retention by it, and an event of last year must not be deleted as soon as it is published.
"""

import struct
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import google_crc32c
import numba as nb
import numpy as np
import pyarrow as pa
from numba import int64, types, void

from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.types import BYTES, BYTES_OUT, INT64S, INT64S_OUT
from headrace_server.events.batch import EventBatch
from headrace_server.events.compression import CODECS, Compression
from headrace_server.events.encoding import TIME_BYTES, U64, copy, put_time, put_zigzag, zigzag_size

BATCH_BYTES = 1 << 20
"""Limit on a batch as it is sent: what brokers accept by default (`message.max.bytes`) is 12 more."""

_ROOM_BYTES = 2 << 20
"""Limit on a batch's records before compression."""

_WINDOW_BYTES = 16 << 20
"""Bytes encoded at a time, all partitions together."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length of what follows, leader epoch, magic, CRC-32C of what follows, attributes,
last offset delta, first and largest timestamp, producer id and epoch, first sequence number, records."""

_AFTER_LENGTH = 12
_CHECKED = 21
"""Offset of the bytes that the checksum covers."""


class RecordTooLargeError(Exception):
    """One event alone is larger than a batch may be."""


class EncodedBatch:
    """An encoded batch, without the fields that only a producer knows.

    It has the interface of the batch builders of aiokafka, whose producers put the
    rest into it: their id and epoch, and where in their sequence it is.
    """

    def __init__(self, records: bytes, count: int, codec: int, time_ms: int) -> None:
        self._records = records
        self._count = count
        self._codec = codec
        self._time_ms = time_ms
        self._producer = (-1, -1, -1)

    def append(self, **_record: object) -> None:
        """Takes nothing more."""

    def close(self) -> None:
        """Is closed already."""

    def closed(self) -> bool:
        """Always: a batch is whole from the beginning."""
        return True

    def size(self) -> int:
        """Bytes, header included."""
        return _HEADER.size + len(self._records)

    def record_count(self) -> int:
        """How many records it holds."""
        return self._count

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        fields = (self._codec, self._count - 1, self._time_ms, self._time_ms, *self._producer, self._count)
        header = _HEADER.pack(0, self.size() - _AFTER_LENGTH, -1, 2, 0, *fields)
        checksum = google_crc32c.extend(google_crc32c.value(header[_CHECKED:]), self._records)
        return _HEADER.pack(0, self.size() - _AFTER_LENGTH, -1, 2, checksum, *fields) + self._records


Columns: TypeAlias = tuple[np.ndarray, ...]
"""What events give to records: data (uint8) and offsets (int64) of keys, ids, values;
times (int64, microseconds); headers that are the same for all, up to the name of `ce_id` (uint8)."""

_COLUMNS = types.Tuple((BYTES, INT64S, BYTES, INT64S, BYTES, INT64S, INT64S, BYTES))  # type: ignore[no-untyped-call]


def _columns(events: EventBatch) -> Columns:
    same = {
        "ce_specversion": b"1.0",
        "ce_source": f"/headrace/{events.tenant}".encode(),
        "ce_type": events.type.encode(),
        "ce_tenantid": events.tenant.encode(),
        "content-type": events.content_type.encode(),
    }
    front = _zigzag(len(same) + 2)
    front += b"".join(_sized(name.encode()) + _sized(value) for name, value in same.items())
    return (
        *string_buffers(events.keys),
        *string_buffers(events.ids),
        *string_buffers(events.values),
        np.ascontiguousarray(events.times_us.to_numpy()),
        np.frombuffer(front + _sized(b"ce_id"), np.uint8),
    )


def partitions_of(keys: pa.Array, partitions: int) -> np.ndarray:
    """The partition (int64) of each key, as Kafka's default partitioner has it, so that any client finds it.

    That is murmur2 of the key's bytes, without its sign, modulo the number of partitions.
    """
    out = np.empty(len(keys), np.int64)
    _hash(*string_buffers(keys), out)
    return out % partitions


class Encoder:
    """Encodes batches; one thread at a time may use it.

    Args:
        batch_bytes: Of a batch at most, as it is sent.
    """

    def __init__(self, compression: Compression, batch_bytes: int = BATCH_BYTES) -> None:
        self._codec = CODECS[compression]
        self._max_bytes = batch_bytes - _HEADER.size
        # What is not compressed does not shrink: encoding more than fits would be for nothing.
        self._room = self._max_bytes if compression == "none" else _ROOM_BYTES
        self._out = np.empty(_WINDOW_BYTES, np.uint8)

    def batches(self, events: EventBatch, partitions: int) -> Iterator[tuple[int, EncodedBatch]]:
        """Partitions and what goes to them, in the order in which it is to be sent.

        Args:
            partitions: How many the topic has.

        Raises:
            RecordTooLargeError: An event does not fit into a batch.
        """
        slots = partitions_of(events.keys, partitions)
        yield from self._batches(_columns(events), np.arange(len(events)), slots, partitions)

    def _batches(
        self, columns: Columns, rows: np.ndarray, slots: np.ndarray, count: int
    ) -> Iterator[tuple[int, EncodedBatch]]:
        """Batches of these rows, each made of rows of one slot.

        Rows are taken in windows, in which each slot has one batch. Reading them in their
        order is four times faster than slot by slot, which would jump about in memory.
        """
        while rows.size:
            sizes, counts = np.zeros(count, np.int64), np.zeros(count, np.int64)
            taken = _plan(columns, rows, slots, self._room, self._out.size, sizes, counts)
            if not taken:
                raise RecordTooLargeError(_too_large(columns, rows[0], self._max_bytes))
            ends = np.cumsum(sizes)
            _write(columns, rows[:taken], slots, ends - sizes, np.zeros(count, np.int64), self._out)
            time_ms = time.time_ns() // 1_000_000
            oversize = []
            for slot in np.flatnonzero(counts):
                records = self._codec.compress(self._out.data[ends[slot] - sizes[slot] : ends[slot]])
                if len(records) <= self._max_bytes:
                    yield int(slot), EncodedBatch(records, int(counts[slot]), self._codec.number, time_ms)
                else:
                    oversize.append(slot)
            for slot in oversize:
                yield from self._halves(columns, rows[:taken][slots[:taken] == slot], int(slot))
            rows, slots = rows[taken:], slots[taken:]

    def _halves(self, columns: Columns, rows: np.ndarray, slot: int) -> Iterator[tuple[int, EncodedBatch]]:
        """Batches of rows of one slot that are too large as one, even compressed."""
        if rows.size == 1:
            raise RecordTooLargeError(_too_large(columns, rows[0], self._max_bytes))
        for half in np.array_split(rows, 2):
            for _, batch in self._batches(columns, half, np.zeros(half.size, np.int64), 1):
                yield slot, batch


def _too_large(columns: Columns, row: int, max_bytes: int) -> str:
    _, _, ids, id_offsets, _, value_offsets, _, _ = columns
    name = ids[id_offsets[row] : id_offsets[row + 1]].tobytes().decode()
    size = value_offsets[row + 1] - value_offsets[row]
    return (
        f"event {name!r} has a payload of {size:,} bytes; "
        f"a batch holds {max_bytes:,}, and no event can be split"
    )


@nb.njit(nogil=True)
def murmur2(data: Any, start: int, end: int) -> Any:
    """MurmurHash2, 32 bits, of `data[start:end]` (uint8), with the seed of Kafka's clients."""
    # 32-bit arithmetic in 64 bits: Numba would widen each result of uint32 anyway.
    low, mixer = U64(0xFFFFFFFF), U64(0x5BD1E995)
    h = U64(0x9747B28C) ^ U64(end - start)
    at = start
    while at + 4 <= end:
        k = U64(data[at]) | (U64(data[at + 1]) << U64(8))
        k |= (U64(data[at + 2]) << U64(16)) | (U64(data[at + 3]) << U64(24))
        k = (k * mixer) & low
        k = ((k ^ (k >> U64(24))) * mixer) & low
        h = ((h * mixer) & low) ^ k
        at += 4
    if at < end:
        for place in range(end - 1, at - 1, -1):
            h ^= U64(data[place]) << U64(8 * (place - at))
        h = (h * mixer) & low
    h = ((h ^ (h >> U64(13))) * mixer) & low
    return h ^ (h >> U64(15))


@nb.njit(void(BYTES, INT64S, INT64S_OUT), nogil=True, cache=True)
def _hash(data: Any, offsets: Any, out: Any) -> None:
    for row in range(out.size):
        out[row] = np.int64(murmur2(data, offsets[row], offsets[row + 1]) & U64(0x7FFFFFFF))


_TIME_LABEL = np.frombuffer(bytes([7 << 1]) + b"ce_time" + bytes([TIME_BYTES << 1]), np.uint8)


@nb.njit(nogil=True)
def _body_size(place: int, key: int, id: int, value: int, front: int) -> int:
    """Bytes of a record, from the sizes of its parts, but for the size that stands before it."""
    # Attributes and the difference to the batch's time, both 0, take a byte each.
    size = 2 + zigzag_size(place) + zigzag_size(key) + key + zigzag_size(value) + value
    return size + front + zigzag_size(id) + id + _TIME_LABEL.size + TIME_BYTES


@nb.njit(int64(_COLUMNS, INT64S, INT64S, int64, int64, INT64S_OUT, INT64S_OUT), nogil=True, cache=True)
def _plan(
    columns: Any,
    rows: Any,
    slots: Any,
    room: Any,
    max_bytes: Any,
    sizes: Any,
    counts: Any,
) -> Any:
    """How many rows to take: `room` bytes of a slot (or one row), `max_bytes` of all; adds up the slots."""
    _, key_offsets, _, id_offsets, _, value_offsets, _, front = columns
    total = 0
    for i in range(rows.size):
        row, slot = rows[i], slots[i]
        body = _body_size(
            counts[slot],
            key_offsets[row + 1] - key_offsets[row],
            id_offsets[row + 1] - id_offsets[row],
            value_offsets[row + 1] - value_offsets[row],
            front.size,
        )
        size = zigzag_size(body) + body
        total += size
        if total > max_bytes or (counts[slot] and sizes[slot] + size > room):
            return i
        sizes[slot] += size
        counts[slot] += 1
    return rows.size


@nb.njit(void(_COLUMNS, INT64S, INT64S, INT64S_OUT, INT64S_OUT, BYTES_OUT), nogil=True, cache=True)
def _write(
    columns: Any,
    rows: Any,
    slots: Any,
    places: Any,
    counts: Any,
    out: Any,
) -> None:
    """Writes each row's record where its slot has come to: `places` in bytes, `counts` in records."""
    keys, key_offsets, ids, id_offsets, values, value_offsets, times_us, front = columns
    for i in range(rows.size):
        row, slot = rows[i], slots[i]
        key_size = key_offsets[row + 1] - key_offsets[row]
        id_size = id_offsets[row + 1] - id_offsets[row]
        value_size = value_offsets[row + 1] - value_offsets[row]
        body = _body_size(counts[slot], key_size, id_size, value_size, front.size)
        at = put_zigzag(out, places[slot], body)
        out[at], out[at + 1] = 0, 0
        at = put_zigzag(out, at + 2, counts[slot])
        at = put_zigzag(out, at, key_size)
        copy(out, at, keys, key_offsets[row], key_size)
        at = put_zigzag(out, at + key_size, value_size)
        copy(out, at, values, value_offsets[row], value_size)
        copy(out, at + value_size, front, 0, front.size)
        at = put_zigzag(out, at + value_size + front.size, id_size)
        copy(out, at, ids, id_offsets[row], id_size)
        copy(out, at + id_size, _TIME_LABEL, 0, _TIME_LABEL.size)
        places[slot] = put_time(out, at + id_size + _TIME_LABEL.size, times_us[row])
        counts[slot] += 1


def _zigzag(number: int) -> bytes:
    out = np.empty(10, np.uint8)
    return out[: put_zigzag(out, 0, number)].tobytes()


def _sized(data: bytes) -> bytes:
    return _zigzag(len(data)) + data
