"""The errors of the pipeline, as a tree that survives a process boundary.

    HeadraceError
    ├── InvalidDataError          the caller's input; the same call fails again
    │   ├── InvalidFieldError         a field has a value it must not have
    │   ├── MalformedMessageError     a message that cannot be decoded
    │   ├── MessageTooLargeError      a message with more bytes than its method takes
    │   ├── UnexpectedMessageError    a message came out of order
    │   └── UnreadableStreamError     the stream is no table of the contract
    │       ├── NoHeaderError             a CSV stream without a header line
    │       ├── MissingColumnError        required columns are absent
    │       ├── DuplicateColumnError      a column of the contract is there twice
    │       ├── UnknownColumnError        columns outside the contract, when rejected
    │       ├── BadEncodingError          not UTF-8 text, or not of the format named
    │       ├── RecordTooLargeError       a record above the limit
    │       ├── CorruptStreamError        a stream that cannot be decoded, or ends before its end
    │       ├── TooLargeError             decodes to more than the limits allow
    │       └── UnsupportedTypeError      contract columns of Arrow extension types
    ├── OffsetGapError            a chunk begins beyond what was received
    ├── DataLossError             what arrived is not what was sent
    │   ├── ChecksumMismatchError
    │   ├── SizeMismatchError
    │   └── PartLostError             the store has lost what an upload had stored
    ├── IdInUseError              an id is in use with other parameters
    ├── FencedError               a newer stream of the same upload took over
    ├── PreconditionError         the state does not allow the call
    │   ├── UploadClosedError
    │   ├── UploadFinishedError
    │   ├── UploadOpenError
    │   ├── NoInteractionsError
    │   ├── NoPositivesError
    │   ├── WrongTableKindError
    │   ├── RowTooLargeError          a row that no response can hold
    │   ├── RunFinishedError
    │   ├── RunCancelledError
    │   ├── InputGoneError            what a version was derived from is gone
    │   ├── NotDerivableError         a version that this code cannot derive again
    │   └── StoreDeniedError
    ├── NotFoundError
    │   ├── UploadNotFoundError
    │   ├── RunNotFoundError
    │   ├── TableNotFoundError
    │   └── VersionNotFoundError
    ├── ExhaustedError            a limit or the disk; the same call may succeed later
    │   ├── StoreFullError
    │   ├── OverloadedError
    │   ├── GaveWayError              an idle stream whose place another tenant got
    │   └── SuspendedError            input of the tenant has ended workers; it waits
    ├── UnavailableError          something behind us is down; retry with backoff
    │   ├── DrainingError
    │   ├── IdleTimeoutError
    │   ├── UnreadTimeoutError
    │   ├── ComputeUnavailableError
    │   ├── StoreUnavailableError
    │   └── CommitContendedError
    ├── UnsupportedError          part of the contract that this version lacks
    └── PoisonBlockError          a block that kills every worker it meets

Every error has a `reason` (a name of `ErrorReason` in error_reason.proto), a
message that names the value, the rule and the remedy, and `attributes` that
become the metadata of `google.rpc.ErrorInfo`. Messages reach clients: they
never hold credentials, stack traces or paths of the server.
"""

from collections.abc import Mapping
from typing import ClassVar, Self


class HeadraceError(Exception):
    """Root of every error that Headrace raises on purpose.

    Args:
        message: What is wrong, with the value, the rule and the remedy.
        attributes: Machine-readable facts, as error_reason.proto lists them.
    """

    reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, attributes: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.attributes: dict[str, str] = dict(attributes or {})

    def __reduce__(self) -> tuple[type["HeadraceError"], tuple[str, dict[str, str]]]:
        return type(self), (self.message, self.attributes)


class InvalidDataError(HeadraceError):
    """The caller's input cannot be taken; the same call fails again."""

    reason = "INVALID_FIELD"


class InvalidFieldError(InvalidDataError):
    """A field has a value it must not have; `attributes["field"]` names it."""


class MalformedMessageError(InvalidDataError):
    """A message cannot be decoded."""

    reason = "MALFORMED_MESSAGE"


class MessageTooLargeError(InvalidDataError):
    """A message has more bytes than its method takes."""

    reason = "MESSAGE_TOO_LARGE"


class UnexpectedMessageError(InvalidDataError):
    """A message of a stream came out of order."""

    reason = "UNEXPECTED_MESSAGE"


class UnreadableStreamError(InvalidDataError):
    """The stream is no table of the contract: no part of it is kept."""

    reason = "BAD_ENCODING"


class NoHeaderError(UnreadableStreamError):
    """A CSV stream has no header line."""

    reason = "NO_HEADER"


class MissingColumnError(UnreadableStreamError):
    """The header line lacks required columns."""

    reason = "MISSING_COLUMN"


class DuplicateColumnError(UnreadableStreamError):
    """A column of the contract is there twice."""

    reason = "DUPLICATE_COLUMN"


class UnknownColumnError(UnreadableStreamError):
    """Columns outside the contract, and the caller rejects them."""

    reason = "UNKNOWN_COLUMN"


class BadEncodingError(UnreadableStreamError):
    """The stream is not UTF-8 text, or not of the format that its header names."""

    reason = "BAD_ENCODING"


class RecordTooLargeError(UnreadableStreamError):
    """A record is larger than the limit; attributes name where it is."""

    reason = "RECORD_TOO_LARGE"


class CorruptStreamError(UnreadableStreamError):
    """A compressed, Arrow or Parquet stream cannot be decoded, or a stream ends before its end."""

    reason = "CORRUPT_STREAM"


class TooLargeError(UnreadableStreamError):
    """A stream decodes to more bytes, rows or columns than the limits allow."""

    reason = "TOO_LARGE"


class UnsupportedTypeError(UnreadableStreamError):
    """Columns of the contract have Arrow extension types, which decoding would have to trust."""

    reason = "UNSUPPORTED_TYPE"


class OffsetGapError(HeadraceError):
    """A chunk begins beyond what was received."""

    reason = "OFFSET_GAP"
    retryable = True


class DataLossError(HeadraceError):
    """What arrived is not what was sent."""

    reason = "CHECKSUM_MISMATCH"
    retryable = True


class ChecksumMismatchError(DataLossError):
    """A chunk's crc32c does not match its content."""


class SizeMismatchError(DataLossError):
    """Finish named another total size than was received."""

    reason = "SIZE_MISMATCH"


class PartLostError(DataLossError):
    """The store has lost or damaged a part; an upload that had it cannot be committed."""

    reason = "PART_LOST"
    retryable = False


class IdInUseError(HeadraceError):
    """An upload_id or request_id is in use with other parameters."""

    reason = "ID_IN_USE"


class FencedError(HeadraceError):
    """A newer stream of the same upload took over."""

    reason = "FENCED"
    retryable = True


class PreconditionError(HeadraceError):
    """The state of the tenant's data does not allow the call."""

    reason = "UPLOAD_CLOSED"


class UploadClosedError(PreconditionError):
    """The upload was aborted or has expired."""


class UploadFinishedError(PreconditionError):
    """The upload has finished: it can no longer be given up."""

    reason = "UPLOAD_FINISHED"

    @classmethod
    def of(cls, upload_id: str) -> Self:
        """The error of an abort that comes too late."""
        return cls(
            f"Upload {upload_id} has finished, so it cannot be aborted; GetUpload tells how it ended.",
            {"upload_id": upload_id},
        )


class UploadOpenError(PreconditionError):
    """The upload has not ended yet."""

    reason = "UPLOAD_OPEN"
    retryable = True


class NoInteractionsError(PreconditionError):
    """There are no interactions before as_of."""

    reason = "NO_INTERACTIONS"


class NoPositivesError(PreconditionError):
    """No positives are left to sample for."""

    reason = "NO_POSITIVES"


class WrongTableKindError(PreconditionError):
    """The table to write holds something else."""

    reason = "WRONG_TABLE_KIND"


class RowTooLargeError(PreconditionError):
    """A row of a table is larger than a response may be."""

    reason = "ROW_TOO_LARGE"


class RunFinishedError(PreconditionError):
    """The run's outcome is fixed: it can no longer be cancelled."""

    reason = "RUN_FINISHED"

    @classmethod
    def of(cls, request_id: str) -> Self:
        """The error of a cancellation that comes too late."""
        return cls(
            f"Run {request_id} has its outcome, so it cannot be cancelled; GetRun tells how it ended.",
            {"request_id": request_id},
        )


class RunCancelledError(PreconditionError):
    """The run was cancelled."""

    reason = "RUN_CANCELLED"


class InputGoneError(PreconditionError):
    """Something that a version of a table was derived from is gone; attributes name it."""

    reason = "INPUT_GONE"


class NotDerivableError(PreconditionError):
    """A version of a table that this code cannot derive again."""

    reason = "NOT_DERIVABLE"


class StoreDeniedError(PreconditionError):
    """The store refuses the server, or lacks what it must have; somebody has to set it up first."""

    reason = "STORE_DENIED"


class NotFoundError(HeadraceError):
    """The tenant has no such thing."""

    reason = "TABLE_NOT_FOUND"


class UploadNotFoundError(NotFoundError):
    """The tenant has no such upload."""

    reason = "UPLOAD_NOT_FOUND"


class RunNotFoundError(NotFoundError):
    """The tenant has no such run."""

    reason = "RUN_NOT_FOUND"


class TableNotFoundError(NotFoundError):
    """The tenant has no such table."""


class VersionNotFoundError(NotFoundError):
    """The table has no such version."""

    reason = "VERSION_NOT_FOUND"


class StatisticsNotFoundError(NotFoundError):
    """The version has no statistics."""

    reason = "STATISTICS_NOT_FOUND"

    @classmethod
    def of(cls, table: str, version: int) -> "StatisticsNotFoundError":
        """The error of a version of a table."""
        return cls(
            f"Version {version} of {table} has no statistics: it was written before this server's version "
            "kept statistics; compute the features anew.",
            {"table": table, "version": str(version)},
        )


class ExhaustedError(HeadraceError):
    """A limit or the disk is exhausted; the same call may succeed later."""

    reason = "OVERLOADED"
    retryable = True


class StoreFullError(ExhaustedError):
    """The store has no room left."""

    reason = "STORE_FULL"


class OverloadedError(ExhaustedError):
    """Too much is under way."""


class GaveWayError(ExhaustedError):
    """A stream was idle while another tenant had no place for one; an upload resumes."""

    reason = "GAVE_WAY"


class SuspendedError(ExhaustedError):
    """Input of the tenant has ended workers, so no more of it is tried for `attributes["retry_seconds"]`."""

    reason = "SUSPENDED"


class UnavailableError(HeadraceError):
    """Something behind the server is down; retry with backoff."""

    reason = "COMPUTE_UNAVAILABLE"
    retryable = True


class DrainingError(UnavailableError):
    """The server is shutting down."""

    reason = "DRAINING"


class IdleTimeoutError(UnavailableError):
    """The client sent nothing for too long, and the server let its stream go."""

    reason = "IDLE_TIMEOUT"


class UnreadTimeoutError(UnavailableError):
    """The client did not take a response for too long, and the server gave the call up."""

    reason = "UNREAD_TIMEOUT"


class ComputeUnavailableError(UnavailableError):
    """The workers cannot be reached."""


class StoreUnavailableError(UnavailableError):
    """The store cannot be reached."""

    reason = "STORE_UNAVAILABLE"


class CommitContendedError(UnavailableError):
    """A commit lost against other writers too often."""

    reason = "COMMIT_CONTENDED"


class UnsupportedError(HeadraceError):
    """Part of the contract that this version does not have."""

    reason = "NOT_IMPLEMENTED"


class PoisonBlockError(HeadraceError):
    """A block of an upload killed its worker again and again."""

    reason = "POISON_BLOCK"


def class_of(reason: str) -> type[HeadraceError]:
    """The class of a reason: the root of those that have it, as they all have its code too.

    Returns:
        HeadraceError for a reason that this version does not know.
    """
    level: list[type[HeadraceError]] = [HeadraceError]
    while level:
        for cls in level:
            if cls.reason == reason:
                return cls
        level = [child for cls in level for child in cls.__subclasses__()]
    return HeadraceError
