"""The first difference between the rows of a section as they are stored and as they are derived."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute.errors import StoreUnavailableError
from headrace_compute.formats.value_text import SHOWN_CHARACTERS, value_texts
from headrace_compute.kernels.digests import row_hashes
from headrace_compute.proof.digest import Section


@dataclass(frozen=True)
class DifferentValue:
    """A column of a row whose values differ.

    Attributes:
        stored, derived: The two as text, of texts and lists the beginning of their JSON; None for null
            and for what is not there.
    """

    column: str
    stored: str | None
    derived: str | None


@dataclass(frozen=True)
class Difference:
    """The first row of a section that differs.

    Attributes:
        row: Its place among the rows of the section, from 0.
        is_stored, is_derived: Whether the version has such a row, and whether its lineage gives one.
        key: Text of the columns that say which row it is, by name; those of the stored one if there is one.
        values: Those that differ; all if only one of the two is there.
    """

    section: Section
    row: int
    is_stored: bool
    is_derived: bool
    key: dict[str, str]
    values: tuple[DifferentValue, ...]


def first_difference(
    section: Section, keys: tuple[str, ...], stored: pa.Table, derived: pa.Table
) -> Difference:
    """Finds the first row that differs.

    Args:
        keys: Columns that say which row one is.
        stored, derived: Rows of the section, in their order.

    Raises:
        StoreUnavailableError: There is none, so the rows have been read in two ways.
    """
    row = _first_row(row_hashes(stored), row_hashes(derived))
    theirs, ours = _texts(stored, row), _texts(derived, row)
    values = tuple(
        DifferentValue(name, theirs.get(name), ours.get(name))
        for name in dict.fromkeys((*stored.column_names, *derived.column_names))
        if _differs(stored, derived, name, row)
    )
    if row == stored.num_rows == derived.num_rows:
        raise StoreUnavailableError(f"Bucket {section.bucket} does not read twice the same; try again.")
    is_stored, is_derived = row < stored.num_rows, row < derived.num_rows
    named = theirs if is_stored else ours
    key = {name: text for name in keys if (text := named.get(name)) is not None}
    return Difference(section, row, is_stored, is_derived, key, values)


def _first_row(stored: np.ndarray, derived: np.ndarray) -> int:
    both = min(stored.size, derived.size)
    different = np.flatnonzero(stored[:both] != derived[:both])
    return int(different[0]) if different.size else both


def _differs(stored: pa.Table, derived: pa.Table, name: str, row: int) -> bool:
    one, other = (
        row_hashes(table.select([name] if name in table.column_names else []).slice(row, 1))
        for table in (stored, derived)
    )
    return not np.array_equal(one, other)


def _texts(table: pa.Table, row: int) -> dict[str, str | None]:
    """The values of a row as text; nothing if the table does not have it."""
    columns = zip(table.column_names, table.slice(row, 1).columns, strict=True)
    return {name: _text(column.combine_chunks()) for name, column in columns if len(column)}


def _text(value: pa.Array) -> str | None:
    shown = value.cast(pa.string()) if pa.types.is_timestamp(value.type) else value
    if pa.types.is_dictionary(shown.type):
        shown = shown.dictionary_decode()
    text = value_texts(shown)[0]
    if not text.is_valid:
        return None
    return str(text.as_buffer().to_pybytes().decode("utf-8", "replace"))[:SHOWN_CHARACTERS]
