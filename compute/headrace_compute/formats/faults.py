"""What is wrong with data that cannot be decoded, as errors that say what to do."""

from headrace_compute.errors import CorruptStreamError, TooLargeError

MIN_ROW_BYTES = 16
"""Minimum that a row counts against the limit on decoded bytes."""


def check_decoded(total_bytes: int, limit: int, name: str) -> None:
    """Refuses what decodes to more than `decoded_limit`.

    Raises:
        TooLargeError: It does.
    """
    if total_bytes > limit:
        raise TooLargeError(
            f"The {name} data decode to more than {limit:,} bytes, the limit for a file of this size; split "
            "it, or write it with less compression.",
            {"what": "decoded bytes", "limit": str(limit)},
        )


def too_large_batch() -> TooLargeError:
    """The error for data whose decoding needs more memory than a process may have."""
    return TooLargeError(
        "A part of the stream needs more memory to decode than a decoder may use; write it in smaller record "
        "batches or row groups.",
        {"what": "memory", "limit": "that of a decoder"},
    )


def corrupt(name: str, error: Exception) -> CorruptStreamError:
    """The error for data that a library refuses, without what it says of our files."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return CorruptStreamError(
        f"The {name} data cannot be decoded: {reason.rstrip('.')}. Write the file again, and send all of it.",
        {"format": name},
    )
