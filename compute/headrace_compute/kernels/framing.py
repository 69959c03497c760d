"""Cuts a CSV stream into blocks of whole records, whatever the chunks it arrives in."""

from dataclasses import dataclass

import google_crc32c
import numpy as np

from headrace_compute.errors import BadEncodingError, RecordTooLargeError
from headrace_compute.kernels.magic import binary_kind, describe_start
from headrace_compute.kernels.scan import AFTER_CR, Cursor, new_cursor, scan
from headrace_compute.model import MAX_RECORD_BYTES, Block

MAX_BLOCK_ROWS = 1 << 20
"""Records of a block: bounds what a block of very short ones costs to work on."""

_BOM = b"\xef\xbb\xbf"
_FOREIGN_BOMS = {
    b"\xff\xfe": "a UTF-16 (or UTF-32) byte order mark",
    b"\xfe\xff": "a UTF-16 byte order mark",
    b"\x00\x00\xfe\xff": "a UTF-32 byte order mark",
}
_NOTHING = np.empty(0, np.int32)


@dataclass(frozen=True)
class BlockShape:
    """What a block covers.

    Attributes:
        offset: Stream offset of its first byte.
        first_row: row_number of its first record.
        first_line: 1-based line of its first byte.
        rows, lines, nbytes: Records, line ends and bytes in it. Blank lines have no record,
            so a block may have bytes and no rows.
        crc32c: CRC-32C of the stream from its beginning up to the block's end.
    """

    offset: int
    first_row: int
    first_line: int
    rows: int
    lines: int
    nbytes: int
    crc32c: int

    def block(self, index: int) -> Block:
        """The block that covers this, as the `index`-th of its stream."""
        return Block(
            index=index,
            format="csv",
            offset=self.offset,
            end_offset=self.offset + self.nbytes,
            first_row=self.first_row,
            rows=self.rows,
            first_line=self.first_line,
        )


Framed = tuple[np.ndarray, BlockShape]
"""A block's bytes (uint8, not to be written to) and what it covers."""


class Framer:
    """Takes a stream's bytes in order and hands out blocks of whole records.

    The first record is the header: it is handed out apart, as `header`, and no
    block holds it. A UTF-8 byte order mark before it is dropped, but counts in
    offsets. Block edges depend on the stream and on the targets only, not on
    chunks. At a block edge the framer can be built anew from its attributes.
    Holds at most the bytes of an unfinished block. Not thread-safe; releases the GIL while scanning.

    Attributes:
        header: The header record without its line end, None until it is whole.
        offset: Stream offset of the first byte not handed out yet.
        first_row, line: Row number and 1-based line at `offset`.
        crc32c: CRC-32C of the stream up to `offset`.
    """

    def __init__(
        self,
        first_row: int = 0,
        line: int = 1,
        offset: int = 0,
        header: bytes | None = None,
        crc32c: int = 0,
    ) -> None:
        self.header = header
        self.offset = offset
        self.first_row = first_row
        self.line = line
        self.crc32c = crc32c
        self._checked_mark = header is not None
        self._buffer = np.empty(0, np.uint8)
        self._start = 0
        self._size = 0
        self._target = 0
        self._cursor = new_cursor()

    @property
    def received(self) -> int:
        """Stream offset up to which bytes were fed."""
        return self.offset + self._size - self._start

    @property
    def received_crc32c(self) -> int:
        """CRC-32C of the stream up to `received`; looks at the bytes not handed out yet."""
        return int(google_crc32c.extend(self.crc32c, self._pending()))

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Appends the next bytes of the stream; scans nothing."""
        chunk = np.frombuffer(data, np.uint8)
        if self._size + chunk.size > self._buffer.size:
            self._move(chunk.size)
        self._buffer[self._size : self._size + chunk.size] = chunk
        self._size += chunk.size

    def cut(self, target_bytes: int) -> list[Framed]:
        """Hands out all blocks that are full: of as many records as fit into `target_bytes`, at least one.

        Raises:
            RecordTooLargeError: A record above MAX_RECORD_BYTES.
            BadEncodingError: The stream begins as UTF-16, UTF-32, an archive or other binary data.
        """
        self._target = target_bytes
        blocks = []
        while self._read_header(final=False) and (block := self._cut_one(target_bytes)) is not None:
            blocks.append(block)
        return blocks

    def flush(self, target_bytes: int) -> list[Framed]:
        """As `cut`, and then a block of the whole records that are left, if any."""
        blocks = self.cut(target_bytes)
        if self._cursor[Cursor.END] > 0:
            blocks.append(self._take())
        return blocks

    def finish(self, target_bytes: int) -> list[Framed]:
        """Ends the stream: as `flush`, and a last record needs no line end.

        Without any record `header` stays None.
        """
        self._read_header(final=True)
        blocks = self.cut(target_bytes) if self.header is not None else []
        if self._size > self._start and self.header is not None:
            self._scan(self._size - self._start, final=True)
            blocks.append(self._take())
        return blocks

    def _read_header(self, *, final: bool) -> bool:
        """Hands out the header if it is whole; whether it has been."""
        if not self._checked_mark:
            self._check_mark(final=final)
        if self.header is None and self._checked_mark:
            self._scan(self._size - self._start, final=final, max_records=1)
            if self._cursor[Cursor.RECORDS] == 1:
                record = self._pending()[self._cursor[Cursor.RECORD_START] : self._cursor[Cursor.END]]
                _check_text(record)
                self.header = record.tobytes().removesuffix(b"\n").removesuffix(b"\r")
            if self._cursor[Cursor.END] > 0:
                self._advance()  # The header, or blank lines before it.
        return self.header is not None

    def _check_mark(self, *, final: bool) -> None:
        start = self._buffer[: min(self._size, 4)].tobytes()
        if len(start) < 4 and not final:
            return
        for mark, name in _FOREIGN_BOMS.items():
            if start.startswith(mark):
                raise _bad_encoding(name)
        if binary_kind(start):
            raise _bad_encoding(describe_start(start), "say in the header how it is compressed, or unpack it")
        if start.startswith(_BOM):
            self._start = len(_BOM)
            self.offset += len(_BOM)
            self.crc32c = google_crc32c.extend(self.crc32c, _BOM)
        self._checked_mark = True

    def _cut_one(self, target_bytes: int) -> Framed | None:
        pending = self._size - self._start
        self._scan(min(pending, target_bytes), final=False)
        if self._cursor[Cursor.RECORDS] >= MAX_BLOCK_ROWS and self._cursor[Cursor.END] < pending:
            return self._take()
        if pending <= target_bytes:
            return None
        if self._cursor[Cursor.STATE] == AFTER_CR:
            self._scan(target_bytes + 1, final=False)
        if 0 < self._cursor[Cursor.END] <= target_bytes + 1:
            return self._take()
        # The first record alone is above the target: the block ends where it ends.
        self._scan(pending, final=False, max_records=1)
        return self._take() if self._cursor[Cursor.RECORDS] > 0 else None

    def _scan(self, stop: int, *, final: bool, max_records: int = 0) -> None:
        data, limit = self._pending(), max_records or MAX_BLOCK_ROWS
        scan(data, stop, final, limit, MAX_RECORD_BYTES, self._cursor, _NOTHING, _NOTHING, _NOTHING)
        self._check_size()

    def _check_size(self) -> None:
        if not self._cursor[Cursor.TOO_LARGE]:
            return
        if self.header is None:
            _check_text(self._pending())
        line = self.line + int(self._cursor[Cursor.RECORD_LINES])
        offset = self.offset + int(self._cursor[Cursor.RECORD_START])
        raise RecordTooLargeError(
            f"The record at line {line}, byte offset {offset}, is larger than {MAX_RECORD_BYTES} bytes; "
            "look for a quote that is not closed, or shorten the record.",
            {"line": str(line), "byte_offset": str(offset), "limit_bytes": str(MAX_RECORD_BYTES)},
        )

    def _take(self) -> Framed:
        """Hands out everything before END."""
        nbytes = int(self._cursor[Cursor.END])
        offset, first_line = self.offset, self.line
        rows, lines = int(self._cursor[Cursor.RECORDS]), int(self._cursor[Cursor.END_LINES])
        block = self._pending()[:nbytes]
        self._advance()
        shape = BlockShape(offset, self.first_row, first_line, rows, lines, nbytes, self.crc32c)
        self.first_row += rows
        return block, shape

    def _advance(self) -> None:
        self.crc32c = google_crc32c.extend(self.crc32c, self._pending()[: self._cursor[Cursor.END]])
        self._start += int(self._cursor[Cursor.END])
        self.offset += int(self._cursor[Cursor.END])
        self.line += int(self._cursor[Cursor.END_LINES])
        self._cursor = new_cursor()

    def _pending(self) -> np.ndarray:
        return self._buffer[self._start : self._size]

    def _move(self, more: int) -> None:
        """Makes room in a new buffer: blocks handed out are views of the old one.

        Room for a whole block at once: it takes no memory before it is written to, while
        growing step by step had every byte copied three times into pages the kernel had to clear.
        """
        pending = self._pending()
        room = pending.size + more
        # Two chunks to spare: what is left of a block at its end is copied, and must stay little.
        self._buffer = np.empty(2 * room if room > self._target else self._target + 2 * more, np.uint8)
        self._buffer[: pending.size] = pending
        self._start, self._size = 0, pending.size


def _check_text(header: np.ndarray) -> None:
    if not header.all():
        raise _bad_encoding("NUL bytes, as in binary data or UTF-16")


def _bad_encoding(found: str, remedy: str = "send CSV as UTF-8 text") -> BadEncodingError:
    return BadEncodingError(f"The stream begins with {found}; {remedy}.", {"found": found})
