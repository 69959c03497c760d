"""Where a client connects to, and how: address, TLS, token, and the settings of its gRPC channel."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

import grpc

from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

if TYPE_CHECKING:
    # Only the types know it.
    from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceAsyncStub

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where an embedded server listens unless told otherwise."""

TIMEOUT_S = 60.0
"""Seconds after which a call without a stream fails with UnavailableError."""

ChannelOptions: TypeAlias = Iterable[tuple[str, Any]]
"""Names and values: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""

Path: TypeAlias = str | os.PathLike[str]

_OPTIONS: Mapping[str, Any] = {
    "grpc.max_receive_message_length": 64 << 20,
    "grpc.max_send_message_length": 64 << 20,
    # A run may be silent for long, and a server that lost its power sends no FIN.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.http2.max_pings_without_data": 0,
    # Uploads wait with a backoff of their own. By default gRPC does not look for a server that was
    # away for long until up to two minutes after it is back.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 2_000,
}

_SCHEME = re.compile(r"^(https?|grpcs?)://", re.IGNORECASE)
_LOOPBACK = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$|^::1$", re.IGNORECASE)
# RFC 6750, section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True)
class Tls:
    """An encrypted connection, to a server that proves who it is.

    Attributes:
        ca_file: PEM certificates of the authorities that the server's may be signed by. Default: those that
            gRPC brings.
        cert_file, key_file: PEM certificate chain and key with which the client proves who it is (mTLS), if
            the server asks for that.

    Example:
        client = headrace.Client("headrace.example:443", credentials=headrace.Tls(ca_file="ca.pem"))
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC.

        Raises:
            OSError: A file cannot be read.
            ValueError: There is a certificate without a key, or a key without a certificate.
        """
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError(
                f"cert_file is {self.cert_file!r}, key_file {self.key_file!r}; give both for mTLS, or none."
            )
        return grpc.ssl_channel_credentials(
            root_certificates=_content(self.ca_file),
            private_key=_content(self.key_file),
            certificate_chain=_content(self.cert_file),
        )


@dataclass(frozen=True)
class Connection:
    """A connection that is to be made, sync or asyncio.

    Attributes:
        address: Of the server.
        credentials: How it is encrypted; None = not at all.
        metadata: What each call carries.
        options: Of the channel.
        compression: Of what is sent.
    """

    address: str
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]
    options: Sequence[tuple[str, Any]]
    compression: grpc.Compression | None

    def channel(self, interceptors: Sequence[Any]) -> grpc.Channel:
        """A sync channel."""
        if self.credentials is None:
            channel = grpc.insecure_channel(self.address, self.options, self.compression)
        else:
            channel = grpc.secure_channel(self.address, self.credentials, self.options, self.compression)
        return grpc.intercept_channel(channel, *interceptors)

    def async_channel(self, interceptors: Sequence[Any]) -> grpc.aio.Channel:
        """A channel of the running event loop."""
        settings = self.options, self.compression, interceptors
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, *settings)
        return grpc.aio.secure_channel(self.address, self.credentials, *settings)

    def stub(self, channel: grpc.Channel) -> PipelineServiceStub:
        """The service's methods, each of which sends the metadata."""
        stub = PipelineServiceStub(channel)
        for name, method in vars(stub).items():
            setattr(stub, name, partial(method, metadata=self.metadata))
        return stub

    def async_stub(self, channel: grpc.aio.Channel) -> "PipelineServiceAsyncStub":
        """The same on an event loop."""
        stub: Any = self.stub(cast(Any, channel))  # At run time there is one stub for both.
        return cast("PipelineServiceAsyncStub", stub)


def connection(
    address: str | None,
    credentials: Tls | grpc.ChannelCredentials | None,
    token: str | None,
    options: ChannelOptions,
    compression: grpc.Compression | None,
) -> Connection:
    """The connection that a client's arguments ask for; what is None comes from the environment.

    Raises:
        OSError: A file of certificates cannot be read.
        ValueError: The address has a scheme, the token is none, or would go unencrypted over a network.
    """
    address = address if address is not None else os.environ.get("HEADRACE_ADDRESS") or DEFAULT_ADDRESS
    _check_address(address)
    credentials = credentials or _tls_of_environment()
    if isinstance(credentials, Tls):
        credentials = credentials.credentials()
    token = token if token is not None else os.environ.get("HEADRACE_TOKEN", "")
    if token:
        _check_token(token, is_safe=credentials is not None or _is_local(address), address=address)
    agent = f"headrace-python/{version('headrace')}"
    return Connection(
        address=address,
        credentials=credentials,
        metadata=(("authorization", f"Bearer {token}"),) if token else (),
        options=tuple({**_OPTIONS, "grpc.primary_user_agent": agent, **dict(options)}.items()),
        compression=compression,
    )


def _tls_of_environment() -> Tls | None:
    names = ("ca_file", "cert_file", "key_file")
    files = {name: file for name in names if (file := os.environ.get(f"HEADRACE_{name.upper()}"))}
    return Tls(**files) if files else None


def _check_address(address: str) -> None:
    found = _SCHEME.match(address)
    if found is None:
        return
    url = urlsplit(address)
    is_encrypted = found[1].lower() in ("https", "grpcs")
    host = url.netloc.rpartition("@")[2] or "host"
    if url.port is None:
        host += ":443" if is_encrypted else ":50051"
    tls = ", and credentials=headrace.Tls() or HEADRACE_CA_FILE for TLS" if is_encrypted else ""
    raise ValueError(f"Address {address!r} has a scheme, which gRPC does not take; give {host!r}{tls}.")


def _check_token(token: str, *, is_safe: bool, address: str) -> None:
    if not _TOKEN.fullmatch(token):
        raise ValueError(
            "The token has characters that HTTP does not take; give it without white space and line ends."
        )
    if not is_safe:
        raise ValueError(
            f"The token would go to {address} unencrypted; give credentials=headrace.Tls() or"
            " HEADRACE_CA_FILE; where something else encrypts the connection, send it with an interceptor."
        )


def _is_local(address: str) -> bool:
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    name = re.sub(r"^(dns:(//[^/]*/)?|ipv4:|ipv6:)", "", address)
    return bool(_LOOPBACK.match(name))


def _content(file: Path | None) -> bytes | None:
    if file is None:
        return None
    with open(file, "rb") as opened:
        return opened.read()
