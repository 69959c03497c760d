"""Checks the column names of a stream against the contract."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from headrace_compute.errors import (
    BadEncodingError,
    CorruptStreamError,
    DuplicateColumnError,
    MissingColumnError,
    NoHeaderError,
    TooLargeError,
    UnknownColumnError,
    UnreadableStreamError,
)
from headrace_compute.kernels.magic import kind_of, mismatch
from headrace_compute.kernels.scan import ESCAPED_QUOTE, UNESCAPE
from headrace_compute.kernels.tokens import tokenise
from headrace_compute.model import DataType, StoreConfig
from headrace_compute.schemas.contract import ColumnContract, describe

MAX_COLUMNS = 1024
"""Limit on the columns of a stream."""

_NAMED = 20
"""Limit on the columns that a message names."""

_DELIMITERS = {
    "::": "double colons",
    "\t": "tabs",
    ";": "semicolons",
    "|": "bars",
    "^": "carets",
    "\x01": "U+0001",
}
"""Delimiters that other programs write, and what they are called."""

_SEP_LINE = re.compile(r'"?sep=(.?)"?', re.I | re.S)
"""The line by which spreadsheets are told the delimiter."""


def check_header(
    config: StoreConfig, data_type: DataType, header: bytes, reject_unknown: bool
) -> tuple[str, ...]:
    """As `read_header`, for callers without the contract."""
    return read_header(describe(data_type).columns, header, reject_unknown)


def read_header(
    contract: Sequence[ColumnContract], header: bytes, reject_unknown: bool, packed: str = ""
) -> tuple[str, ...]:
    """The column names of a header line, in its order; '' for columns without a name.

    Args:
        contract: The columns of the data type.
        header: The header record without its line end; empty if the stream has none.
        reject_unknown: Whether columns outside the contract are an error.
        packed: How the stream was compressed, for errors to name; empty if it was not.

    Raises:
        NoHeaderError: There is no header line.
        BadEncodingError: It is not UTF-8, or no header, because the stream is of another format.
        CorruptStreamError: It has text behind a closing quote.
        TooLargeError: It has more than MAX_COLUMNS; no name is looked at then.
        DuplicateColumnError, MissingColumnError, UnknownColumnError: See `check_names`.
    """
    if not header:
        expected = ",".join(column.name for column in contract)
        raise NoHeaderError(f"The stream has no header line; begin it with {expected}.")
    text = header.decode("utf-8", "replace")
    hint = _delimiter_hint(contract, text)
    try:
        names = (text,) if hint else _fields(contract, header)
        hint = hint or _spaces_hint(contract, names)
        hint = hint or "; names are case-sensitive, and the first line is the header"
        check_names(contract, names, reject_unknown, hint)
    except UnreadableStreamError as error:
        if not isinstance(error, UnknownColumnError) and kind_of(header):
            raise mismatch(header, "CSV", packed) from None
        raise
    return names


def _spaces_hint(contract: Sequence[ColumnContract], names: Sequence[str]) -> str:
    wanted = {column.name for column in contract}
    spaced = [name for name in names if name not in wanted and name.strip() in wanted]
    return f"; remove the spaces around names, as in {spaced[0]!r}" if spaced else ""


def check_names(
    contract: Sequence[ColumnContract], names: Sequence[str], reject_unknown: bool, hint: str
) -> None:
    """Checks the names of a stream's columns against the contract.

    Columns outside it, and columns without a name, may occur any number of times.

    Args:
        hint: What else to say when required columns are missing.

    Raises:
        TooLargeError: There are more than MAX_COLUMNS.
        DuplicateColumnError: A column of the contract is there twice.
        MissingColumnError: Required columns are missing.
        UnknownColumnError: There are others, and they are rejected.
    """
    _check_count(contract, len(names))
    expected = ",".join(column.name for column in contract)
    known = {column.name for column in contract}
    if twice := [name for name, count in Counter(names).items() if count > 1 and name in known]:
        raise DuplicateColumnError(
            f"The header names {_listed(twice)} more than once; name each column once.", _attributes(twice)
        )
    if missing := [column.name for column in contract if column.required and column.name not in names]:
        raise MissingColumnError(
            f"The header {_shown(names)} lacks {_listed(missing)}{hint}.", _attributes(missing)
        )
    unknown = [*outside(contract, names), *(f"column {place} without a name" for place in unnamed(names))]
    if reject_unknown and unknown:
        raise UnknownColumnError(
            f"The header has {_listed(unknown)}, outside the contract {expected}; "
            "drop these columns, or have unknown columns ignored.",
            _attributes(unknown),
        )


def _check_count(contract: Sequence[ColumnContract], count: int) -> None:
    if count > MAX_COLUMNS:
        expected = ",".join(column.name for column in contract)
        raise TooLargeError(
            f"The stream has {count:,} columns, at most {MAX_COLUMNS:,} are taken; drop those outside "
            f"the contract {expected}.",
            {"what": "columns", "limit": str(MAX_COLUMNS)},
        )


def outside(contract: Sequence[ColumnContract], names: Sequence[str]) -> tuple[str, ...]:
    """The names that the contract does not know, each once."""
    known = {column.name for column in contract}
    return tuple(dict.fromkeys(name for name in names if name not in known and name.strip()))


def unnamed(names: Sequence[str]) -> tuple[int, ...]:
    """The places of the columns without a name, counted from 1, as a spreadsheet's empty ones or an index."""
    return tuple(place for place, name in enumerate(names, 1) if not name.strip())


def _delimiter_hint(contract: Sequence[ColumnContract], header: str) -> str:
    """What to say of a header that lacks columns because another delimiter separates them."""
    if line := _SEP_LINE.fullmatch(header.rstrip(",")):
        called = _DELIMITERS.get(line[1])
        convert = (
            f", and convert the file, whose fields are separated by {called}, to commas" if called else ""
        )
        return f"; that line only tells spreadsheets the delimiter, so remove it{convert}"
    required = {column.name for column in contract if column.required}
    if required <= _split(header, ","):
        return ""
    for delimiter, called in _DELIMITERS.items():
        names = _split(header, delimiter)
        if required <= names or (len(names) > 2 and "," not in header):
            return f"; its fields look separated by {called}: convert the file to commas"
    return ""


def _split(header: str, delimiter: str) -> set[str]:
    return {name.strip().strip('"') for name in header.split(delimiter)}


def _fields(contract: Sequence[ColumnContract], header: bytes) -> tuple[str, ...]:
    record = np.frombuffer(header, np.uint8)
    first = tokenise(record, 1, (), 0)
    if first.misquoted[0]:
        remedy = UNESCAPE if ESCAPED_QUOTE in header else 'write a quote inside a quoted name as ""'
        raise CorruptStreamError(
            f"The header line has text behind a closing quote; {remedy}.", {"format": "CSV"}
        )
    count = int(first.fields[0])
    # A column is an array of its own: those of a line of commas would fill the memory.
    _check_count(contract, count)
    columns = tokenise(record, 1, range(count), count).columns
    try:
        return tuple((column[0].as_py() or b"").decode() for column in columns)
    except UnicodeDecodeError:
        found = "a header line that is not UTF-8"
        raise BadEncodingError(f"The stream has {found}; send CSV as UTF-8 text.", {"found": found}) from None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(_cut(name) for name in names[:_NAMED]) + more


def _shown(names: Sequence[str]) -> str:
    named = [
        name if name.strip() else f"column {place} without a name" for place, name in enumerate(names, 1)
    ]
    return f"({_listed(named)})"


def _attributes(names: Sequence[str]) -> dict[str, str]:
    return {"columns": ",".join(_cut(name) for name in names[:_NAMED])}


def _cut(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"
