"""The uploads that have a stream on this server."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

Upload = tuple[str, str]


class Interruptible(Protocol):
    """Something that waits for a client and can be interrupted."""

    def interrupt(self, error: Exception) -> None:
        """Makes it raise `error` instead of waiting on."""


class LiveUploads:
    """The streams that serve each upload at present. Belongs to one event loop."""

    def __init__(self) -> None:
        self._streams: dict[Upload, list[Interruptible]] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def has(self, tenant: str, upload_id: str) -> bool:
        """Whether an upload has a stream here."""
        return (tenant, upload_id) in self._streams

    @contextmanager
    def joined(self, tenant: str, upload_id: str, stream: Interruptible) -> Iterator[None]:
        """Lists a stream for as long as the context lasts."""
        upload = tenant, upload_id
        self._streams.setdefault(upload, []).append(stream)
        self._empty.clear()
        try:
            yield
        finally:
            self._streams[upload].remove(stream)
            if not self._streams[upload]:
                del self._streams[upload]
            if not self._streams:
                self._empty.set()

    def interrupt(self, tenant: str, upload_id: str, error: Exception) -> None:
        """Ends an upload's streams here; those elsewhere hear of it at their next record."""
        for stream in self._streams.get((tenant, upload_id), ()):
            stream.interrupt(error)

    def interrupt_all(self, error: Callable[[], Exception]) -> None:
        """Ends every stream, each with an error of its own."""
        for upload in self._streams:
            self.interrupt(*upload, error())

    async def ended(self, seconds: float) -> bool:
        """Waits until no stream is left, at most so long; whether none is."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
