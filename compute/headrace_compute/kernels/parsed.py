"""What a parsing kernel says of each text."""

from enum import IntEnum


class Status(IntEnum):
    """The outcome of parsing one text."""

    EMPTY = 0
    PARSED = 1
    BAD = 2
    UNDECIDED = 3
    """Left to a slower, exact way; never seen outside the kernels."""
