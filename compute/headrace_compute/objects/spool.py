"""A stream as it was sent, read back from its pieces in the store as one file."""

import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import xxhash

from headrace_compute.errors import CorruptStreamError, StoreUnavailableError, TooLargeError
from headrace_compute.model import StagedObject
from headrace_compute.objects.keys import KeyMissingError
from headrace_compute.objects.store import ObjectStore

PIECES_HELD = 2
"""Pieces kept in memory: readers go forward, or alternate between two places."""

MAX_READ_BYTES = 1 << 30
"""The largest single read. The lengths that formats state for their parts are untrusted."""


class SpooledFile(io.RawIOBase):
    """The stream that some staged objects hold, as a read-only file.

    Pieces are read whole and compared with their checksum. What a read raises
    passes through pyarrow as it is. Not thread-safe; pyarrow serialises its reads.

    Attributes:
        size: Bytes of the stream.
        ended: Whether a read asked for more than the stream had left.
    """

    def __init__(self, store: ObjectStore, objects: Sequence[StagedObject]) -> None:
        self._store = store
        self._objects = objects
        self._starts = [piece.offset for piece in objects]
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0
        self.size = objects[-1].end_offset if objects else 0
        self.ended = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The next byte to be read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves, as files do."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise CorruptStreamError("The stream refers to a place before its beginning.")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, fewer only at the end.

        Raises:
            TooLargeError: More than MAX_READ_BYTES at once, if there are so many.
            StoreUnavailableError: A piece is gone, or is not what was written.
        """
        left = max(0, self.size - self._position)
        wanted = left if size is None or size < 0 else size
        self.ended = self.ended or wanted > left
        wanted = min(wanted, left)
        if wanted > MAX_READ_BYTES:
            raise TooLargeError(
                f"One part of the stream has {wanted:,} bytes and must be read at once; the limit is "
                f"{MAX_READ_BYTES:,}: write smaller record batches or row groups.",
                {"what": "bytes of one part", "limit": str(MAX_READ_BYTES)},
            )
        found = []
        while wanted:
            index = bisect_right(self._starts, self._position) - 1
            at = self._position - self._starts[index]
            some = memoryview(self._piece(index))[at : at + wanted]
            found.append(some)
            self._position += len(some)
            wanted -= len(some)
        return bytes(found[0]) if len(found) == 1 else b"".join(found)

    def readinto(self, buffer: Any) -> int:
        """As `read`, into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _piece(self, index: int) -> bytes:
        if index in self._held:
            self._held.move_to_end(index)
            return self._held[index]
        piece = self._objects[index]
        try:
            data = self._store.get(piece.key)
        except KeyMissingError:
            raise StoreUnavailableError(f"The staged object {piece.key} is gone from the store.") from None
        expected = (piece.end_offset - piece.offset, piece.checksum)
        if (len(data), xxhash.xxh128_hexdigest(data)) != expected:
            raise StoreUnavailableError(f"The staged object {piece.key} is not what was written.")
        self._held[index] = data
        if len(self._held) > PIECES_HELD:
            self._held.popitem(last=False)
        return data
