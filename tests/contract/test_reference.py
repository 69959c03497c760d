"""docs/api.md, which `make docs` writes from the comments of the proto files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/api.md").read_text()
PROTOS = {path.stem: path.read_text() for path in (ROOT / "protos/headrace").rglob("*.proto")}


def test_it_is_what_the_contract_says_now() -> None:
    written = subprocess.run(
        [sys.executable, ROOT / "protos/document.py"], check=True, capture_output=True, text=True
    )
    assert written.stdout == DOCUMENT, "run `make docs` and commit what it writes"


@pytest.mark.parametrize("kind", ["rpc", "message", "enum"])
def test_every_declaration_has_its_heading(kind: str) -> None:
    names = {name for text in PROTOS.values() for name in re.findall(rf"^ *{kind} (\w+)", text, re.MULTILINE)}
    names -= {"ErrorReason"}  # It is a chapter.
    assert len(names) > 5
    headings = re.findall(r"^### (\w+)$", DOCUMENT, re.MULTILINE)
    assert names <= {*headings}
    assert len(headings) == len({*headings}), "links lead to the first of two"


def test_every_reason_stands_with_what_follows_from_it() -> None:
    declared = re.findall(
        r"ERROR_REASON_(\w+) = \d+ \[\(error_traits\) = "
        r"\{code: (\w+),( retryable: true,)? http_status: (\d+)\}\];",
        PROTOS["error_reason"],
    )
    assert len(declared) == PROTOS["error_reason"].count("\n  ERROR_REASON_") - 1
    for name, code, retryable, status in declared:
        assert f"| `{name}` | {code} | {status} | {'yes' if retryable else 'no'} | " in DOCUMENT


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
        for heading in re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([\w-]+)\)", DOCUMENT))
    assert len(links) > 50
    assert links <= headings
    for name in re.findall(r"\]\(([\w./-]+)\)", DOCUMENT):
        assert (ROOT / "docs" / name).exists(), name
