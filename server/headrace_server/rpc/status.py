"""From errors to gRPC statuses, for every handler.

The contract says which code a reason has. Anything that is not a HeadraceError becomes INTERNAL with a
correlation id and nothing else: no exception text reaches a client.
"""

from collections.abc import Mapping

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from headrace.v1.error_reason_pb2 import ErrorReason
from headrace.v1.error_traits_pb2 import error_traits
from headrace_compute import errors

DOMAIN = "headrace"
MESSAGE_BYTES = 1024
METADATA_BYTES = 256
RETRY_SECONDS = 1

_CODES = {code.value[0]: code for code in grpc.StatusCode}

CODES: Mapping[str, grpc.StatusCode] = {
    value.name.removeprefix("ERROR_REASON_"): _CODES[value.GetOptions().Extensions[error_traits].code]
    for value in ErrorReason.DESCRIPTOR.values
}
"""The gRPC code by reason, which the contract says itself."""


def code_of(error: BaseException) -> grpc.StatusCode:
    """The gRPC code an error ends a call with."""
    return CODES[error.reason] if isinstance(error, errors.HeadraceError) else grpc.StatusCode.INTERNAL


def to_status(error: BaseException, correlation_id: str) -> status_pb2.Status:
    """The google.rpc.Status of an error: one ErrorInfo, and what else its kind calls for.

    Args:
        error: Any exception; only a HeadraceError shows its own message.
        correlation_id: Where to look in the log for an INTERNAL error.
    """
    if not isinstance(error, errors.HeadraceError):
        error = errors.HeadraceError(
            f"Headrace failed at this call; its log has more under {correlation_id}.",
            {"correlation_id": correlation_id},
        )
    metadata = {key: _cut(value, METADATA_BYTES) for key, value in error.attributes.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    details = [_pack(info)]
    if isinstance(error, errors.InvalidFieldError) and "field" in metadata:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=metadata["field"], description=_cut(error.message, MESSAGE_BYTES)
        )
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, errors.UnavailableError | errors.ExhaustedError):
        seconds = int(error.attributes.get("retry_seconds", RETRY_SECONDS))
        delay = duration_pb2.Duration(seconds=seconds)
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(
        code=code_of(error).value[0], message=_cut(error.message, MESSAGE_BYTES), details=details
    )


def _pack(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _cut(text: str, limit_bytes: int) -> str:
    # Trailers above 8 KiB destroy the whole status, so every part of it is bounded.
    return text.encode()[:limit_bytes].decode(errors="ignore")
