"""Every failure becomes the right typed error, and no reason of the contract is forgotten."""

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from headrace import errors
from headrace.v1.error_reason_pb2 import ErrorReason

PROTO = Path(__file__).parents[2] / "protos/headrace/v1/error_reason.proto"

REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:]]

# The words with which a comment of error_reason.proto says that the same call may succeed later.
RETRY = re.compile(
    r"Go on at|Send (the chunk|what)|Resume if|Retry (with|at once|after it ended|once)|: .*Retry\.$|Retry\."
)


def status(
    reason: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN, **metadata: str
) -> status_pb2.Status:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="headrace", metadata=metadata))
    return status_pb2.Status(code=code.value[0], message="what is wrong", details=[info])


def documented() -> dict[str, tuple[str, str]]:
    """Reason to (code, comment), read from the proto file."""
    found = re.findall(r"((?:  // .*\n)+)  ERROR_REASON_(\w+) = [1-9]", PROTO.read_text())
    comments = {reason: " ".join(re.findall(r"// (.*)", comment)) for comment, reason in found}
    return {reason: (text.partition(":")[0], text) for reason, text in comments.items()}


class Failure(grpc.RpcError):
    """What gRPC raises: an RpcError that is also a call."""

    def __init__(
        self, code: grpc.StatusCode, details: str, trailers: tuple[tuple[str, str | bytes], ...] = ()
    ):
        self._answer = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._answer[0]

    def details(self) -> str:
        return self._answer[1]

    def trailing_metadata(self) -> Any:
        return self._answer[2]


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_the_contract_has_a_class_of_its_own_or_its_family(reason: str) -> None:
    error = errors.from_status(status(reason))
    assert type(error) is not errors.HeadraceError
    assert error.reason == reason


@pytest.mark.parametrize("reason", REASONS)
def test_class_agrees_with_the_class_of_the_documented_code(reason: str) -> None:
    code = grpc.StatusCode[documented()[reason][0]]
    by_reason = errors.from_status(status(reason, code))
    by_code = errors.from_status(status("A_REASON_OF_THE_FUTURE", code))
    assert isinstance(by_reason, type(by_code))
    assert by_reason.code is code


@pytest.mark.parametrize("reason", REASONS)
def test_retryable_says_what_the_contract_says(reason: str) -> None:
    comment = documented()[reason][1]
    assert errors.from_status(status(reason)).retryable is bool(RETRY.search(comment)), comment


def test_metadata_and_message_arrive() -> None:
    error = errors.from_status(
        status("VERSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND, version="7", newest="3")
    )
    assert isinstance(error, errors.VersionNotFoundError)
    assert str(error) == error.message == "what is wrong"
    assert error.metadata == {"version": "7", "newest": "3"}


def test_details_come_from_the_trailers_of_a_failed_call() -> None:
    details = status(
        "MISSING_COLUMN", grpc.StatusCode.INVALID_ARGUMENT, columns="user_id"
    ).SerializeToString()
    trailers = (("x-other", "1"), ("grpc-status-details-bin", details))
    error = errors.from_rpc(Failure(grpc.StatusCode.INVALID_ARGUMENT, "x", trailers), "here:1")
    assert isinstance(error, errors.BadDataError)
    assert error.metadata == {"columns": "user_id"}


def test_a_lost_connection_names_the_address_and_may_be_retried() -> None:
    error = errors.from_rpc(Failure(grpc.StatusCode.UNAVAILABLE, "connection refused"), "10.0.0.1:50051")
    assert isinstance(error, errors.UnavailableError)
    assert "10.0.0.1:50051" in str(error)
    assert error.retryable
    assert error.reason == ""


def test_a_deadline_is_told_as_the_server_not_answering() -> None:
    error = errors.from_rpc(Failure(grpc.StatusCode.DEADLINE_EXCEEDED, ""), "here:1")
    assert isinstance(error, errors.UnavailableError)
    assert "did not answer in time" in str(error)


def test_a_code_without_a_class_is_still_a_headrace_error() -> None:
    error = errors.from_rpc(Failure(grpc.StatusCode.CANCELLED, "no"), "here:1")
    assert type(error) is errors.HeadraceError
    assert error.code is grpc.StatusCode.CANCELLED


def test_the_tree_in_the_docstring_names_every_class() -> None:
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")
    }
    tree = errors.__doc__ or ""
    assert {name for name in classes if name not in tree} == set()
