"""What errors say to clients: whole sentences, with a capital and a full stop."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
import headrace_compute
import headrace_server
from headrace import errors as sdk_errors
from headrace_compute import errors

PACKAGES = [Path(str(package.__file__)).parent for package in (headrace, headrace_compute, headrace_server)]
MAKERS = {
    "invalid",
    "bytes_of",
    "BadParameter",
    *(name for module in (errors, sdk_errors) for name in vars(module) if name.endswith("Error")),
}


def _messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Messages of errors that are written where the error is made; what they fill in is {}."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] not in MAKERS:
            continue
        for argument in node.args:
            match argument:
                case ast.JoinedStr(values):
                    yield (
                        node.lineno,
                        "".join(
                            str(each.value) if isinstance(each, ast.Constant) else "{}" for each in values
                        ),
                    )
                case ast.Constant(str() as text) if " " in text:
                    yield node.lineno, text


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_messages_of_errors_are_sentences(package: Path) -> None:
    found = {
        f"{path}:{line}": message
        for path in package.rglob("*.py")
        for line, message in _messages(ast.parse(path.read_text()))
    }
    wrong = {at: message for at, message in found.items() if message[0].islower() or message[-1] not in ".}"}
    assert not wrong
    assert len(found) > 2
