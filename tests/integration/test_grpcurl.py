"""The real grpcurl against a real server, and the lines of docs/grpcurl.md."""

import importlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers.errors import BrokerUnavailableError
from brokers.fixtures import REQUIRE
from google.protobuf.descriptor import Descriptor, FileDescriptor
from harness.grpcurl import VERSIONS, grpcurl_program
from harness.server import Server

import headrace.v1
from headrace.v1 import pipeline_service_pb2

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs/grpcurl.md"
LINE = re.compile(r"^(grpcurl .*?) +# → (.*)$", re.MULTILINE)
(FOLDER,) = map(Path, headrace.v1.__path__)
FILES: list[FileDescriptor] = [
    importlib.import_module(f"headrace.v1.{path.stem}").DESCRIPTOR for path in sorted(FOLDER.glob("*_pb2.py"))
]
SERVICE = pipeline_service_pb2.DESCRIPTOR.services_by_name["PipelineService"]

Run = Callable[[str], str]


@pytest.fixture(scope="module", params=list(VERSIONS))
def program(request: pytest.FixtureRequest) -> Path:
    """grpcurl, once for each version of reflection."""
    try:
        return grpcurl_program(request.param)
    except BrokerUnavailableError as error:
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{REQUIRE}=1, but no grpcurl: {error}", pytrace=False)
        pytest.skip(f"no grpcurl: {error}")


@pytest.fixture
def run(program: Path, server: Server, tenant: str, tmp_path: Path) -> Run:
    """Runs a line of a shell; returns what it printed, errors included."""

    def run(line: str) -> str:
        line = line.replace("127.0.0.1:50051", server.address).replace('"acme"', f'"{tenant}"')
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            text=True,
        )
        return done.stdout

    (tmp_path / "grpcurl").symlink_to(program)
    return run


def _messages(parent: FileDescriptor | Descriptor) -> Iterator[Descriptor]:
    found = (
        parent.message_types_by_name if isinstance(parent, FileDescriptor) else parent.nested_types_by_name
    )
    for message in found.values():
        yield message
        yield from _messages(message)


def test_everything_can_be_described(run: Run) -> None:
    names = [(SERVICE.full_name, "a service")]
    names += [(method.full_name, "a method") for method in SERVICE.methods]
    for file in FILES:
        names += [(message.full_name, "a message") for message in _messages(file)]
        names += [(enum.full_name, "an enum") for enum in file.enum_types_by_name.values()]
        names += [(field.full_name, "an extension") for field in file.extensions_by_name.values()]
    # Entries of maps are messages that nobody has written.
    names = [(name, kind) for name, kind in names if not name.endswith("Entry")]
    assert len(names) > 120
    names += [("google.rpc.ErrorInfo", "a message"), ("google.protobuf.Struct", "a message")]
    script = "\n".join(f"grpcurl -plaintext 127.0.0.1:50051 describe {name}" for name, _ in names)
    printed = run(script)
    missing = [name for name, kind in names if f"{name} is {kind}:" not in printed]
    assert missing == [], printed[-2_000:]


def test_a_symbol_that_there_is_not_is_told(run: Run) -> None:
    for name in ("headrace.v1.Nothing", "headrace.v1.PipelineService.Nothing", "Nothing"):
        assert "not found" in run(f"grpcurl -plaintext 127.0.0.1:50051 describe {name}").lower()


def test_every_line_of_the_document_does_what_it_says(run: Run) -> None:
    lines = LINE.findall(DOCUMENT.read_text())
    commands = [command for command, _ in lines]
    assert len(lines) == DOCUMENT.read_text().count("\ngrpcurl "), "a line says nothing of what it prints"
    called = {name for command in commands for name in re.findall(r"PipelineService/(\w+)", command)}
    assert called == {method.name for method in SERVICE.methods}
    printed = [(command, expected, run(command)) for command, expected in lines]
    wrong = [f"{command}\n{found}" for command, expected, found in printed if expected not in found]
    assert wrong == [], "\n".join(wrong)
