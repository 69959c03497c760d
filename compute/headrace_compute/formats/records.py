"""Records as they were sent, for the rejects that show them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from headrace_compute.formats.arrow import times_of
from headrace_compute.kernels.objects import Objects
from headrace_compute.kernels.quoting import json_strings
from headrace_compute.kernels.strings import string_buffers
from headrace_compute.kernels.text import show_text
from headrace_compute.kernels.tokens import Tokens
from headrace_compute.model import Block
from headrace_compute.report import iso_time

VALUE_BYTES = 256
RAW_BYTES = 4096


class Records(Protocol):
    """The records of a block. All methods take int64 indices into the block and give one entry for each."""

    def values(self, column: str, rows: np.ndarray, limit_bytes: int = VALUE_BYTES) -> pa.StringArray:
        """Values of a column as text, bad bytes as U+FFFD, cut at `limit_bytes`."""

    def raw(self, rows: np.ndarray) -> pa.StringArray:
        """Whole records as text, cut at RAW_BYTES."""

    def lines(self, rows: np.ndarray) -> pa.Int64Array:
        """1-based line of each record's first line; null where there are no lines."""

    def offsets(self, rows: np.ndarray) -> pa.Int64Array:
        """Stream offset of each record's first byte; null where there are no bytes."""


@dataclass(frozen=True)
class CsvRecords:
    """Records of a CSV block; `columns` names the columns of `tokens`."""

    block: Block
    payload: np.ndarray
    columns: tuple[str, ...]
    tokens: Tokens

    def values(self, column: str, rows: np.ndarray, limit_bytes: int = VALUE_BYTES) -> pa.StringArray:
        """See Records."""
        return _shown(self.tokens.columns[self.columns.index(column)], rows, limit_bytes)

    def raw(self, rows: np.ndarray) -> pa.StringArray:
        """See Records."""
        starts, ends = self.tokens.starts[rows], self.tokens.ends[rows]
        return show_text(self.payload, starts.astype(np.int64), ends.astype(np.int64), RAW_BYTES)

    def lines(self, rows: np.ndarray) -> pa.Int64Array:
        """See Records."""
        return pa.array(self.block.first_line + self.tokens.lines[rows].astype(np.int64))

    def offsets(self, rows: np.ndarray) -> pa.Int64Array:
        """See Records."""
        return pa.array(self.block.offset + self.tokens.starts[rows].astype(np.int64))


@dataclass(frozen=True)
class JsonRecords:
    """Records of a block of JSON lines; `columns` names the keys of `objects`."""

    block: Block
    columns: tuple[str, ...]
    objects: Objects

    def values(self, column: str, rows: np.ndarray, limit_bytes: int = VALUE_BYTES) -> pa.StringArray:
        """See Records; a string without its quotes, any other value as its JSON."""
        texts = self.objects.values(self.columns.index(column), rows)
        return _shown(texts, np.arange(rows.size), limit_bytes)

    def raw(self, rows: np.ndarray) -> pa.StringArray:
        """See Records."""
        starts, ends = self.objects.starts[rows], self.objects.ends[rows]
        return show_text(self.objects.block, starts.astype(np.int64), ends.astype(np.int64), RAW_BYTES)

    def lines(self, rows: np.ndarray) -> pa.Int64Array:
        """See Records."""
        if not self.block.first_line:
            return pa.nulls(rows.size, pa.int64())
        return pa.array(self.block.first_line + self.objects.lines[rows].astype(np.int64))

    def offsets(self, rows: np.ndarray) -> pa.Int64Array:
        """See Records."""
        if not self.block.first_line:
            return pa.nulls(rows.size, pa.int64())
        return pa.array(self.block.offset + self.objects.starts[rows].astype(np.int64))


@dataclass(frozen=True)
class ObjectRecords:
    """Records that came as messages; `objects` are their JSON values."""

    objects: Sequence[Any]

    def values(self, column: str, rows: np.ndarray, limit_bytes: int = VALUE_BYTES) -> pa.StringArray:
        """See Records."""
        objects = [self.objects[row] for row in rows.tolist()]
        texts = [_text(record.get(column)) for record in objects]
        return _shown(pa.array(texts, pa.binary()), np.arange(len(texts)), limit_bytes)

    def raw(self, rows: np.ndarray) -> pa.StringArray:
        """See Records."""
        texts = [encode(json.dumps(self.objects[row], ensure_ascii=False)) for row in rows.tolist()]
        return _shown(pa.array(texts, pa.binary()), np.arange(len(texts)), RAW_BYTES)

    def lines(self, rows: np.ndarray) -> pa.Int64Array:
        """See Records."""
        return pa.nulls(rows.size, pa.int64())

    def offsets(self, rows: np.ndarray) -> pa.Int64Array:
        """See Records."""
        return pa.nulls(rows.size, pa.int64())


@dataclass(frozen=True)
class ArrowRecords:
    """Records that came in Arrow columns; `table` is raw."""

    table: pa.Table

    def values(self, column: str, rows: np.ndarray, limit_bytes: int = VALUE_BYTES) -> pa.StringArray:
        """See Records."""
        if column not in self.table.column_names:
            return pa.array([""] * rows.size, pa.string())
        return _shown(self._texts(column, rows), np.arange(rows.size), limit_bytes)

    def raw(self, rows: np.ndarray) -> pa.StringArray:
        """See Records: a JSON object without nulls, as a row message is shown."""
        every, nothing, pairs = np.arange(rows.size), pa.scalar("", pa.string()), []
        for name in self.table.column_names:
            texts = self._texts(name, rows)
            shown = _shown(texts, every, RAW_BYTES)
            if not pt.is_floating(self.table.field(name).type):
                shown = json_strings(shown)
            pairs.append(pc.if_else(texts.is_valid(), join(f", {json.dumps(name)}: ", shown, ""), nothing))
        # Arrow drops rows of which every piece is null, so the separator is a part of each and cut off.
        pieces = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*pairs, nothing), len(", "))
        return _shown(join("{", pieces, "}"), every, RAW_BYTES)

    def lines(self, rows: np.ndarray) -> pa.Int64Array:
        """See Records."""
        return pa.nulls(rows.size, pa.int64())

    def offsets(self, rows: np.ndarray) -> pa.Int64Array:
        """See Records."""
        return pa.nulls(rows.size, pa.int64())

    def _texts(self, column: str, rows: np.ndarray) -> pa.BinaryArray:
        cells = self.table.column(column).take(pa.array(rows)).combine_chunks()
        if pt.is_binary(cells.type):
            return cells
        if pt.is_null(cells.type):
            return pa.nulls(rows.size, pa.binary())
        # Python writes each number and each time once, however often it comes.
        distinct = cells.dictionary_encode()
        texts = (
            map(json.dumps, distinct.dictionary.to_pylist())
            if pt.is_floating(cells.type)
            else _time_texts(distinct.dictionary)
        )
        return pa.array(map(str.encode, texts), pa.binary()).take(distinct.indices)


class TableRows(Sequence[Any]):
    """Rows of a table as JSON objects without nulls, made when first asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, row: Any) -> Any:
        return self._rows[row]

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        rows = self._table.to_pylist()
        return [{name: value for name, value in row.items() if value is not None} for row in rows]


def encode(text: str) -> bytes:
    """The bytes of a text; a lone surrogate, which JSON can encode, gives bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def shorten(text: str) -> str:
    """A text cut at VALUE_BYTES, between characters."""
    return encode(text)[:VALUE_BYTES].decode("utf-8", "ignore")


def join(before: str, texts: pa.StringArray, behind: str | pa.StringArray) -> pa.StringArray:
    """Each text between two others."""
    # Where Arrow has to guess a type, it tries to import dateutil first, each time anew.
    ending = pa.scalar(behind, pa.string()) if isinstance(behind, str) else behind
    parts = [pa.scalar(before, pa.string()), texts, ending]
    return pc.binary_join_element_wise(*parts, pa.scalar("", pa.string()))


def _time_texts(times: pa.Array) -> Iterator[str]:
    """Dates or timestamps, none of them null; those that no year has by their number."""
    micros, outside = times_of(times)
    numbers = times.view(pa.int32() if pt.is_date32(times.type) else pa.int64()).to_pylist()
    for number, time_us, wild in zip(numbers, micros.tolist(), outside.tolist(), strict=True):
        yield f"{number} as {times.type}" if wild else iso_time(time_us)


def _text(value: Any) -> bytes:
    if value is None:
        return b""
    return encode(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _shown(texts: pa.BinaryArray, rows: np.ndarray, limit_bytes: int) -> pa.StringArray:
    data, offsets = string_buffers(texts)
    return show_text(data, offsets[rows], offsets[rows + 1], limit_bytes)
