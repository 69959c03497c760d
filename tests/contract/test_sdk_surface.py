"""What the SDK offers: names, signatures, enums, what an import costs, and commands with their options."""

import inspect
import shlex
import subprocess
import sys
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import EnumDescriptor

import headrace
from headrace import enums, errors
from headrace.cli.app import COMMANDS, load
from headrace.connection import connection
from headrace.retry import Retry, Tries
from headrace.v1 import error_reason_pb2, run_pb2, table_pb2, upload_pb2

METHODS = sorted(name for name in vars(headrace.Client) if not name.startswith("_"))


HELP = """
import sys
sys.argv = ["headrace", "--help"]
from headrace.cli import main
try:
    main()
except SystemExit:
    pass
"""


def _imported(code: str) -> set[str]:
    told = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_an_import_loads_what_is_used_and_no_more() -> None:
    extras = {"numpy", "pandas", "polars", "pyarrow", "rich"}
    assert not _imported("import headrace") & {"grpc", "google", "typer", *extras}
    assert not _imported("from headrace import Client") & {"typer", *extras}
    assert not _imported(HELP) & {"grpc", "google", *extras}


def test_sync_and_asyncio_have_the_same_methods_and_parameters() -> None:
    assert sorted(name for name in vars(headrace.AsyncClient) if not name.startswith("_")) == METHODS
    for name in ("__init__", *METHODS):
        ours, theirs = (
            inspect.signature(getattr(kind, name)).parameters
            for kind in (headrace.Client, headrace.AsyncClient)
        )
        assert list(ours) == list(theirs), name
        assert [each.default for each in ours.values()] == [each.default for each in theirs.values()], name


@pytest.mark.parametrize("kind", [headrace.Client, headrace.AsyncClient])
def test_every_method_has_an_example(kind: type) -> None:
    assert [name for name in METHODS if "Example:" not in (getattr(kind, name).__doc__ or "")] == []


def test_everything_exported_is_there_and_every_error_is_exported() -> None:
    assert all(getattr(headrace, name) is not None for name in headrace.__all__)
    tree = {
        name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, Exception)
    }
    assert tree <= {*headrace.__all__}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (enums.Format, upload_pb2.Format.DESCRIPTOR),
        (enums.Compression, upload_pb2.Compression.DESCRIPTOR),
        (enums.Policy, upload_pb2.Policy.DESCRIPTOR),
        (enums.UnknownColumns, upload_pb2.UnknownColumns.DESCRIPTOR),
        (enums.Outcome, upload_pb2.Outcome.DESCRIPTOR),
        (enums.UploadState, upload_pb2.UploadState.DESCRIPTOR),
        (enums.RunState, run_pb2.RunState.DESCRIPTOR),
    ],
)
def test_enums_are_those_of_the_contract(ours: Any, theirs: EnumDescriptor) -> None:
    prefix = theirs.values[0].name.removesuffix("UNSPECIFIED")
    assert {each.name: each.value for each in ours} == {
        each.name.removeprefix(prefix): each.number for each in theirs.values
    }


def test_reasons_are_those_of_the_contract() -> None:
    names = {
        name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    assert {str(each) for each in enums.ErrorReason} == names - {"UNSPECIFIED"}


@pytest.mark.parametrize(
    ("address", "form"),
    [
        ("https://a.example/x", "'a.example:443'"),
        ("http://a.example", "'a.example:50051'"),
        ("GRPCS://b:9", "'b:9'"),
    ],
)
def test_an_address_with_a_scheme_is_refused_with_the_right_form(address: str, form: str) -> None:
    with pytest.raises(ValueError, match="scheme") as refused:
        headrace.Client(address)
    assert form in str(refused.value)


@pytest.mark.parametrize(
    ("address", "goes"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/x", True),
        ("10.0.0.1:1", False),
    ],
)
def test_a_token_goes_over_a_network_encrypted_or_not_at_all(address: str, goes: bool) -> None:
    if goes:
        made = connection(address, None, "secret", (), None)
        assert made.metadata == (("authorization", "Bearer secret"),)
        return
    with pytest.raises(ValueError, match="unencrypted"):
        connection(address, None, "secret", (), None)
    assert connection(address, headrace.Tls(), "secret", (), None).metadata


def test_what_is_not_given_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("HEADRACE_TOKEN", "t")
    made = connection(None, None, None, (), None)
    assert (made.address, made.metadata) == ("127.0.0.1:9", (("authorization", "Bearer t"),))
    assert connection("b:1", headrace.Tls(), "", (), None).metadata == ()
    monkeypatch.setenv("HEADRACE_CA_FILE", "/no/such/file")
    with pytest.raises(OSError, match="No such file"):
        connection(None, None, None, (), None)


def _tries(attempts: int, timeout_s: float | None) -> Tries:
    return Tries(Retry(attempts), timeout_s, clock=lambda: 0.0, jitter=lambda _, most: most)


def test_calls_are_tried_again_for_what_passes_and_no_longer_than_they_may() -> None:
    gone = errors.UnavailableError("gone", code=grpc.StatusCode.UNAVAILABLE)
    tries = _tries(4, 10.0)
    assert [tries.pause_s(gone) for _ in range(3)] == [0.2, 0.4, 0.8]
    for hopeless in (
        errors.InvalidArgumentError("x"),
        errors.StoreFullError("x"),
        errors.UnavailableError("late", code=grpc.StatusCode.DEADLINE_EXCEEDED),
    ):
        with pytest.raises(type(hopeless)):
            _tries(4, 10.0).pause_s(hopeless)
    for spent in (tries, _tries(1, None), _tries(4, 0.1)):
        with pytest.raises(errors.UnavailableError):
            spent.pause_s(gone)
    busy = errors.OverloadedError("busy", retry_after_s=5.0)
    assert _tries(4, None).pause_s(busy) == 5.0
    with pytest.raises(errors.OverloadedError):
        _tries(4, 4.0).pause_s(busy)


def _commands() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in COMMANDS:
        command = load(name)
        found |= {f"{name} {each}": sub for each, sub in getattr(command, "commands", {}).items()} or {
            name: command
        }
    return found


def test_every_command_has_the_summary_that_the_help_lists() -> None:
    for name, (_, summary) in COMMANDS.items():
        assert (load(name).help or "").startswith(summary.removesuffix(".")), name


@pytest.mark.parametrize("name", _commands())
def test_every_command_has_examples_that_it_takes(name: str) -> None:
    command = _commands()[name]
    lines = [line for line in command.help.partition("Examples:")[2].splitlines() if line.strip()]
    assert lines
    for line in lines:
        words = shlex.split(line)
        begin = words.index("headrace")
        end = next((place for place in range(begin, len(words)) if words[place] in ("|", ">")), len(words))
        assert words[begin + 1 : begin + 1 + len(name.split())] == name.split()
        arguments = words[begin + 1 + len(name.split()) : end]
        settings = {"token_normalize_func": lambda token: token.replace("_", "-")}
        assert command.make_context(name, arguments, **settings)


FILLED = {
    "expected_rows", "expected_bytes", "include_rows", "omit_progress", "encoding", "page_token", "page_size",
}  # fmt: skip
"""Fields that commands fill themselves: from the file, or with what they can show."""

SPELLED = {
    "tenant_id": "tenant",
    "data_type": "type",
    "page_size": "limit",
    "split": "split_at",
    "drift_limits": "max_drift",
}
"""Fields whose option has another name: `split` and `drift_limits` have several."""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("upload", upload_pb2.UploadHeader),
        ("uploads", upload_pb2.ListUploadsRequest),
        ("status", upload_pb2.GetUploadRequest),
        ("abort", upload_pb2.AbortUploadRequest),
        ("rejects", upload_pb2.ListRejectsRequest),
        ("features", run_pb2.ComputeFeaturesRequest),
        ("negatives", run_pb2.SampleNegativesRequest),
        ("runs", run_pb2.ListRunsRequest),
        ("run show", run_pb2.GetRunRequest),
        ("run cancel", run_pb2.CancelRunRequest),
        ("tables", table_pb2.ListTablesRequest),
        ("read", table_pb2.ReadTableRequest),
    ],
)
def test_every_field_of_a_request_has_its_option(name: str, message: Any) -> None:
    known = {
        word.lstrip("-").replace("-", "_")
        for param in _commands()[name].params
        for word in (*param.opts, param.name)
    }
    fields = set(message.DESCRIPTOR.fields_by_name) - FILLED
    assert [field for field in fields if not {field, SPELLED.get(field)} & known] == []
