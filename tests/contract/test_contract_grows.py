"""The gate of `make check`: what the contract may become after its last release, and what it may not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).parent / "buf"


def _compare(folder: Path, file: str, before: str, after: str) -> subprocess.CompletedProcess[str]:
    """Compares the contract with its last release, some words of a file being others."""
    shutil.copytree(ROOT / "protos", folder / "protos")
    shutil.copy(ROOT / "buf.yaml", folder)
    path = folder / "protos/headrace/v1" / file
    assert path.read_text().count(before) == 1
    path.write_text(path.read_text().replace(before, after))
    command = [str(BUF), "breaking", "protos", "--against", "protos/released.binpb"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("table.proto", "string name = 1;", "string title = 1;"),
        ("table.proto", "uint64 size_bytes = 6;", "uint64 size_bytes = 16;"),
        ("table.proto", "uint32 files = 7;", "uint64 files = 7;"),
        ("table.proto", "repeated string columns = 4;\n  // At most", "// At most"),
        ("upload.proto", "POLICY_ALL_OR_NOTHING = 2;", "POLICY_STRICT = 2;"),
        ("error_reason.proto", "ERROR_REASON_FENCED = 13", "ERROR_REASON_FENCED = 130"),
        ("pipeline_service.proto", "rpc ReadTable(ReadTableRequest)", "rpc ReadRows(ReadTableRequest)"),
        ("pipeline_service.proto", "returns (stream ReadTableResponse)", "returns (ReadTableResponse)"),
    ],
)
def test_what_breaks_clients_is_refused(tmp_path: Path, file: str, before: str, after: str) -> None:
    found = _compare(tmp_path, file, before, after)
    assert found.returncode != 0
    assert file in found.stdout


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("table.proto", "uint32 files = 7;", "uint32 files = 7;\n  // New.\n  string comment = 100;"),
        ("error_reason.proto", "= 13 [(error_traits)", "= 13 [deprecated = true, (error_traits)"),
        ("pipeline_service.proto", 'get: "/health"', 'get: "/v1/health"'),
    ],
)
def test_growth_passes(tmp_path: Path, file: str, before: str, after: str) -> None:
    found = _compare(tmp_path, file, before, after)
    assert (found.returncode, found.stdout) == (0, "")
