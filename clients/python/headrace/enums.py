"""The enums of the contract, with names as Python has them: `result.outcome == Outcome.COMMITTED`.

Fields of messages are numbers, which these equal; `Outcome(result.outcome).name` tells which one it is.
`HeadraceError.reason` is a text, which `ErrorReason` equals.
"""

from enum import IntEnum, StrEnum


class Format(IntEnum):
    """How the bytes of an upload encode rows."""

    UNSPECIFIED = 0
    CSV = 1
    ROWS = 2
    ARROW_IPC = 3
    PARQUET = 4
    JSON_LINES = 5


class Compression(IntEnum):
    """How the bytes of an upload are compressed as a whole."""

    UNSPECIFIED = 0
    NONE = 1
    GZIP = 2
    ZSTD = 3


class Policy(IntEnum):
    """What becomes of an upload that has rows breaking the contract."""

    UNSPECIFIED = 0
    QUARANTINE = 1
    ALL_OR_NOTHING = 2


class UnknownColumns(IntEnum):
    """What becomes of columns that the contract does not name."""

    UNSPECIFIED = 0
    IGNORE = 1
    REJECT = 2


class Outcome(IntEnum):
    """How an upload ended."""

    UNSPECIFIED = 0
    COMMITTED = 1
    REFUSED = 2
    EMPTY = 3


class UploadState(IntEnum):
    """Where an upload stands."""

    UNSPECIFIED = 0
    OPEN = 1
    FINISHING = 2
    DONE = 3
    ABORTED = 4


class RunState(IntEnum):
    """Where a run stands."""

    UNSPECIFIED = 0
    RUNNING = 1
    WAITING = 2
    CANCELLING = 3
    COMMITTING = 4
    DONE = 5
    FAILED = 6
    CANCELLED = 7
    QUEUED = 8


class ErrorReason(StrEnum):
    """Why a call failed; `HeadraceError.reason` is one of these, or empty."""

    INVALID_FIELD = "INVALID_FIELD"
    UNEXPECTED_MESSAGE = "UNEXPECTED_MESSAGE"
    NO_HEADER = "NO_HEADER"
    MISSING_COLUMN = "MISSING_COLUMN"
    DUPLICATE_COLUMN = "DUPLICATE_COLUMN"
    UNKNOWN_COLUMN = "UNKNOWN_COLUMN"
    BAD_ENCODING = "BAD_ENCODING"
    RECORD_TOO_LARGE = "RECORD_TOO_LARGE"
    OFFSET_GAP = "OFFSET_GAP"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    SIZE_MISMATCH = "SIZE_MISMATCH"
    ID_IN_USE = "ID_IN_USE"
    FENCED = "FENCED"
    UPLOAD_CLOSED = "UPLOAD_CLOSED"
    UPLOAD_OPEN = "UPLOAD_OPEN"
    UPLOAD_NOT_FOUND = "UPLOAD_NOT_FOUND"
    TABLE_NOT_FOUND = "TABLE_NOT_FOUND"
    VERSION_NOT_FOUND = "VERSION_NOT_FOUND"
    NO_INTERACTIONS = "NO_INTERACTIONS"
    NO_POSITIVES = "NO_POSITIVES"
    WRONG_TABLE_KIND = "WRONG_TABLE_KIND"
    POISON_BLOCK = "POISON_BLOCK"
    STORE_FULL = "STORE_FULL"
    OVERLOADED = "OVERLOADED"
    DRAINING = "DRAINING"
    COMPUTE_UNAVAILABLE = "COMPUTE_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    COMMIT_CONTENDED = "COMMIT_CONTENDED"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    INTERNAL = "INTERNAL"
    STORE_DENIED = "STORE_DENIED"
    CORRUPT_STREAM = "CORRUPT_STREAM"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED_TYPE = "UNSUPPORTED_TYPE"
    UPLOAD_FINISHED = "UPLOAD_FINISHED"
    IDLE_TIMEOUT = "IDLE_TIMEOUT"
    PART_LOST = "PART_LOST"
    MALFORMED_MESSAGE = "MALFORMED_MESSAGE"
    ROW_TOO_LARGE = "ROW_TOO_LARGE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    UNREAD_TIMEOUT = "UNREAD_TIMEOUT"
    SUSPENDED = "SUSPENDED"
    GAVE_WAY = "GAVE_WAY"
    RUN_NOT_FOUND = "RUN_NOT_FOUND"
    RUN_FINISHED = "RUN_FINISHED"
    RUN_CANCELLED = "RUN_CANCELLED"
    STATISTICS_NOT_FOUND = "STATISTICS_NOT_FOUND"
    INPUT_GONE = "INPUT_GONE"
    NOT_DERIVABLE = "NOT_DERIVABLE"
