"""Generates the Python stubs from the contract: `python protos/generate.py [OUT]`.

Writes messages, services and type hints below OUT (default: the SDK's sources,
where they are committed), and lays out the googleapis imports under `.build/`
for `buf lint`. A contract test runs it into an empty folder and compares.
"""

import shutil
import sys
from pathlib import Path

import google.api.annotations_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
STUBS = ROOT / "clients" / "python"
GOOGLEAPIS = ROOT / ".build" / "googleapis"
IMPORTS = ("google/api/annotations.proto", "google/api/http.proto", "google/rpc/status.proto")


def lay_out_googleapis() -> None:
    """Copies the imported googleapis files out of their Python package."""
    package = Path(google.api.annotations_pb2.__file__).resolve().parent.parent.parent
    for name in IMPORTS:
        target = GOOGLEAPIS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, target)


def generate(out: Path) -> None:
    """Runs protoc over every file of the contract; raises SystemExit on an error."""
    bin_dir = Path(sys.executable).parent
    well_known = Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'protos'}",
            f"-I{GOOGLEAPIS}",
            f"-I{well_known}",
            # The plugins are installed beside the interpreter, which need not be on PATH.
            f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ]
    )
    if status != 0:
        raise SystemExit(status)
    for path in (out / "headrace" / "v1").glob("*_pb2_grpc.py"):
        # protoc writes one per file; only a file with a service needs it.
        if "Stub" not in path.read_text():
            path.unlink()
            path.with_suffix(".pyi").unlink(missing_ok=True)


if __name__ == "__main__":
    lay_out_googleapis()
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else STUBS)
