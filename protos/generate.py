"""Generates the Python stubs from the contract: `python protos/generate.py [OUT]`.

Writes messages, services and type hints below OUT (default: the SDK's sources,
where they are committed). A contract test runs it into an empty folder and compares.

The generator is older than what is installed beside it, on purpose: stubs refuse
runtimes that are older than their generator, so its version is the floor of protobuf
and grpcio for everyone who installs the SDK.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
THIRD_PARTY = PROTOS / "third_party"
STUBS = PROTOS.parent / "clients" / "python"


def generate(out: Path) -> None:
    """Runs protoc over every file of the contract; raises SystemExit on an error."""
    bin_dir = Path(sys.executable).parent
    well_known = Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "headrace").rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{THIRD_PARTY}",
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
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else STUBS)
