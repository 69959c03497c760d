"""Sources that can be read only once: what was read is kept until the server has acknowledged it."""

import asyncio
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import google_crc32c

from headrace.errors import DataLossError
from headrace.source.chunk import Chunk, Source, Start, too_short


class OnceSource(Source):
    """A source that is read once, by however many streams an upload takes.

    Only one stream reads at a time. A stream that breaks while it reads leaves
    its reading to the next: what comes of it, a chunk or an error, is kept, so
    that nothing is lost between two streams. Memory is bounded by the window of
    the stream, which waits for room before more is read.

    Attributes:
        unit: What offsets count.
    """

    unit = "bytes"

    def __init__(self) -> None:
        self._kept: deque[Chunk] = deque()
        self._kept_from = 0
        self._safe_offset = 0
        self._end_offset = 0
        self._end_crc32c = 0
        self._iterator: Iterator[Chunk] | None = None
        self._failure: Exception | None = None
        self._guard = threading.Lock()  # Held for moments, around what is kept.
        self._reading = threading.Lock()  # Held by the one stream that reads.
        self._reading_task: asyncio.Task[Chunk | None] | None = None  # The same for aio.

    @abstractmethod
    def read(self, start: Start) -> Iterator[Chunk]:
        """All chunks, without checksums; called once."""

    def chunks(self, start: Start) -> Iterator[Chunk]:
        """The chunks from the start on, first those that are kept.

        Raises:
            DataLossError: The server has less than it acknowledged, and that cannot be read again.
        """
        offset = self._enter(start)
        while (chunk := self._next(offset, start)) is not None:
            _check(chunk, start)
            yield chunk
            offset = chunk.end_offset
        self._check_end(start)

    async def achunks(self, start: Start) -> AsyncIterator[Chunk]:
        """The same for aio."""
        offset = self._enter(start)
        while (chunk := await self._anext(offset, start)) is not None:
            _check(chunk, start)
            yield chunk
            offset = chunk.end_offset
        self._check_end(start)

    def acked(self, offset: int) -> None:
        """Drops the chunks that end before `offset`."""
        with self._guard:
            self._safe_offset = max(self._safe_offset, offset)
            while self._kept and self._kept[0].end_offset <= offset:
                self._kept_from = self._kept.popleft().end_offset

    async def aclose(self) -> None:
        """Ends a reading that is under way."""
        if self._reading_task is not None:
            self._reading_task.cancel()
            await asyncio.gather(self._reading_task, return_exceptions=True)

    async def read_next(self, start: Start) -> Chunk | None:
        """Reads one more chunk for aio: in a thread, so that a slow source does not stop the loop."""
        return await asyncio.to_thread(self.pull, start)

    def pull(self, start: Start) -> Chunk | None:
        """Reads one more chunk and keeps it; None at the end."""
        if self._iterator is None:
            self._iterator = self.read(start)
        chunk = next(self._iterator, None)
        return None if chunk is None else self.keep(chunk)

    def keep(self, chunk: Chunk) -> Chunk:
        """Keeps a chunk that was read, and gives it back with its checksum."""
        with self._guard:
            if not chunk.is_rows:
                chunk = replace(chunk, before_crc32c=self._end_crc32c)
                self._end_crc32c = google_crc32c.extend(self._end_crc32c, chunk.content)
            self._end_offset = chunk.end_offset
            if chunk.end_offset > self._safe_offset:
                self._kept.append(replace(chunk, batch=None))
            else:
                self._kept_from = chunk.end_offset
        return chunk

    def _enter(self, start: Start) -> int:
        if start.offset < self._kept_from:
            raise DataLossError(
                f"The server has {start.offset:,} {self.unit} of the upload, but acknowledged "
                f"{self._kept_from:,} before; they cannot be read again, so upload all of it under another"
                " upload_id."
            )
        self.acked(start.offset)
        return self._kept_from

    def _next(self, offset: int, start: Start) -> Chunk | None:
        if chunk := self._find(offset):
            return chunk
        with self._reading:
            # The stream that held the lock may have broken, and left here what it read.
            if chunk := self._find(offset):
                return chunk
            if self._failure is not None:
                raise self._failure
            try:
                return self.pull(start)
            except Exception as error:
                # A generator that failed looks like one that ended: the next stream must hear of it.
                self._failure = error
                raise

    async def _anext(self, offset: int, start: Start) -> Chunk | None:
        while True:
            if chunk := self._find(offset):
                return chunk
            task = self._reading_task = self._reading_task or asyncio.ensure_future(self.read_next(start))
            # Shielded: a stream that breaks ends this wait, not the reading.
            chunk = await asyncio.shield(task)
            if chunk is None:
                return None
            # An end or an error stays in the task, for the next stream to find.
            if self._reading_task is task:
                self._reading_task = None
            if chunk.end_offset > offset:
                return chunk

    def _find(self, offset: int) -> Chunk | None:
        with self._guard:
            return next((chunk for chunk in self._kept if chunk.end_offset > offset), None)

    def _check_end(self, start: Start) -> None:
        if self._end_offset < start.offset:
            raise too_short(self.unit, self._end_offset, start)
        if self._end_offset == start.offset and self.unit == "bytes":
            start.check(self._end_crc32c)


def _check(chunk: Chunk, start: Start) -> None:
    if chunk.offset <= start.offset <= chunk.end_offset:
        start.check(chunk.stream_crc32c(start.offset))
