"""The errors of the SDK, as a tree.

    HeadraceError
    ├── InvalidArgumentError      the call itself is wrong; the same call fails again
    │   └── BadDataError              the file cannot be read as rows at all
    ├── OffsetGapError            a chunk began beyond what the server has
    ├── DataLossError             what arrived is not what was sent
    │   └── PartLostError             the server's store has lost a part of the upload
    ├── IdInUseError              an upload_id or request_id is in use with other parameters
    ├── FencedError               a newer stream of the same upload took over
    ├── PreconditionError         the tenant's data does not allow the call
    │   ├── UploadClosedError         the upload was aborted or has expired
    │   ├── UploadFinishedError       the upload has finished, so it cannot be aborted
    │   ├── UploadOpenError           the upload has not ended yet
    │   ├── NoInteractionsError       no interactions before as_of
    │   ├── NoPositivesError          no positives left to sample for
    │   ├── WrongTableKindError       the table to write holds something else
    │   ├── RunFinishedError          the run's outcome is fixed, so it cannot be cancelled
    │   ├── RunCancelledError         the run was cancelled
    │   ├── InputGoneError            what a version was derived from is gone
    │   ├── NotDerivableError         the server cannot derive the version again
    │   └── StoreDeniedError          the server's store refuses the server
    ├── NotFoundError
    │   ├── UploadNotFoundError
    │   ├── RunNotFoundError
    │   ├── TableNotFoundError
    │   ├── VersionNotFoundError
    │   └── StatisticsNotFoundError   the version of the table has no statistics
    ├── ExhaustedError            a limit or the disk; the same call may succeed later
    │   ├── StoreFullError
    │   ├── OverloadedError
    │   └── SuspendedError            the tenant's input has ended workers of the server
    ├── UnavailableError          the server, or something behind it, cannot be reached
    │   ├── DrainingError             the server is shutting down
    │   ├── ComputeUnavailableError
    │   ├── StoreUnavailableError
    │   └── CommitContendedError
    ├── UnauthenticatedError      the server does not know who calls: no token, or a wrong one
    ├── PermissionDeniedError     the server knows, and refuses
    ├── UnsupportedError          part of the contract that this server lacks
    └── InternalError             a fault of the server
        └── PoisonBlockError          a block of the upload killed every worker it met

Rows that break the data contract raise nothing: the report lists them. A row
that cannot be put into a message at all raises `ValueError` before it is sent.
"""

import re
from collections.abc import Mapping
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from headrace.v1.error_reason_pb2 import ErrorReason
from headrace.v1.error_traits_pb2 import error_traits

_DETAILS_KEY = "grpc-status-details-bin"
# What an aio client hears, instead of the status, if it was writing when the call ended:
# https://github.com/grpc/grpc/issues/36066
_STATUS_LOST = "Internal error from Core"
# What sync clients say of an answer that is none.
_NOT_DECODED = "Exception deserializing response!"
# What gRPC itself says, on either side, of a message above a limit; it has no ErrorInfo.
_TOO_LARGE = re.compile(r"(\w+) message larger than max \((\d+) vs\. (\d+)\)", re.IGNORECASE)
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_RETRYABLE: Mapping[str, bool] = {
    value.name.removeprefix("ERROR_REASON_"): value.GetOptions().Extensions[error_traits].retryable
    for value in ErrorReason.DESCRIPTOR.values
}
"""Whether the same call may succeed later, by reason: the contract says so itself."""


class HeadraceError(Exception):
    """Root of every error that a failed call raises.

    Attributes:
        message: What is wrong, with the value, the rule and the remedy.
        reason: A name of `ErrorReason` in error_reason.proto; empty when the
            failure did not come from the server, such as a lost connection.
        code: The gRPC status code.
        metadata: Machine-readable facts, as error_reason.proto lists them.
        retryable: Whether the same call may succeed later: as the contract says of the reason;
            of failures without one, as their class has it.
        retry_after_s: Seconds that the server asks to wait before another try; None if it does not.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retryable = _RETRYABLE.get(reason, self.retryable)
        self.retry_after_s = retry_after_s

    def add_remark(self, remark: str) -> None:
        """Appends a remark in parentheses to the message."""
        self.message = f"{self.message} ({remark})"
        self.args = (self.message,)

    def name_upload(self, upload_id: str, persisted_offset: int) -> None:
        """Makes the error name the upload it hit and how to go on.

        Args:
            upload_id: The upload.
            persisted_offset: How much of it the server acknowledged: bytes, or
                rows for a row stream.
        """
        self.metadata |= {"upload_id": upload_id, "persisted_offset": str(persisted_offset)}
        self.message = f"{self.message} [upload {upload_id}]"
        self.args = (self.message,)
        if self.retryable:
            self.add_remark(f"safe up to {persisted_offset}; upload again with this upload_id to go on there")


class InvalidArgumentError(HeadraceError):
    """The call itself is wrong; `metadata["field"]` names the field, if one is at fault."""


class BadDataError(InvalidArgumentError):
    """The file cannot be read as rows at all: no header, a wrong encoding, too large."""


class OffsetGapError(HeadraceError):
    """A chunk began beyond what the server has."""

    retryable = True


class DataLossError(HeadraceError):
    """What arrived is not what was sent."""

    retryable = True


class PartLostError(DataLossError):
    """The server's store has lost or damaged a part; upload its rows anew under another id."""


class IdInUseError(HeadraceError):
    """An upload_id or request_id is in use with other parameters; choose another."""


class FencedError(HeadraceError):
    """A newer stream of the same upload took over."""

    retryable = True


class PreconditionError(HeadraceError):
    """The state of the tenant's data does not allow the call."""


class UploadClosedError(PreconditionError):
    """The upload was aborted or has expired; start a new one."""


class UploadFinishedError(PreconditionError):
    """The upload has finished: it can no longer be aborted."""


class UploadOpenError(PreconditionError):
    """The upload has not ended yet."""


class NoInteractionsError(PreconditionError):
    """There are no interactions before as_of."""


class NoPositivesError(PreconditionError):
    """No positives are left to sample for; `metadata` has the counts and the two settings."""


class WrongTableKindError(PreconditionError):
    """The table to write holds something else."""


class RunFinishedError(PreconditionError):
    """The run's outcome is fixed: it can no longer be cancelled."""


class RunCancelledError(PreconditionError):
    """The run was cancelled; start a new one under another id."""


class InputGoneError(PreconditionError):
    """What a version was derived from is gone; `metadata` names the table, the version and the part."""


class NotDerivableError(PreconditionError):
    """The server cannot derive the version again: another code wrote it, or no run did."""


class StoreDeniedError(PreconditionError):
    """The server's store refuses the server; whoever runs it must mend that."""


class NotFoundError(HeadraceError):
    """The tenant has no such thing."""


class UploadNotFoundError(NotFoundError):
    """The tenant has no such upload."""


class RunNotFoundError(NotFoundError):
    """The tenant has no such run."""


class TableNotFoundError(NotFoundError):
    """The tenant has no such table."""


class VersionNotFoundError(NotFoundError):
    """The table has no such version; `metadata["newest"]` is the newest."""


class StatisticsNotFoundError(NotFoundError):
    """The version of the table has no statistics."""


class ExhaustedError(HeadraceError):
    """A limit or the disk is exhausted; the same call may succeed later."""

    retryable = True


class StoreFullError(ExhaustedError):
    """The store has no room left."""


class OverloadedError(ExhaustedError):
    """Too much is under way at the server."""


class SuspendedError(ExhaustedError):
    """The tenant's input has ended workers of the server; wait for `metadata["retry_seconds"]`."""


class UnavailableError(HeadraceError):
    """The server, or something behind it, cannot be reached; retry with backoff."""

    retryable = True


class DrainingError(UnavailableError):
    """The server is shutting down."""


class ComputeUnavailableError(UnavailableError):
    """The server's workers cannot be reached."""


class StoreUnavailableError(UnavailableError):
    """The server's store cannot be reached."""


class CommitContendedError(UnavailableError):
    """A commit lost against other writers too often."""


class UnauthenticatedError(HeadraceError):
    """The server, or a proxy before it, does not know who calls: no token or certificate, or a wrong one."""


class PermissionDeniedError(HeadraceError):
    """The server, or a proxy before it, knows who calls, and refuses."""


class UnsupportedError(HeadraceError):
    """Part of the contract that this server does not have."""


class InternalError(HeadraceError):
    """A fault of the server; its log has more under `metadata["correlation_id"]`."""

    retryable = True


class PoisonBlockError(InternalError):
    """A block of the upload killed every worker it met; the same file fails again."""


_BY_REASON: Mapping[str, type[HeadraceError]] = {
    "INVALID_FIELD": InvalidArgumentError,
    "MALFORMED_MESSAGE": InvalidArgumentError,
    "MESSAGE_TOO_LARGE": InvalidArgumentError,
    "UNEXPECTED_MESSAGE": InvalidArgumentError,
    "NO_HEADER": BadDataError,
    "MISSING_COLUMN": BadDataError,
    "DUPLICATE_COLUMN": BadDataError,
    "UNKNOWN_COLUMN": BadDataError,
    "BAD_ENCODING": BadDataError,
    "RECORD_TOO_LARGE": BadDataError,
    "CORRUPT_STREAM": BadDataError,
    "TOO_LARGE": BadDataError,
    "UNSUPPORTED_TYPE": BadDataError,
    "OFFSET_GAP": OffsetGapError,
    "CHECKSUM_MISMATCH": DataLossError,
    "SIZE_MISMATCH": DataLossError,
    "PART_LOST": PartLostError,
    "ID_IN_USE": IdInUseError,
    "FENCED": FencedError,
    "UPLOAD_CLOSED": UploadClosedError,
    "UPLOAD_FINISHED": UploadFinishedError,
    "UPLOAD_OPEN": UploadOpenError,
    "UPLOAD_NOT_FOUND": UploadNotFoundError,
    "TABLE_NOT_FOUND": TableNotFoundError,
    "VERSION_NOT_FOUND": VersionNotFoundError,
    "NO_INTERACTIONS": NoInteractionsError,
    "NO_POSITIVES": NoPositivesError,
    "WRONG_TABLE_KIND": WrongTableKindError,
    "ROW_TOO_LARGE": PreconditionError,
    "POISON_BLOCK": PoisonBlockError,
    "RUN_NOT_FOUND": RunNotFoundError,
    "RUN_FINISHED": RunFinishedError,
    "RUN_CANCELLED": RunCancelledError,
    "INPUT_GONE": InputGoneError,
    "NOT_DERIVABLE": NotDerivableError,
    "STATISTICS_NOT_FOUND": StatisticsNotFoundError,
    "STORE_DENIED": StoreDeniedError,
    "STORE_FULL": StoreFullError,
    "OVERLOADED": OverloadedError,
    "GAVE_WAY": OverloadedError,
    "SUSPENDED": SuspendedError,
    "DRAINING": DrainingError,
    "IDLE_TIMEOUT": UnavailableError,
    "UNREAD_TIMEOUT": UnavailableError,
    "COMPUTE_UNAVAILABLE": ComputeUnavailableError,
    "STORE_UNAVAILABLE": StoreUnavailableError,
    "COMMIT_CONTENDED": CommitContendedError,
    "NOT_IMPLEMENTED": UnsupportedError,
    "INTERNAL": InternalError,
}

# For failures without a reason this SDK knows: a lost connection, gRPC's own
# refusals, a proxy in between, a newer server.
_BY_CODE: Mapping[grpc.StatusCode, type[HeadraceError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: OffsetGapError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.ALREADY_EXISTS: IdInUseError,
    grpc.StatusCode.ABORTED: FencedError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    grpc.StatusCode.INTERNAL: InternalError,
}


def from_status(status: status_pb2.Status) -> HeadraceError:
    """The typed error of a `google.rpc.Status`, by its ErrorInfo's reason, else by its code."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(retry)
    delay = retry.retry_delay
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    kind = _BY_REASON.get(info.reason) or _BY_CODE.get(code, HeadraceError)
    return kind(
        status.message,
        reason=info.reason,
        code=code,
        metadata=info.metadata,
        retry_after_s=delay.seconds + delay.nanos / 1e9 if retry.HasField("retry_delay") else None,
    )


def from_rpc(error: grpc.RpcError, address: str) -> HeadraceError:
    """The typed error of a failed call, sync or aio.

    Args:
        error: What gRPC raised.
        address: The server's address, to be named when it cannot be reached.
    """
    code = error.code()
    # The stubs know neither aio's Metadata nor that entries are plain pairs.
    trailers: Any = error.trailing_metadata()
    for key, value in trailers or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    message = error.details() or code.name
    if code is grpc.StatusCode.INTERNAL and message == _STATUS_LOST:
        return UnavailableError(f"The connection to the server at {address} broke.", code=code)
    if message == _NOT_DECODED:
        message = f"The answer of {address} cannot be decoded; is a Headrace server of this version there?"
        return InternalError(message, code=code)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (found := _TOO_LARGE.search(message)):
        return InvalidArgumentError(_too_large(found), code=code)
    if code is grpc.StatusCode.UNAVAILABLE:
        message = f"There is no connection to the server at {address}: {message}."
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"The server at {address} did not answer in time."
    return _BY_CODE.get(code, HeadraceError)(message, code=code)


def _too_large(found: re.Match[str]) -> str:
    size, limit = int(found[2]), int(found[3])
    return (
        f"A message has {size:,} bytes, and {limit:,} is the most that the other side takes; "
        "send fewer rows a call, or send them as an upload, which cuts them by itself."
    )
