"""Untrusted Arrow IPC: streams and files, batch by batch."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from headrace_compute.errors import CorruptStreamError
from headrace_compute.kernels.magic import START_BYTES, mismatch
from headrace_compute.objects.spool import SpooledFile

_FILE = b"ARROW1\x00\x00"
_STREAM = (b"\xff\xff\xff\xff", b"\x10\x00\x00\x00", b"\x00")
"""How an Arrow IPC file begins, and how streams do."""


class ArrowReader:
    """An Arrow IPC stream or file, batch by batch.

    Raises:
        BadEncodingError: It is neither.
        CorruptStreamError: It has no end marker, or something behind it.
    """

    name = "Arrow IPC"

    def __init__(self, file: SpooledFile) -> None:
        self._file = file
        start = file.read(START_BYTES)
        self._is_file = start.startswith(_FILE)
        if not self._is_file and not start.startswith(_STREAM):
            raise mismatch(start, "an Arrow IPC stream or file")
        self.schema = self._open(None).schema

    def batches(self, names: Sequence[str], first_row: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches with some of the columns, each with the number of its first row.

        Args:
            first_row: Rows before it may be left out; here, none are.
        """
        fields = sorted(self.schema.get_field_index(name) for name in names)
        row = 0
        for batch in self._read(self._open(fields)):
            yield row, batch
            row += batch.num_rows

    def _read(self, reader: Any) -> Iterator[pa.RecordBatch]:
        if self._is_file:
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
            return
        self._file.ended = False
        while True:
            try:
                yield reader.read_next_batch()
            except StopIteration:
                break
        # The reader takes the end of the bytes for the end of the stream.
        if self._file.ended:
            raise CorruptStreamError(
                f"The Arrow IPC stream ends at byte {self._file.size:,} without its end marker, so rows may "
                "be missing; close the writer, and send all that it wrote.",
                {"format": "Arrow IPC"},
            )
        if self._file.tell() != self._file.size:
            raise CorruptStreamError(
                f"The Arrow IPC stream ends at byte {self._file.tell():,}, and {self._file.size:,} were "
                "sent; send one stream for each upload.",
                {"format": "Arrow IPC"},
            )

    def _open(self, fields: list[int] | None) -> Any:
        self._file.seek(0)
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
        source = pa.PythonFile(self._file, mode="r")
        if self._is_file:
            return pa.ipc.open_file(source, options=options)
        return pa.ipc.open_stream(source, options=options)
