"""The local event log: one append-only JSON-lines file a topic, CloudEvents in structured mode.

A line counts once its newline is on the disk. A torn last line, left by a crash in the
middle of an append, is cut when the file is opened. Events that a file already holds are
not written again, so a replay changes nothing.
"""

import asyncio
import base64
import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_server.events.batch import EventBatch
from headrace_server.events.column_encoders import ColumnEncoder, Constant, JsonText, Text, Time, encode_rows
from headrace_server.events.sink import UndeliveredError

_START = b'{"specversion":"1.0","id":"'
_LINE_ID = re.compile(b"^" + re.escape(_START) + b'([^"]*)"', re.MULTILINE)
_READ_BYTES = 16 << 20
_WRITE_ROWS = 16_384


class LocalSink:
    """An EventSink that appends to `{folder}/{topic}.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids: dict[str, _Ids] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.jsonl"):
            _cut_torn_line(path)

    async def publish(self, topic: str, events: EventBatch) -> None:
        """See EventSink."""
        await asyncio.to_thread(self._publish, topic, events)

    async def connected(self) -> bool:
        """See EventSink."""
        return await asyncio.to_thread(os.access, self._folder, os.W_OK)

    async def close(self) -> None:
        """See EventSink."""

    def _publish(self, topic: str, events: EventBatch) -> None:
        path = self._folder / f"{topic}.jsonl"
        try:
            if topic not in self._ids:
                self._ids[topic] = _read(path)
            new = np.flatnonzero(~self._ids[topic].has(events.ids))
            _append(path, events, new)
        except OSError as error:
            # What reached the file is found out when it is read again.
            self._ids.pop(topic, None)
            raise UndeliveredError(f"events cannot be written to {path}: {error.strerror}") from error
        self._ids[topic].add(events.ids)


class _Ids:
    """Ids of events that end in a number: by what stands before it, a bit for each number."""

    def __init__(self) -> None:
        self._bits: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(1024, np.uint8))

    def has(self, ids: pa.StringArray) -> np.ndarray:
        """Which of the ids are here: bool."""
        found = np.zeros(len(ids), np.bool_)
        for prefix, places, numbers in _taken_apart(ids):
            bits = self._bits[prefix]
            inside = numbers >> 3 < bits.size
            places, numbers = places[inside], numbers[inside]
            found[places] = bits[numbers >> 3] >> (numbers & 7) & 1
        return found

    def add(self, ids: pa.StringArray) -> None:
        """Puts the ids here."""
        for prefix, _, numbers in _taken_apart(ids):
            bits = self._bits[prefix]
            if (needed := int(numbers.max() >> 3) + 1) > bits.size:
                bits = np.append(bits, np.zeros(max(needed, 2 * bits.size) - bits.size, np.uint8))
                self._bits[prefix] = bits
            np.bitwise_or.at(bits, numbers >> 3, np.left_shift(1, numbers & 7).astype(np.uint8))


def _taken_apart(ids: pa.StringArray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """By prefix: the places of its ids, and their numbers (int64)."""
    parts = pc.extract_regex(ids, r"^(?P<prefix>.*[/@])(?P<number>[0-9]+)$")
    numbers = pc.struct_field(parts, "number").cast(pa.int64()).to_numpy()
    prefixes = pc.struct_field(parts, "prefix").dictionary_encode()
    codes = prefixes.indices.to_numpy()
    every = [np.flatnonzero(codes == code) for code in range(len(prefixes.dictionary))]
    return [
        (name, every[code], numbers[every[code]]) for code, name in enumerate(prefixes.dictionary.to_pylist())
    ]


def _read(path: Path) -> _Ids:
    """The ids in a file, if there is one; cuts its torn last line."""
    ids = _Ids()
    if not path.exists():
        return ids
    _cut_torn_line(path)
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            found = _LINE_ID.findall(block + file.readline())
            ids.add(pa.array(found, pa.binary()).cast(pa.string()))
    return ids


def _append(path: Path, events: EventBatch, rows: np.ndarray) -> None:
    """Appends these rows; they are on the disk when this returns."""
    if not rows.size:
        return
    is_new = not path.exists()
    with path.open("ab") as file:
        for start in range(0, rows.size, _WRITE_ROWS):
            file.write(_lines(events, pa.array(rows[start : start + _WRITE_ROWS])).data)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        _sync_folder(path.parent)


def _lines(events: EventBatch, rows: pa.Array) -> np.ndarray:
    """Lines in the JSON format of CloudEvents 1.0."""
    front = f'","source":"/headrace/{events.tenant}","type":"{events.type}","time":"'
    back = f'","tenantid":"{events.tenant}","datacontenttype":"{events.content_type}","data'
    values = events.values.take(rows)
    if events.content_type == "application/json":
        data = Text(b'":', values, b"}\n")
    else:
        encoded = pa.array([base64.b64encode(value) for value in values.to_pylist()], pa.binary())
        data = Text(b'_base64":"', encoded, b'"}\n')
    encoders: list[ColumnEncoder] = [
        JsonText(_START, events.ids.take(rows)),
        Time(front.encode(), events.times_us.take(rows)),
        Constant(back.encode()),
        data,
    ]
    return encode_rows(len(rows), encoders)[0]


def _cut_torn_line(path: Path) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            step = min(end, 1 << 16)
            file.seek(end - step)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                end = end - step + newline + 1
                break
            end -= step
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
