"""MinIO: an S3 server, built with Go from its last source release."""

import http.client
import logging
import os
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from brokers.cache import cached
from brokers.certificate import write_certificate
from brokers.server import ServerProcess, free_ports
from brokers.tools import find_tool, run_tool

# The archived repository's last commit, as a pseudo-version: its release tags are no semantic versions.
VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
REMEDY = "MinIO is built once: install Go 1.24 or newer (https://go.dev/dl) and let it reach a module proxy."

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Minio(ServerProcess):
    """A running MinIO."""

    endpoint: str
    """`http://127.0.0.1:PORT`, or `https://...` with TLS."""
    access_key: str
    secret_key: str = field(repr=False)
    ca_file: Path | None = None
    """The authority to trust, with TLS."""

    def answers(self) -> bool:
        """Whether it serves S3 requests now; waits a second at most."""
        address = urlsplit(self.endpoint).netloc
        connection = http.client.HTTPConnection(address, timeout=1)
        if self.ca_file is not None:
            trust = ssl.create_default_context(cafile=str(self.ca_file))
            connection = http.client.HTTPSConnection(address, timeout=1, context=trust)
        try:
            # Not /minio/health/live, which says yes while S3 requests still fail with ServerNotInitialized.
            connection.request("GET", "/minio/health/cluster")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def start_minio(
    folder: Path,
    *,
    port: int = 0,
    tls: bool = False,
    access_key: str = "",
    secret_key: str = "",
    outlive: bool = False,
    host: str = "127.0.0.1",
    within: Sequence[str] = (),
) -> Minio:
    """Starts a MinIO with its data and log in `folder`; returns once it serves.

    It listens at `host`; `within` is what runs a command where that is. Port 0 is any free one; keys not
    given are made up. A folder used before keeps its data. Raises BrokerUnavailableError if no MinIO can be
    built, BrokerStartError if it does not start.
    """
    program = minio_program()
    folder = folder.absolute()
    certificates = folder / "certificates"
    certificates.mkdir(parents=True, exist_ok=True)
    ca_file = _tls_files(certificates) if tls else None
    port = port or free_ports(1)[0]
    address = f"{host}:{port}"
    access_key = access_key or secrets.token_hex(8)
    secret_key = secret_key or secrets.token_hex(20)
    options = ["--address", address, "--certs-dir", str(certificates)]
    server = Minio(
        folder=folder,
        log=folder / "minio.log",
        ports=(port,),
        command=[*within, str(program), "server", *options, str(folder / "data")],
        environment=_environment(access_key, secret_key),
        outlive=outlive,
        endpoint=f"{'https' if tls else 'http'}://{address}",
        access_key=access_key,
        secret_key=secret_key,
        ca_file=ca_file,
    )
    server.start()
    return server


def minio_program() -> Path:
    """Returns MinIO's executable, built first if it is not cached, which takes minutes.

    Raises BrokerUnavailableError without Go or network.
    """
    return cached(f"minio-{VERSION}", _build)


def _build(scratch: Path) -> Path:
    go = find_tool("go", REMEDY)
    logger.info("building MinIO; this happens once and takes about three minutes")
    command = [go, "install", "-trimpath", "-ldflags", "-s -w", f"github.com/minio/minio@{VERSION}"]
    run_tool(command, scratch, REMEDY, {"GOBIN": str(scratch), "CGO_ENABLED": "0"})
    return scratch / "minio"


def _tls_files(certificates: Path) -> Path:
    # public.crt and private.key are the names that MinIO looks for.
    ca_file = certificates / "authority.pem"
    if not ca_file.exists():
        write_certificate(certificates / "public.crt", certificates / "private.key", ca_file)
    return ca_file


def _environment(access_key: str, secret_key: str) -> dict[str, str]:
    # A developer's own MINIO_* would change what the tests see.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MINIO_")}
    # Keys go by environment, never by argument: every user of a machine can read arguments.
    keys = {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key}
    return {**inherited, **keys, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
