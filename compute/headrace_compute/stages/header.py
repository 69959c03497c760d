"""The columns that a stream names, held against the contract."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from headrace_compute.errors import (
    BadEncodingError,
    DuplicateColumnError,
    MissingColumnError,
    NoHeaderError,
    TooLargeError,
    UnknownColumnError,
)
from headrace_compute.kernels.tokens import tokenise
from headrace_compute.model import DataType, StoreConfig
from headrace_compute.schemas.contract import ColumnContract, describe

MAX_COLUMNS = 1024
"""Columns of a stream; more of them is no data of ours."""

_NAMED = 20
"""Columns that a message names; errors are small."""


def check_header(
    config: StoreConfig, data_type: DataType, header: bytes, reject_unknown: bool
) -> tuple[str, ...]:
    """As `read_header`, for callers without the contract."""
    return read_header(describe(data_type).columns, header, reject_unknown)


def read_header(contract: Sequence[ColumnContract], header: bytes, reject_unknown: bool) -> tuple[str, ...]:
    """The column names of a header line, in its order.

    Args:
        contract: The columns of the data type.
        header: The header record without its line end; empty if the stream has none.
        reject_unknown: Whether columns outside the contract are an error.

    Raises:
        NoHeaderError: There is no header line.
        BadEncodingError: It is not UTF-8.
        TooLargeError, DuplicateColumnError, MissingColumnError, UnknownColumnError: See `check_names`.
    """
    if not header:
        expected = ",".join(column.name for column in contract)
        raise NoHeaderError(f"The stream has no header line; begin it with {expected}.")
    names = _fields(header)
    hint = "; names are case-sensitive, and the first line is the header"
    check_names(contract, names, reject_unknown, hint)
    return names


def check_names(
    contract: Sequence[ColumnContract], names: Sequence[str], reject_unknown: bool, hint: str
) -> None:
    """Holds the names of a stream's columns against the contract.

    Args:
        hint: What else to say when required columns are missing.

    Raises:
        TooLargeError: There are more than MAX_COLUMNS.
        DuplicateColumnError: A name is there twice.
        MissingColumnError: Required columns are missing.
        UnknownColumnError: There are others, and they are rejected.
    """
    expected = ",".join(column.name for column in contract)
    if len(names) > MAX_COLUMNS:
        raise TooLargeError(
            f"The stream has {len(names):,} columns, at most {MAX_COLUMNS:,} are taken; drop those outside "
            f"the contract {expected}.",
            {"what": "columns", "limit": str(MAX_COLUMNS)},
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DuplicateColumnError(
            f"The header names {_listed(twice)} more than once; name each column once.", _attributes(twice)
        )
    if missing := [column.name for column in contract if column.required and column.name not in names]:
        raise MissingColumnError(
            f"The header {_shown(names)} lacks {_listed(missing)}{hint}.", _attributes(missing)
        )
    known = {column.name for column in contract}
    if reject_unknown and (unknown := [name for name in names if name not in known]):
        raise UnknownColumnError(
            f"The header has {_listed(unknown)}, outside the contract {expected}; "
            "drop these columns, or have unknown columns ignored.",
            _attributes(unknown),
        )


def _fields(header: bytes) -> tuple[str, ...]:
    record = np.frombuffer(header, np.uint8)
    count = int(tokenise(record, 1, (), 0).fields[0])
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
    return f"({_listed(names)})"


def _attributes(names: Sequence[str]) -> dict[str, str]:
    return {"columns": ",".join(_cut(name) for name in names[:_NAMED])}


def _cut(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"
