"""Maps the error answers of an S3 store to our errors.

Answers reach us as exceptions of minio and urllib3 and as texts of pyarrow and
deltalake. Such texts may contain secrets: S3 repeats the access key and the signature in
some answers. Only S3's error code leaves this module.
"""

import re
import ssl
from typing import Literal, NamedTuple
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, SSLError

from headrace_compute.errors import HeadraceError, StoreDeniedError, StoreFullError, StoreUnavailableError

CLIENT_ERRORS = (MinioException, HTTPError, ParseError, OSError)
"""What minio's client and pyarrow raise."""

Verb = Literal["write", "read", "list", "delete", "make"]
Kind = Literal["taken", "missing", "passing", "full", "denied"]

RIGHTS: dict[Verb, str] = {
    "write": "s3:PutObject",
    "read": "s3:GetObject",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
    "make": "s3:CreateBucket",
}

FULL = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})

PASSING = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
"""Codes of transient errors, although their status blames the request."""

REMEDIES = {
    "NoSuchBucket": "Make that bucket",
    "InvalidAccessKeyId": "Check the access key and the secret key",
    "SignatureDoesNotMatch": "Check the access key and the secret key",
    "RequestTimeTooSkewed": "Set the clocks of the server and the store",
    "AuthorizationHeaderMalformed": "Check the region",
    "InvalidRegion": "Check the region",
    "PermanentRedirect": "Check the endpoint and the region",
    "UntrustedCertificate": "Check the CA file, and that the certificate names the endpoint's host",
}

_COLOUR = re.compile(r"\x1b\[\d*m")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"non-2xx status code\D{1,20}(\d{3})")
_ARROW_CODE = re.compile(r"AWS Error ([A-Z_]+)")
_ARROW_STATUS = re.compile(r"HTTP status (\d{3})")
_UNTRUSTED = re.compile(r"invalid peer certificate|SSL peer certificate|SSL CA cert")


class Fault(NamedTuple):
    """Why a request failed.

    Attributes:
        kind: What follows from it: `taken` and `missing` are about the key, `passing` may be gone
            at the next try, `full` and `denied` stay until somebody does something.
        code: S3's code, such as AccessDenied, or a word for what came instead of an answer.
    """

    kind: Kind
    code: str


def fault_of(error: Exception) -> Fault:
    """Why a request of minio's client or of pyarrow failed."""
    if isinstance(error, S3Error):
        return _answered(error.code or "", error.response.status)
    if isinstance(error, ServerError):
        return _answered("", error.status_code)
    if isinstance(error, InvalidResponseError):
        return _answered("", error._code)  # noqa: SLF001, it has no public name
    if isinstance(error, SSLError):
        return _insecure(error)
    if isinstance(error, FileNotFoundError):
        return Fault("missing", "NoSuchKey")
    if isinstance(error, OSError):
        return fault_in(str(error)) or Fault("passing", type(error).__name__)
    return Fault("passing", type(error).__name__)


def fault_in(text: str) -> Fault | None:
    """Why a request failed that pyarrow or deltalake made; None if the text tells of no S3 store."""
    text = _COLOUR.sub("", text)
    if _UNTRUSTED.search(text):
        return Fault("denied", "UntrustedCertificate")
    if found := _ARROW_CODE.search(text):
        code = "".join(word.capitalize() for word in found[1].split("_"))
        status = _ARROW_STATUS.search(text)
        refused = code in REMEDIES or code == "AccessDenied"
        return _answered(code, int(status[1]) if status else 403 if refused else 503)
    status, named = _STATUS.search(text), _CODE.search(text)
    if status or named:
        return _answered(named[1] if named else "", int(status[1]) if status else 503)
    if "S3 error" in text or "HTTP error" in text:
        return Fault("passing", "NoAnswer")
    return None


def store_error(fault: Fault, verb: Verb, key: str) -> HeadraceError:
    """The error of an operation on a key, or on a bucket, that failed for good."""
    bucket = key.partition("/")[0]
    message = f"The store cannot {verb} {key}: {fault.code}."
    if fault.kind == "full":
        return StoreFullError(f"{message} Free some space.")
    if fault.kind == "denied":
        remedy = REMEDIES.get(fault.code, f"Check the keys, and that they may {RIGHTS[verb]} on {bucket}")
        return StoreDeniedError(f"{message} {remedy}.", {"bucket": bucket, "code": fault.code})
    return StoreUnavailableError(message)


def _answered(code: str, status: int) -> Fault:
    """Sorts an answer by its code, and by its status where the code says nothing."""
    code = code or f"HTTP {status}"
    if status == 412 or code == "PreconditionFailed":
        return Fault("taken", code)
    if code in FULL or status == 507:
        return Fault("full", code)
    if code == "NoSuchKey":
        return Fault("missing", code)
    if code in PASSING or status in (408, 429) or (status >= 500 and status != 501):
        return Fault("passing", code)
    return Fault("denied", code)


def _insecure(error: SSLError) -> Fault:
    """Tells a certificate or a CA file that will not do from a connection that broke off."""
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, ssl.SSLError) else "NO_CERTIFICATE_OR_CRL_FOUND"
    if reason in ("CERTIFICATE_VERIFY_FAILED", "NO_CERTIFICATE_OR_CRL_FOUND"):
        return Fault("denied", "UntrustedCertificate")
    return Fault("passing", reason or type(cause).__name__)
