"""Frames of pandas that Arrow cannot take whole: converted column by column, as far as the contract asks."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import grpc

from headrace.arrow import pa
from headrace.errors import BadDataError
from headrace.row import NOT_UNICODE, is_unicode, shown

FAULTS = (pa.ArrowException, ValueError, TypeError, OverflowError)
"""What a conversion to Arrow raises for values that it does not take."""


@runtime_checkable
class Frame(Protocol):
    """A frame of pandas, or what has columns like one."""

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Label and values of each column."""


def frame_table(frame: Frame, wanted: Collection[str]) -> pa.Table:
    """A frame as a table, nothing of which is refused for columns that are ignored anyway.

    Args:
        wanted: The contract's columns, which are converted, and so are levels of the index that have their
            names. Of all others the names alone are kept: the server tells of them.

    Raises:
        BadDataError: The values of a wanted column are not of one type that Arrow has.
    """
    columns = [(str(label), values) for label, values in frame.items()]
    index = getattr(frame, "index", None)
    for place, label in enumerate(getattr(index, "names", ())):
        if label in wanted:
            columns.append((label, index.get_level_values(place)))  # type: ignore[union-attr]
    arrays = [
        _converted(name, values) if name in wanted else pa.nulls(len(values)) for name, values in columns
    ]
    return pa.table(arrays, [name for name, _ in columns])


def _converted(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(values, from_pandas=True)
    except FAULTS:
        raise _refusal(name, list(values)) from None


def _refusal(name: str, values: Sequence[Any]) -> BadDataError:
    """The error for a column, naming the first row at which it cannot be converted."""
    # With the row at `beyond` it cannot be converted, without it it can.
    good, beyond = 0, len(values) - 1
    while good < beyond:
        middle = (good + beyond) // 2
        if _converts(values[: middle + 1]):
            good = middle + 1
        else:
            beyond = middle
    value = values[beyond]
    remedy = (
        "which Arrow has no type for, or another one than for the rows before; make all values strings or "
        "all of one type, for instance with astype('string')"
    )
    if isinstance(value, str) and not is_unicode(value):
        remedy = NOT_UNICODE
    return BadDataError(
        f"Column {name} cannot be converted to Arrow: row {beyond} has {shown(value)} "
        f"({type(value).__name__}), {remedy}.",
        reason="UNSUPPORTED_TYPE",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        metadata={"columns": name},
    )


def _converts(values: Sequence[Any]) -> bool:
    try:
        pa.array(values, from_pandas=True)
    except FAULTS:
        return False
    return True
