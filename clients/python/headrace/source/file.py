"""Files: by path, read again when a stream breaks, or open, read once."""

import asyncio
import gzip
import io
import os
import stat
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO, Literal, TypeAlias, cast

import google_crc32c

from headrace.source.chunk import BATCH_BYTES, CHUNK_BYTES, Chunk, Source, Start, not_the_same, too_short
from headrace.source.once import OnceSource

File: TypeAlias = str | os.PathLike[str] | BinaryIO
"""A path, or a file open for reading bytes."""

Compression: TypeAlias = Literal["none", "gzip", "zstd"]
"""How a file is compressed as a whole."""


def file_source(file: File) -> Source:
    """The source of a file's bytes.

    Raises:
        OSError: The file cannot be read.
    """
    if not isinstance(file, str | os.PathLike):
        return StreamSource(file)
    # A named pipe has a path too, but cannot be read twice.
    if stat.S_ISREG(os.stat(file).st_mode):
        return FileSource(file)
    return StreamSource(open(file, "rb"))  # closed with its source


def opened(file: File, compression: Compression) -> BinaryIO:
    """The content of a file, decompressed, as a file open for reading.

    Raises:
        OSError: The file cannot be read.
        MissingExtraError: It is zstd, which takes pyarrow.
    """
    path = os.fspath(file) if isinstance(file, str | os.PathLike) else None
    if compression == "none":
        return open(path, "rb") if path is not None else cast(BinaryIO, file)
    if compression == "gzip":
        stream = _Gunzipped(path, "rb") if path is not None else _Gunzipped(fileobj=cast(BinaryIO, file))
        return cast(BinaryIO, stream)
    from headrace.arrow import pa

    where = file if path is None else path
    return io.BufferedReader(cast(io.RawIOBase, pa.input_stream(where, compression=compression)))


class _Gunzipped(gzip.GzipFile):
    """The content of a gzip file, of which whatever is wrong is an OSError."""

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except (EOFError, zlib.error) as error:
            raise OSError(f"The gzip stream is damaged: {error}.") from error


class FileSource(Source):
    """The bytes of a regular file, opened anew for every stream.

    Args:
        path: Where it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.total = os.stat(path).st_size

    def chunks(self, start: Start) -> Iterator[Chunk]:
        """The bytes from the start on, once what lies before has the server's checksum."""
        with open(self.path, "rb", buffering=0) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if start.offset > size_bytes:
                raise too_short("bytes", size_bytes, start)
            crc32c = None
            if start.crc32c is not None:
                crc32c = self._crc32c_before(file, start.offset)
                start.check(crc32c)
            file.seek(start.offset)
            offset = start.offset
            while content := file.read(min(start.limit_bytes, CHUNK_BYTES)):
                end_offset = offset + len(content)
                yield Chunk(offset, end_offset, content, before_crc32c=crc32c)
                offset = end_offset
                if crc32c is not None:
                    crc32c = google_crc32c.extend(crc32c, content)

    async def achunks(self, start: Start) -> AsyncIterator[Chunk]:
        """The same, read in a thread, so that a slow disk does not stop the loop."""
        chunks = self.chunks(start)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk

    def check_whole(self, start: Start) -> None:
        """By its size, and by the server's checksum."""
        if next(self.chunks(start), None) is not None:
            raise not_the_same("bytes", self.total, start)

    def _crc32c_before(self, file: io.FileIO, offset: int) -> int:
        # The whole of it each time: it is the file of today that must be the one of yesterday.
        crc32c, at = 0, 0
        file.seek(0)
        while at < offset and (content := file.read(min(offset - at, CHUNK_BYTES))):
            crc32c = google_crc32c.extend(crc32c, content)
            at += len(content)
        return crc32c


class StreamSource(OnceSource):
    """The bytes of a file that is open, such as a pipe, from where it stands.

    Args:
        file: Open for reading bytes; it stays open.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def read(self, start: Start) -> Iterator[Chunk]:
        """The bytes; what a pipe gives in small pieces is put together."""
        offset = 0
        limit_bytes = min(start.limit_bytes, CHUNK_BYTES)
        while content := self._read_some(limit_bytes):
            yield Chunk(offset, offset + len(content), content)
            offset += len(content)

    def _read_some(self, limit_bytes: int) -> bytes:
        pieces, size = [], 0
        enough = min(BATCH_BYTES, limit_bytes)
        while size < enough and (content := self._file.read(limit_bytes - size)):
            pieces.append(content)
            size += len(content)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
