"""grpcurl, built with Go: what people talk to a gRPC server with by hand."""

from functools import partial
from pathlib import Path

from brokers.cache import cached
from brokers.tools import find_tool, run_tool

VERSIONS = {"v1": "v1.9.3", "v1alpha": "v1.8.7"}
"""By the reflection that they use: the newest, and the last one that knows v1alpha alone."""

REMEDY = (
    "grpcurl is built once: install Go 1.24 or newer (https://go.dev/dl) and let it reach a module proxy."
)


def grpcurl_program(reflection: str) -> Path:
    """The executable that uses a version of reflection, built first if it is not cached.

    Raises:
        BrokerUnavailableError: There is no Go, or no network.
    """
    version = VERSIONS[reflection]
    return cached(f"grpcurl-{version}", partial(_build, version))


def _build(version: str, scratch: Path) -> Path:
    go = find_tool("go", REMEDY)
    command = [go, "install", "-trimpath", f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{version}"]
    run_tool(command, scratch, REMEDY, {"GOBIN": str(scratch), "CGO_ENABLED": "0"})
    return scratch / "grpcurl"
