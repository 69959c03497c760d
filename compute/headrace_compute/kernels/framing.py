"""Cuts a stream of CSV or of lines into blocks of whole records, whatever the chunks it arrives in."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import google_crc32c
import numpy as np

from headrace_compute.errors import (
    BadEncodingError,
    CorruptStreamError,
    RecordTooLargeError,
    UnreadableStreamError,
)
from headrace_compute.kernels.lines import scan_lines
from headrace_compute.kernels.magic import START_BYTES, binary_kind, kind_of, mismatch
from headrace_compute.kernels.scan import (
    AFTER_CR,
    ESCAPED_QUOTE,
    QUOTED,
    UNESCAPE,
    Cursor,
    new_cursor,
    scan,
)
from headrace_compute.model import MAX_RECORD_BYTES, Block, BlockFormat

MAX_BLOCK_ROWS = 1 << 18
"""Records of a block: bounds what a block of very short ones costs to work on. Those of 32 bytes and more
fill 8 MiB before they are so many."""

_BOM = b"\xef\xbb\xbf"
_WHOLE_FIELD = re.compile(rb'(?:"(?:[^"]|"")*+"[^,\r\n]*|[^",\r\n][^,\r\n]*)?,')
"""A field and the comma behind it, as `scan` finds them."""

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

    format: BlockFormat
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
            format=self.format,
            offset=self.offset,
            end_offset=self.offset + self.nbytes,
            first_row=self.first_row,
            rows=self.rows,
            first_line=self.first_line,
        )


Framed = tuple[np.ndarray, BlockShape]
"""A block's bytes (uint8, not to be written to) and what it covers."""


class Framer(ABC):
    """Takes a stream's bytes in order and hands out blocks of whole records.

    A UTF-8 byte order mark at the beginning is dropped, but counts in offsets. Block edges depend on the
    stream and on the targets only, not on chunks. At a block edge the framer can be built anew from its
    attributes. Holds at most the bytes of an unfinished block. Not thread-safe; releases the GIL
    while scanning.

    Args:
        packed: How the bytes were compressed, for errors to name; empty if they were not.

    Attributes:
        format: That of the stream.
        format_name: What messages call it.
        offset: Stream offset of the first byte not handed out yet.
        first_row, line: Row number and 1-based line at `offset`.
        crc32c: CRC-32C of the stream up to `offset`.
    """

    format: BlockFormat
    format_name: str

    def __init__(
        self, first_row: int = 0, line: int = 1, offset: int = 0, crc32c: int = 0, packed: str = ""
    ) -> None:
        self.offset = offset
        self.first_row = first_row
        self.line = line
        self.crc32c = crc32c
        self._packed = packed
        self._checked_mark = offset > 0
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
            BadEncodingError: The stream is of another format, or binary.
        """
        self._target = target_bytes
        blocks = []
        while self._begin(final=False) and (block := self._cut_one(target_bytes)) is not None:
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

        Raises:
            CorruptStreamError: A quote is still open, so the stream was cut off or is quoted wrongly.
        """
        if not self._begin(final=True):
            return []
        blocks = self.cut(target_bytes)
        if self._size > self._start:
            self._scan(self._size - self._start, final=True)
            blocks.append(self._take())
        return blocks

    @abstractmethod
    def _scan(self, stop: int, *, final: bool, max_records: int = 0) -> None:
        """Moves the cursor over the pending bytes before `stop`."""

    @abstractmethod
    def _too_large(self) -> str:
        """What to do about a record above the limit."""

    def _begin(self, *, final: bool) -> bool:
        """Sees to what stands before the records; whether that is done."""
        if not self._checked_mark:
            self._check_mark(final=final)
        return self._checked_mark

    def _check_mark(self, *, final: bool) -> None:
        start = self._buffer[: min(self._size, START_BYTES)].tobytes()
        if len(start) < 4 and not final:
            return
        if binary_kind(start):
            raise mismatch(start, self.format_name, self._packed)
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

    def _check_size(self) -> None:
        if not self._cursor[Cursor.TOO_LARGE]:
            return
        line = self.line + int(self._cursor[Cursor.RECORD_LINES])
        offset = self.offset + int(self._cursor[Cursor.RECORD_START])
        error = RecordTooLargeError(
            f"The record at line {line}, byte offset {offset}, is larger than {MAX_RECORD_BYTES} bytes; "
            f"{self._too_large()}.",
            {"line": str(line), "byte_offset": str(offset), "limit_bytes": str(MAX_RECORD_BYTES)},
        )
        raise self._true_fault(error)

    def _true_fault(self, error: UnreadableStreamError) -> UnreadableStreamError:
        """Of what cannot be read, the true fault, where that is another one."""
        return error

    def _take(self) -> Framed:
        """Hands out everything before END."""
        nbytes = int(self._cursor[Cursor.END])
        offset, first_line = self.offset, self.line
        rows, lines = int(self._cursor[Cursor.RECORDS]), int(self._cursor[Cursor.END_LINES])
        block = self._pending()[:nbytes]
        self._advance()
        shape = BlockShape(self.format, offset, self.first_row, first_line, rows, lines, nbytes, self.crc32c)
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


class CsvFramer(Framer):
    """Cuts CSV. The first record is the header: it is handed out apart, and no block holds it.

    Attributes:
        header: The header record without its line end; None until it is whole, or if there is no record.
    """

    format: BlockFormat = "csv"
    format_name = "CSV"

    def __init__(
        self,
        first_row: int = 0,
        line: int = 1,
        offset: int = 0,
        header: bytes | None = None,
        crc32c: int = 0,
        packed: str = "",
    ) -> None:
        super().__init__(first_row, line, offset, crc32c, packed)
        self.header = header
        self._checked_mark = header is not None

    def _begin(self, *, final: bool) -> bool:
        """Hands out the header if it is whole; whether it has been."""
        if super()._begin(final=final) and self.header is None:
            self._scan(self._size - self._start, final=final, max_records=1)
            if self._cursor[Cursor.RECORDS] == 1:
                record = self._pending()[self._cursor[Cursor.RECORD_START] : self._cursor[Cursor.END]]
                if not record.all():
                    raise self._no_text()
                self.header = record.tobytes().removesuffix(b"\n").removesuffix(b"\r")
            if self._cursor[Cursor.END] > 0:
                self._advance()  # The header, or blank lines before it.
        return self.header is not None

    def _scan(self, stop: int, *, final: bool, max_records: int = 0) -> None:
        data, limit = self._pending(), max_records or MAX_BLOCK_ROWS
        scan(data, stop, False, limit, MAX_RECORD_BYTES, self._cursor, _NOTHING, _NOTHING, _NOTHING)
        if self._cursor[Cursor.TOO_LARGE] and self.header is None and not self._pending().all():
            raise self._no_text()
        self._check_size()
        if final:
            if self._cursor[Cursor.STATE] == QUOTED and self._cursor[Cursor.POSITION] == stop:
                raise self._true_fault(self._open_quote())
            scan(data, stop, True, limit, MAX_RECORD_BYTES, self._cursor, _NOTHING, _NOTHING, _NOTHING)

    def _no_text(self) -> UnreadableStreamError:
        found = "NUL bytes, as in binary data or UTF-16"
        message = f"The stream begins with {found}; send CSV as UTF-8 text."
        return self._true_fault(BadEncodingError(message, {"found": found}))

    def _true_fault(self, error: UnreadableStreamError) -> UnreadableStreamError:
        """Of a header that cannot be read, that it is none, if the stream is of another format."""
        start = self._pending()[:START_BYTES].tobytes()
        if self.header is None and kind_of(start):
            return mismatch(start, self.format_name, self._packed)
        return error

    def _too_large(self) -> str:
        start = int(self._cursor[Cursor.RECORD_START])
        if ESCAPED_QUOTE in self._pending()[start : start + MAX_RECORD_BYTES].tobytes():
            return UNESCAPE
        return "look for a quote that is not closed, or shorten the record"

    def _open_quote(self) -> CorruptStreamError:
        start = int(self._cursor[Cursor.RECORD_START])
        record, place = self._pending()[start:].tobytes(), 0
        while field := _WHOLE_FIELD.match(record, place):
            place = field.end()
        # What is before the quote may hold line ends in other quotes.
        before = (record[:place] + b"x").splitlines()
        line = self.line + int(self._cursor[Cursor.RECORD_LINES]) + len(before) - 1
        offset = self.offset + start + place
        escaped = ESCAPED_QUOTE in record[place:]
        remedy = UNESCAPE if escaped else 'close it, write a quote inside a quoted value as ""'
        return CorruptStreamError(
            f"The quote opened in line {line}, byte offset {offset}, is still open where the stream ends; "
            f"{remedy}, and send all of the file.",
            {"format": "CSV", "line": str(line), "byte_offset": str(offset)},
        )


class LineFramer(Framer):
    """Cuts JSON lines, of which every one that is not blank is a record. There is no header."""

    format: BlockFormat = "json_lines"
    format_name = "JSON lines"

    def _scan(self, stop: int, *, final: bool, max_records: int = 0) -> None:
        limit = max_records or MAX_BLOCK_ROWS
        scan_lines(self._pending(), stop, final, limit, MAX_RECORD_BYTES, self._cursor)
        self._check_size()

    def _too_large(self) -> str:
        return "write one object per line, or shorten it"
