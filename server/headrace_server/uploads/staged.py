"""Streams that cannot be split at records as they arrive: staged raw, decoded after finish.

The bytes go into create-only objects of some MiB, each recorded in the session
log before it is acknowledged. After finish they become blocks like any other,
so that from there on nothing differs from an upload of CSV. Decoding goes on
behind the last block that was persisted, on whichever server.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

import google_crc32c
import xxhash

from headrace_compute.formats.decode import decode
from headrace_compute.model import Position, StagedObject, StagedSource, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.schemas.contract import describe_for
from headrace_compute.workers.pool import Executor
from headrace_server.rows.blocks import BlockQueue
from headrace_server.rows.intake import AnyChunk, bytes_of
from headrace_server.rows.options import UploadOptions
from headrace_server.rpc.requests import invalid
from headrace_server.uploads.session import Session, staged_prefix

STAGED_BYTES = 8 << 20
"""Bytes of a staged object; the last one, and one that a flush asked for, may have fewer."""

Stage = Callable[[StagedObject], Awaitable[None]]


class StagedIntake:
    """Stages a stream's bytes, and decodes them at its end.

    Args:
        queue: Takes the decoded blocks.
        spec: What they share; `columns` is filled in from the decoded stream.
        session: The session, maybe with objects staged and blocks persisted.
        stage: Makes an object part of the session; only then may it be acknowledged.
    """

    unit = "bytes"
    header = ""

    def __init__(
        self,
        config: StoreConfig,
        pool: Executor,
        queue: BlockQueue,
        spec: UploadSpec,
        options: UploadOptions,
        block_bytes: Callable[[], int],
        session: Session,
        stage: Stage,
    ) -> None:
        self._config = config
        self._pool = pool
        self._queue = queue
        self._spec = spec
        self._options = options
        self._block_bytes = block_bytes
        self._stage = stage
        self._objects = list(session.staged)
        self._prefix = staged_prefix(config, session.tenant, session.upload_id)
        self._start = _start(session)
        self._buffer = bytearray()
        self.received = self._objects[-1].end_offset if self._objects else 0
        self.crc32c = self._objects[-1].crc32c if self._objects else 0
        pool.decoders.prepare()

    def content(self, chunk: AnyChunk) -> bytes:
        """A chunk's bytes.

        Raises:
            InvalidFieldError: The chunk is too large, or has rows.
        """
        return bytes_of(chunk, "The stream's format is one of bytes; send chunk.data.")

    async def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream; waits while an object is written.

        Raises:
            InvalidFieldError: The stream was finished before, and partly decoded.
        """
        if self._start.index:
            raise invalid(
                "chunk",
                f"The upload was finished with {self.received:,} bytes, which are being decoded; "
                "send finish again.",
            )
        self.received += len(data)
        self.crc32c = google_crc32c.extend(self.crc32c, data)
        self._buffer += data
        while len(self._buffer) >= STAGED_BYTES:
            await self._write(STAGED_BYTES)

    async def flush(self) -> None:
        """Stages what there is."""
        if self._buffer:
            await self._write(len(self._buffer))

    async def finish(self) -> None:
        """Stages the rest, decodes all of it, and waits until every block is persisted.

        Raises:
            UnreadableStreamError: The stream cannot be decoded.
            PoisonBlockError: A block killed its worker again and again.
        """
        await self.flush()
        source = StagedSource(
            format=self._options.format,
            compression=self._options.compression,
            data_type=self._options.data_type,
            objects=tuple(self._objects),
            reject_unknown=self._options.reject_unknown,
            block_bytes=self._block_bytes(),
        )
        await self._ingest(source)
        await self._queue.drain()

    async def _write(self, count: int) -> None:
        data = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        last = self._objects[-1] if self._objects else None
        piece = await asyncio.to_thread(_create, self._config, self._prefix, last, data)
        await self._stage(piece)
        self._objects.append(piece)

    async def _ingest(self, source: StagedSource) -> None:
        contract = (await self._pool.run(describe_for, source.data_type)).columns
        items = self._pool.decoders.blocks(
            self._pool.group, self._pool.member, decode, self._start, source, contract
        )
        async with aclosing(items):
            async for decoded, payload in items:
                spec = replace(self._spec, columns=decoded.columns)
                await self._queue.submit(spec, decoded.block, payload, decoded.lines)


def _create(config: StoreConfig, prefix: str, last: StagedObject | None, data: bytes) -> StagedObject:
    """Writes an object under a name of its own: one that a crash left unrecorded may hold other bytes."""
    offset, crc32c = (last.end_offset, last.crc32c) if last else (0, 0)
    key = f"{prefix}{offset:016d}-{uuid.uuid4().hex[:12]}"
    open_store(config).create(key, data)
    checksum, crc32c = xxhash.xxh128_hexdigest(data), google_crc32c.extend(crc32c, data)
    return StagedObject(key, offset, offset + len(data), checksum, crc32c)


def _start(session: Session) -> Position:
    """Where decoding goes on: behind the last persisted block."""
    if not session.blocks:
        return Position()
    last = session.blocks[-1]
    block = last.result.block
    return Position(
        index=block.index + 1,
        offset=block.end_offset,
        row=block.first_row + block.rows,
        line=block.first_line + last.lines,
    )
