"""Every error of the tree has a code, a reason of the contract, and survives a process boundary."""

import pickle
import re
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from headrace.v1 import error_reason_pb2, error_traits_pb2
from headrace_compute import errors
from headrace_server.rpc.status import code_of, to_status


def _tree(root: type[errors.HeadraceError]) -> list[type[errors.HeadraceError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


TREE = [cls for cls in _tree(errors.HeadraceError) if cls.__module__ == errors.__name__]
REASONS = {name.removeprefix("ERROR_REASON_") for name, _ in error_reason_pb2.ErrorReason.items()}
TRAITS = {
    value.name.removeprefix("ERROR_REASON_"): value.GetOptions().Extensions[error_traits_pb2.error_traits]
    for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values
    if value.number
}
PROTO = Path(__file__).parents[2] / "protos/headrace/v1/error_reason.proto"

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto has them in its comments.
HTTP_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "DATA_LOSS": 500,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_error_has_a_reason_of_the_contract(cls: type[errors.HeadraceError]) -> None:
    assert cls.reason in REASONS


@pytest.mark.parametrize("reason", sorted(TRAITS))
def test_traits_say_what_the_words_of_the_contract_say(reason: str) -> None:
    comment = re.search(rf"((?:  // .*\n)+)  ERROR_REASON_{reason} = ", PROTO.read_text())
    assert comment
    traits = TRAITS[reason]
    assert comment[1].startswith(f"  // {code_pb2.Code.Name(traits.code)}: ")
    assert traits.http_status == HTTP_STATUSES[code_pb2.Code.Name(traits.code)]


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_what_the_server_tries_again_clients_may_try_again_too(cls: type[errors.HeadraceError]) -> None:
    # A fault of ours is worth one more try of a client; a server that met it would only meet it again.
    assert cls.retryable == TRAITS[cls.reason].retryable or cls.reason == "INTERNAL"


def test_every_reason_of_the_contract_is_raised_by_some_error() -> None:
    assert {cls.reason for cls in TREE} == REASONS - {"UNSPECIFIED"}


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_errors_survive_a_process_boundary(cls: type[errors.HeadraceError]) -> None:
    again = pickle.loads(pickle.dumps(cls("what is wrong", {"field": "x"})))
    assert (type(again), again.message, again.attributes) == (cls, "what is wrong", {"field": "x"})


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_a_reason_leads_back_to_a_class_of_the_same_code(cls: type[errors.HeadraceError]) -> None:
    found = errors.class_of(cls.reason)
    assert (found.reason, code_of(found("x"))) == (cls.reason, code_of(cls("x")))


def test_a_foreign_exception_shows_a_correlation_id_and_nothing_else() -> None:
    status = to_status(RuntimeError("password=hunter2 at /srv/app.py"), "abc123")
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "hunter2" not in str(status)
    assert "/srv" not in str(status)
    assert "abc123" in status.message


def test_a_status_has_exactly_one_error_info_and_fits_into_trailers() -> None:
    error = errors.InvalidFieldError("x" * 100_000, {"field": "tenant_id", "value": "y" * 100_000})
    status = to_status(error, "")
    kinds = [detail.TypeName() for detail in status.details]
    assert kinds.count("google.rpc.ErrorInfo") == 1
    assert "google.rpc.BadRequest" in kinds
    assert status.ByteSize() <= 4096


@pytest.mark.parametrize("text", ["x", "é", "\x00", "%"])
def test_what_ends_a_call_is_below_the_8_kib_that_clients_take(text: str) -> None:
    attributes = dict.fromkeys(("field", "columns", "table", "limit_bytes"), text * 100000)
    status = rpc_status.to_status(to_status(errors.InvalidFieldError(text * 100_000, attributes), "x" * 64))
    trailers = [("grpc-message", quote(status.details)), ("x-request-id", "x" * 64)]
    ((key, details),) = status.trailing_metadata
    assert isinstance(details, bytes)
    trailers.append((key, b64encode(details).decode()))
    assert sum(len(key) + len(value) + 32 for key, value in trailers) < 8 << 10


def test_retryable_codes_say_when_to_retry() -> None:
    for cls in (errors.StoreUnavailableError, errors.OverloadedError):
        status = to_status(cls("later"), "")
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.seconds > 0


def test_an_unknown_leaf_takes_the_code_of_its_branch() -> None:
    class NewLeafError(errors.TableNotFoundError):
        pass

    assert code_of(NewLeafError("x")) is grpc.StatusCode.NOT_FOUND
