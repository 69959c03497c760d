"""Which versions of a table may hold a request id: millions of them in twelve bytes each."""

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

SEGMENT_IDS = 65_536

SEGMENTS = 128
"""Segments kept beyond the hour that every id is kept: 8 million ids, 100 MB."""

KEEP_SECONDS = 3600.0
KEEP_LONGEST_SECONDS = 86_400.0


@dataclass(frozen=True)
class _Segment:
    """Sorted hashes (uint64), the version of each (uint32), and when the newest came (monotonic)."""

    hashes: np.ndarray
    versions: np.ndarray
    seen: float


class RequestIndex:
    """An index of (id, version) by hash: it may return false positives, but never misses a version.

    Callers confirm a hit by reading the version's log file. Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fresh: dict[int, int] = {}
        self._segments: list[_Segment] = []

    def add(self, ids: Sequence[str], version: int) -> None:
        """Notes that a version holds some ids."""
        with self._lock:
            for each in ids:
                if self._fresh.setdefault(key := _hash(each), version) != version:
                    # Two versions for one hash: the frozen segments can hold both.
                    self._freeze()
                    self._fresh[key] = version
            if len(self._fresh) >= SEGMENT_IDS:
                self._freeze()

    def versions(self, upload_id: str) -> list[int]:
        """Versions that may hold an id, newest first."""
        key = _hash(upload_id)
        with self._lock:
            found = {self._fresh[key]} if key in self._fresh else set()
            segments = list(self._segments)
        for segment in segments:
            first = np.searchsorted(segment.hashes, np.uint64(key), side="left")
            last = np.searchsorted(segment.hashes, np.uint64(key), side="right")
            found.update(segment.versions[first:last].tolist())
        return sorted(found, reverse=True)

    def _freeze(self) -> None:
        hashes = np.fromiter(self._fresh.keys(), np.uint64, len(self._fresh))
        versions = np.fromiter(self._fresh.values(), np.int64, len(self._fresh))
        order = np.argsort(hashes)
        now = time.monotonic()
        self._segments.append(_Segment(hashes[order], versions[order].astype(np.uint32), now))
        self._fresh.clear()
        while self._segments:
            age = now - self._segments[0].seen
            if age < (KEEP_SECONDS if len(self._segments) > SEGMENTS else KEEP_LONGEST_SECONDS):
                break
            del self._segments[0]


def _hash(upload_id: str) -> int:
    return xxhash.xxh3_64_intdigest(uuid.UUID(upload_id).bytes)
