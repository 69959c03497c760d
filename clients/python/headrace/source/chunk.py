"""Chunks, where a stream of them starts, and the interface of their sources."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import google_crc32c

from headrace.v1 import row_pb2

CHUNK_BYTES = 256 << 10
"""Bytes of a file chunk; with larger ones a Python gRPC stream spends its time on pages the kernel clears."""

BATCH_BYTES = 256 << 10
"""Bytes after which rows, or what a slow pipe gave, are sent."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream.

    Attributes:
        offset, end_offset: The stream offsets it covers: bytes, or rows for rows.
        content: Bytes of the stream, or a `RowBatch` encoded.
        is_rows: Whether `content` is a `RowBatch`.
        batch: The batch itself, if it is at hand. It takes three times the memory
            of the encoded one, so it is not kept.
        before_crc32c: CRC-32C of the whole stream up to `offset`; None for rows,
            and where nobody asks for it.
    """

    offset: int
    end_offset: int
    content: bytes
    is_rows: bool = False
    batch: row_pb2.RowBatch | None = None
    before_crc32c: int | None = None

    @property
    def weight_bytes(self) -> int:
        """What it occupies in memory and on the wire."""
        return len(self.content)

    @property
    def rows(self) -> row_pb2.RowBatch:
        """The batch of a chunk of rows."""
        return self.batch or row_pb2.RowBatch.FromString(self.content)

    @property
    def crc32c(self) -> int:
        """CRC-32C of the content."""
        return int(google_crc32c.value(self.content))

    def stream_crc32c(self, offset: int) -> int | None:
        """CRC-32C of the whole stream up to an offset within the chunk; None if it is not known."""
        if self.before_crc32c is None:
            return None
        return int(google_crc32c.extend(self.before_crc32c, self.content[: offset - self.offset]))


@dataclass(frozen=True)
class Start:
    """Where a stream goes on, by the server's word.

    Attributes:
        offset: What it has: bytes, or rows for rows.
        crc32c: CRC-32C of that; None if the server does not tell.
        limit_bytes: Largest chunk content it takes.
    """

    offset: int = 0
    crc32c: int | None = None
    limit_bytes: int = CHUNK_BYTES

    def check(self, crc32c: int | None) -> None:
        """Compares what lies before the start with what the server has, where both checksums are known.

        Args:
            crc32c: CRC-32C of the source up to `offset`.

        Raises:
            ValueError: They differ.
        """
        if self.crc32c is not None and crc32c is not None and crc32c != self.crc32c:
            raise ValueError(
                f"The first {self.offset:,} bytes have crc32c {crc32c:#010x}, but those stored have "
                f"{self.crc32c:#010x}: not the same content; give what was uploaded before, or another"
                " upload_id."
            )


class Source(ABC):
    """What a stream is made of.

    Attributes:
        total: Bytes, or rows for rows, that it will give; 0 when unknown.
    """

    total: int = 0

    @abstractmethod
    def chunks(self, start: Start) -> Iterator[Chunk]:
        """The chunks from the start on; some may come that end before it.

        May be called again, for another stream, even while a thread still holds the iterator of an
        earlier one.

        Raises:
            OSError: The source cannot be read.
            ValueError: It is not what the server has the beginning of, or its content is no such thing.
        """

    @abstractmethod
    def achunks(self, start: Start) -> AsyncIterator[Chunk]:
        """The same for aio."""

    def acked(self, offset: int) -> None:  # noqa: B027  # only sources that keep chunks care
        """Notes that everything before `offset` is safe and will not be asked for again."""

    def check_whole(self, start: Start) -> None:  # noqa: B027
        """Compares the source with an upload that had been finished before; reads nothing that comes once.

        Args:
            start: What the server has.

        Raises:
            ValueError: It is not what was uploaded.
        """

    async def aclose(self) -> None:  # noqa: B027
        """Ends a reading that `achunks` has begun."""


def too_short(unit: str, size: int, start: Start) -> ValueError:
    """The error of a source that ends before what the server has of it."""
    return ValueError(
        f"There are only {size:,} {unit}, but {start.offset:,} were stored: not the same content;"
        " give what was uploaded before, or another upload_id."
    )


def not_the_same(unit: str, size: int, start: Start) -> ValueError:
    """The error of a source that has another size than the upload that was finished under its id."""
    return ValueError(
        f"There are {size:,} {unit}, but the upload was finished with {start.offset:,}: not the same content;"
        " give what was uploaded before, or another upload_id."
    )
