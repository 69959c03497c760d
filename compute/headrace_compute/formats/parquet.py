"""Untrusted Parquet, read by a decoder: its footer once, then one run of row groups after another.

Nothing is asked of the footer but rows and sizes of row groups: pyarrow ends the process when it is
asked for the metadata of an encrypted column, and raises when it reads one.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace_compute.errors import CorruptStreamError
from headrace_compute.formats.decompress import decoded_limit
from headrace_compute.formats.faults import MIN_ROW_BYTES, check_decoded, corrupt
from headrace_compute.kernels.magic import START_BYTES, mismatch
from headrace_compute.objects.spool import SpooledFile

RUN_ROWS = 65_536
"""Limit on the rows of row groups that are read together: tiny groups cost a call each."""

RUN_BYTES = 32 << 20
"""The same for what they weigh by the footer, before compression; also what a batch may weigh by it."""

BATCH_ROWS = (256, 16_384)
"""Rows of a batch, at least and at most. Repeated values may be far larger than the footer says."""

_MAX_FOOTER_STRINGS = 16 << 20
_MAX_FOOTER_ITEMS = 1 << 20
_MAGIC = b"PAR1"


class ParquetReader:
    """A Parquet file, batch by batch.

    Raises:
        BadEncodingError: It is no Parquet.
        TooLargeError: It says that it has more rows than it may.
        CorruptStreamError: Its footer contradicts itself, row groups lack rows, or columns are encrypted.
    """

    name = "Parquet"

    def __init__(self, file: SpooledFile) -> None:
        start = file.read(START_BYTES)
        if not start.startswith(_MAGIC):
            raise mismatch(start, self.name)
        self._spooled = file
        self._file = self._open("us", None)
        self.schema: pa.Schema = self._file.schema_arrow

    def batches(self, names: Sequence[str], first_row: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches with some of the columns, each with the number of its first row.

        Args:
            first_row: Row groups that end before it are not read.
        """
        runs = self._runs()
        int96 = [name for name in names if self._is_int96(name)]
        in_seconds = self._open("s", self._file.metadata) if int96 else None
        for run in runs:
            if run.first_row + run.rows <= first_row:
                continue
            seconds = _Columns(_read(in_seconds, run, int96)) if in_seconds else None
            row = run.first_row
            for batch in _read(self._file, run, names):
                if seconds and batch.num_rows:
                    batch = _all_saturated(batch, seconds.take(batch.num_rows))
                yield row, batch
                row += batch.num_rows
            if row != run.first_row + run.rows:
                found = f"row groups {run.groups} have {row - run.first_row} rows, the footer says {run.rows}"
                raise corrupt(self.name, ValueError(found))

    def _runs(self) -> "list[_Run]":
        """Row groups that are read together, in the order of their rows; those without rows are left out."""
        metadata = self._file.metadata
        limit = decoded_limit(self._spooled.size)
        check_decoded(metadata.num_rows * MIN_ROW_BYTES, limit, self.name)
        runs: list[_Run] = []
        row = 0
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            rows, size_bytes = group.num_rows, group.total_byte_size
            if rows < 0 or size_bytes < 0:
                raise CorruptStreamError("The Parquet footer has negative sizes.", {"format": self.name})
            if rows and not (runs and runs[-1].took(index, rows, size_bytes)):
                runs.append(_Run(index, row, rows, size_bytes))
            row += rows
            check_decoded(row * MIN_ROW_BYTES, limit, self.name)
        if row != metadata.num_rows:
            error = f"the footer says {metadata.num_rows} rows, its row groups {row}"
            raise corrupt(self.name, ValueError(error))
        return runs

    def _is_int96(self, name: str) -> bool:
        columns = map(self._file.schema.column, range(len(self._file.schema.names)))
        return any(column.path == name and column.physical_type == "INT96" for column in columns)

    def _open(self, int96_unit: Literal["s", "us"], metadata: pq.FileMetaData | None) -> pq.ParquetFile:
        """The file, open for reading.

        Args:
            int96_unit: What INT96 times are read in. Nanoseconds would wrap outside the years 1677 to 2262.
            metadata: The footer, if it has been read.
        """
        self._spooled.seek(0)
        return pq.ParquetFile(
            pa.PythonFile(self._spooled, mode="r"),
            metadata=metadata,
            pre_buffer=True,
            thrift_string_size_limit=_MAX_FOOTER_STRINGS,
            thrift_container_size_limit=_MAX_FOOTER_ITEMS,
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=int96_unit,
        )


class _Run:
    """Some row groups in a row, which are read together.

    Attributes:
        size_bytes: What they weigh by the footer, before compression.
    """

    def __init__(self, group: int, first_row: int, rows: int, size_bytes: int) -> None:
        self.groups = [group]
        self.first_row = first_row
        self.rows = rows
        self.size_bytes = size_bytes

    def took(self, group: int, rows: int, size_bytes: int) -> bool:
        """Whether there was room for another row group, which is then part of it."""
        if self.rows + rows > RUN_ROWS or self.size_bytes + size_bytes > RUN_BYTES:
            return False
        self.groups.append(group)
        self.rows += rows
        self.size_bytes += size_bytes
        return True

    @property
    def batch_rows(self) -> int:
        """How many rows a batch should have."""
        least, most = BATCH_ROWS
        return max(least, min(most, self.rows * RUN_BYTES // max(1, self.size_bytes)))


class _Columns:
    """Batches of another cut than those they go with."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._held: list[pa.RecordBatch] = []

    def take(self, count: int) -> pa.Table:
        """The next rows.

        Raises:
            ValueError: There are not so many.
        """
        while (left := sum(batch.num_rows for batch in self._held)) < count:
            batch = next(self._batches, None)
            if batch is None:
                raise ValueError(f"a column lacks {count - left} of its rows")
            self._held.append(batch)
        table = pa.Table.from_batches(self._held)
        self._held = table.slice(count).to_batches()
        return table.slice(0, count)


def _read(file: pq.ParquetFile, run: _Run, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(run.batch_rows, row_groups=run.groups, columns=names, use_threads=False)
    except OSError as error:
        if "decrypt" not in str(error):
            raise
        raise CorruptStreamError(
            "Columns of the Parquet file are encrypted, and there is no key; write it without encryption.",
            {"format": "encrypted Parquet"},
        ) from None


def _all_saturated(batch: pa.RecordBatch, seconds: pa.Table) -> pa.RecordBatch:
    for name in seconds.column_names:
        times = seconds[name].combine_chunks().view(pa.int64()).fill_null(0)
        batch = _saturated(batch, name, times.to_numpy())
    return batch


def _saturated(batch: pa.RecordBatch, name: str, seconds: np.ndarray) -> pa.RecordBatch:
    """INT96 times too far away for microseconds, which wrap around, as the farthest that there are."""
    place = batch.schema.get_field_index(name)
    times = batch.column(place)
    micros = times.view(pa.int64()).fill_null(0).to_numpy()
    wrapped = micros // 10**6 != seconds
    if not wrapped.any():
        return batch
    limits = np.iinfo(np.int64)
    micros = np.where(wrapped, np.where(seconds < 0, limits.min, limits.max), micros)
    valid = times.is_valid().to_numpy(zero_copy_only=False)
    return batch.set_column(place, batch.schema.field(place), pa.array(micros, mask=~valid).view(times.type))
