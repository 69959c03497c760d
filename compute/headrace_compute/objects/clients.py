"""The clients of an S3 store: minio's for objects, pyarrow's for ranges of one, deltalake's options.

All three use path style and the same keys, region and authorities, and all have short
timeouts: a hanging store must show as an error within seconds.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import pyarrow.fs as pafs
import urllib3
from minio import Minio
from urllib3.response import BaseHTTPResponse

from headrace_compute.model import S3Config

CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0
"""Longest silence of the store in the midst of a request."""

CONNECTIONS = 64
"""Connections kept open to be used again."""

PIECE_BYTES = 1 << 20
"""Bytes of a body that have to be taken within `CONNECT_SECONDS`."""

ARROW_READ_SECONDS = 3.0
ARROW_TRIES = 3


def minio_client(
    s3: S3Config, *, connect_seconds: float = CONNECT_SECONDS, read_seconds: float = READ_SECONDS
) -> Minio:
    """A client for objects and buckets. It never tries a request twice; threads may share it."""
    url = urlsplit(s3.endpoint)
    client = Minio(
        url.netloc,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        secure=url.scheme == "https",
        region=s3.region,
        http_client=_Pool(
            timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
            maxsize=CONNECTIONS,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=s3.ca_file or None,
        ),
    )
    client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client


def send(
    client: Minio,
    method: str,
    bucket: str,
    name: str | None = None,
    *,
    body: memoryview | None = None,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> BaseHTTPResponse:
    """Sends one signed request and returns the whole answer.

    minio's own methods have no way to send `If-None-Match`: what they take as
    metadata goes out as `x-amz-meta-if-none-match`, and the put is silently
    unconditional [seen on 7.2.20]. This is the one place that reaches below them.

    Raises:
        MinioException, HTTPError, ParseError: see `faults.fault_of`.
    """
    return client._execute(  # noqa: SLF001
        method,
        bucket,
        name,
        body=cast(bytes | None, body),
        headers=dict(headers or {}),
        query_params=dict(query or {}),
    )


def arrow_filesystem(s3: S3Config) -> pafs.S3FileSystem:
    """A file system for reading ranges of objects; threads may share it."""
    url = urlsplit(s3.endpoint)
    return pafs.S3FileSystem(
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        region=s3.region,
        scheme=url.scheme,
        endpoint_override=url.netloc,
        force_virtual_addressing=False,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=ARROW_READ_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ARROW_TRIES),
        tls_ca_file_path=s3.ca_file or None,
    )


def delta_options(s3: S3Config) -> dict[str, str]:
    """The `storage_options` of deltalake: how it reaches the store, how it commits, how long it waits.

    deltalake takes every setting that is not named here from `AWS_*` variables of the
    process, so those that would lead it elsewhere are named, though with their defaults.
    """
    return {
        "AWS_ENDPOINT_URL": s3.endpoint.rstrip("/"),
        "AWS_ENDPOINT_URL_S3": s3.endpoint.rstrip("/"),
        "AWS_ALLOW_HTTP": "true" if s3.endpoint.startswith("http:") else "false",
        "AWS_REGION": s3.region,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_SKIP_SIGNATURE": "false",
        "AWS_S3_EXPRESS": "false",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        # A log entry is put with If-None-Match, so of two commits of one version exactly one succeeds.
        "AWS_CONDITIONAL_PUT": "etag",
        "connect_timeout": "2s",
        "timeout": "8s",
        "max_retries": "2",
        "retry_timeout": "5s",
        "backoff_config.init_backoff": "100ms",
        "backoff_config.max_backoff": "1s",
    }


def settle_environment(s3: S3Config) -> None:
    """Sets what deltalake reads only from the process's environment.

    It has no option for authorities to trust (delta-rs issue 4246) but reads
    SSL_CERT_FILE whenever it opens a table. The file then stands for the system's own
    in every library that goes by that variable, so it must hold all that the process
    needs. A session token found in the environment would be sent with our keys.
    """
    if s3.ca_file:
        os.environ["SSL_CERT_FILE"] = s3.ca_file
    os.environ.pop("AWS_SESSION_TOKEN", None)


class _Pool(urllib3.PoolManager):
    """Connections that send a large body in pieces.

    urllib3 sends under the connect timeout, and a socket's timeout holds for the whole
    of what it is told to send: a part on a slow line would never arrive.
    """

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> BaseHTTPResponse:
        """As its base does it."""
        if isinstance(body := options.get("body"), memoryview) and body.nbytes > PIECE_BYTES:
            options["body"] = _pieces(body)
        return super().urlopen(method, url, redirect=redirect, **options)


def _pieces(body: memoryview) -> Iterator[memoryview]:
    """The body without a copy; its length is in the headers already."""
    for start in range(0, body.nbytes, PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]
