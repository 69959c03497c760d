"""Checks of single request fields, shared by every handler.

Each raises InvalidFieldError, which becomes INVALID_ARGUMENT with a BadRequest
that names the field.
"""

import uuid
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.errors import InvalidFieldError
from headrace_compute.model import NAME, DataType

DATA_TYPES: tuple[DataType, ...] = ("interactions", "items")
DEFAULT_SKEW_US = 86_400_000_000
"""One day: how far after the start a timestamp may lie unless the caller says otherwise."""

MAX_SKEW_SECONDS = 315_576_000_000
"""10,000 years, the largest Duration there is."""


def invalid(field: str, message: str) -> InvalidFieldError:
    """The error for a field whose value cannot be taken."""
    return InvalidFieldError(message, {"field": field})


def check_tenant(tenant_id: str) -> str:
    """A tenant's name as it came, if it is one."""
    return check_name("tenant_id", tenant_id)


def check_name(field: str, value: str) -> str:
    """A tenant's or dataset's name as it came, if it is one."""
    if not NAME.fullmatch(value):
        raise invalid(
            field,
            f"Field {field} is {value[:80]!r}; it must be 1 to 63 letters, digits, '_' or '-', "
            "and begin with a letter or digit.",
        )
    return value


def check_data_type(value: str) -> DataType:
    """A data type, if the word is one."""
    for data_type in DATA_TYPES:
        if value == data_type:
            return data_type
    raise invalid("data_type", f"Field data_type is {value[:80]!r}; expected one of {', '.join(DATA_TYPES)}.")


def check_uuid(field: str, value: str) -> str:
    """A UUID in its canonical spelling."""
    try:
        return str(uuid.UUID(value))
    except ValueError:
        example = "123e4567-e89b-42d3-a456-426614174000"
        raise invalid(
            field, f"Field {field} is {value[:80]!r}; it must be a UUID such as {example}."
        ) from None


def bad_page_token(token: str) -> InvalidFieldError:
    """The error for a page_token that the call cannot have given."""
    return invalid(
        "page_token",
        f"Field page_token is {token[:80]!r}, which no response of this call has as its next_page_token; "
        "send that of the response before, or leave the field empty to begin at the first page.",
    )


def check_row_count(field: str, rows: Sequence[object], limit: int) -> None:
    """Refuses an empty batch, and one that belongs into a stream."""
    if not 1 <= len(rows) <= limit:
        raise invalid(field, f"Field {field} has {len(rows):,} rows; send 1 to {limit:,}, more as a stream.")


def skew_us(field: str, given: duration_pb2.Duration | None) -> int:
    """A max_future_skew in microseconds; one day if not given."""
    if given is None:
        return DEFAULT_SKEW_US
    if not 0 <= given.seconds <= MAX_SKEW_SECONDS or not 0 <= given.nanos < 1_000_000_000:
        raise invalid(
            field,
            f"Field {field} is {given.seconds} s and {given.nanos} ns; it must be "
            f"0 to {MAX_SKEW_SECONDS:,} s, with 0 to 999,999,999 ns.",
        )
    return given.ToMicroseconds()


def instant_us(field: str, given: timestamp_pb2.Timestamp) -> int:
    """A point in time in microseconds since the epoch, rounded up.

    Tables have whole microseconds, so the same rows are before the one and the other.
    """
    try:
        given.ToDatetime()  # Raises outside years 1 to 9999.
    except (ValueError, OverflowError):
        raise invalid(
            field,
            f"Field {field} is {given.seconds} s and {given.nanos} ns from 1970 on; it must lie between the "
            "years 1 and 9999, with 0 to 999,999,999 ns.",
        ) from None
    return -(-given.ToNanoseconds() // 1000)


def check_types(field: str, types: Iterable[str]) -> tuple[str, ...]:
    """Interaction types, each once, by name.

    Raises:
        InvalidFieldError: One is unknown.
    """
    wanted = sorted(set(types))
    if unknown := [name for name in wanted if name not in INTERACTION_TYPES]:
        raise invalid(
            field,
            f"Unknown interaction type {unknown[0][:80]!r}; expected one of {', '.join(INTERACTION_TYPES)}.",
        )
    return tuple(wanted)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names somebody may have meant by another; None if none is like it."""
    return next(iter(get_close_matches(name[:80], list(known), 1)), None)


def check_enum(field: str, enum: Any, value: int) -> None:
    """Checks that an enum has a value.

    Raises:
        InvalidFieldError: It has not.
    """
    if value not in enum.values():
        raise invalid(field, f"Field {field} is {value}; expected one of {', '.join(enum.keys())}.")
