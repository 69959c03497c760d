"""Objects in the buckets of an S3 store: `{bucket}/{name}`, each written by one request.

S3 answers a PUT once the object is durable and shows it to everyone from then on, so
nothing here waits for more. An operation that fails transiently is retried for some
seconds.
"""

import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from itertools import islice
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.helpers import check_bucket_name

from headrace_compute.backoff import Backoff
from headrace_compute.errors import HeadraceError, StoreDeniedError, StoreUnavailableError
from headrace_compute.model import S3Config, StoreConfig
from headrace_compute.objects.clients import (
    arrow_filesystem,
    delta_options,
    minio_client,
    send,
    settle_environment,
)
from headrace_compute.objects.faults import CLIENT_ERRORS, Verb, fault_of, store_error
from headrace_compute.objects.keys import KeyExistsError, KeyMissingError, check_key
from headrace_compute.objects.preflight import check_access, check_create

TRIES = 5
TRYING_SECONDS = 8.0
FIRST_PAUSE_SECONDS = 0.3
"""How long an operation that fails in passing is tried."""

PAGE = 1000
"""Limit on the keys that S3 lists or deletes in one request."""

REFUSED_TRIES = 3
"""Tries of a write that is answered AccessDenied. MinIO answers so, even to its root user, to one in a
thousand writes into a folder that a concurrent delete is removing as empty [seen]."""

PROBE_SECONDS = 2.0
PROBE_READ_SECONDS = 1.5

PROBES = "_headrace/probe"
"""Folder in every bucket for the objects of preflight checks."""

Names = list[str]
T = TypeVar("T")


class S3Store:
    """An ObjectStore in S3 buckets; the protocol says what each method promises."""

    def __init__(self, config: StoreConfig, s3: S3Config) -> None:
        settle_environment(s3)
        self._s3 = s3
        self._raw = config.raw
        self._buckets = config.buckets
        self._client = minio_client(s3)
        self._prober = minio_client(
            s3, connect_seconds=PROBE_READ_SECONDS / 2, read_seconds=PROBE_READ_SECONDS
        )

    def create(self, key: str, data: bytes | pa.Buffer) -> None:
        """One PUT that S3 carries out only if there is no such object."""
        bucket, name = _place(key)
        self._ask("write", key, partial(self._create, bucket, name, memoryview(data)))

    def copy(self, key: str, target: str) -> None:
        """Reads and creates: in most stores S3's own copy overwrites an existing target."""
        self.create(target, self.get(key))

    def put(self, key: str, data: bytes | pa.Buffer) -> None:
        """One PUT."""
        bucket, name = _place(key)
        self._ask("write", key, partial(send, self._client, "PUT", bucket, name, body=memoryview(data)))

    def get(self, key: str) -> bytes:
        """One GET."""
        bucket, name = _place(key)
        return self._ask("read", key, lambda: send(self._client, "GET", bucket, name).data)

    def open(self, key: str) -> pa.NativeFile:
        """A HEAD now, and a GET for every range read."""
        path = "/".join(_place(key))
        return self._ask("read", key, lambda: self._arrow.open_input_file(path))

    def exists(self, key: str) -> bool:
        """One HEAD."""
        bucket, name = _place(key)
        try:
            self._ask("read", key, partial(send, self._client, "HEAD", bucket, name))
        except KeyMissingError:
            return False
        return True

    def age_seconds(self, key: str) -> float:
        """One HEAD, whose answer has both dates, to the second."""
        bucket, name = _place(key)
        headers = self._ask("read", key, partial(send, self._client, "HEAD", bucket, name)).headers
        now, written = (parsedate_to_datetime(headers[each]) for each in ("Date", "Last-Modified"))
        return max(0.0, (now - written).total_seconds())

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """A request for every thousand keys, made when they are consumed."""
        bucket, folder = _folder(prefix)
        last = after.removeprefix(f"{bucket}/")
        while names := self._ask("list", prefix, partial(self._page, bucket, folder, last)):
            yield from (f"{bucket}/{name}" for name in names if not name.endswith("/"))
            last = names[-1]
            if len(names) < PAGE:
                return

    def children(self, prefix: str) -> Names:
        """S3 sums up what lies below a slash."""
        bucket, folder = _folder(prefix)
        names = self._ask("list", prefix, partial(self._level, bucket, folder))
        return sorted({name[len(folder) :].rstrip("/") for name in names if name != folder})

    def delete(self, key: str) -> None:
        """One DELETE, which S3 answers in the same way if there is nothing."""
        bucket, name = _place(key)
        self._ask("delete", key, partial(send, self._client, "DELETE", bucket, name))

    def delete_all(self, prefix: str) -> None:
        """A request for every thousand keys."""
        bucket, _ = _folder(prefix)
        keys = list(self.list(prefix))
        for start in range(0, len(keys), PAGE):
            batch = keys[start : start + PAGE]
            if self._ask("delete", prefix, partial(self._delete_batch, bucket, batch)):
                # What S3 did not delete with the others it may, or says why it does not.
                for key in batch:
                    self.delete(key)

    def sync(self, key: str) -> None:
        """Looks whether the object is there: then it is durable."""
        if not self.exists(key):
            raise KeyMissingError(key)

    def prepare(self) -> None:
        """Makes missing buckets, tries every right that is needed, and races creates."""
        try:
            for bucket in self._buckets:
                self._ensure(bucket)
                check_access(self, f"{bucket}/{PROBES}")
            check_create(self, f"{self._raw}/{PROBES}")
        except HeadraceError as error:
            # Only whoever starts the server reads this one.
            raise type(error)(f"{error.message} [{self._s3.endpoint}]", error.attributes) from None

    def clear_halves(self, older_than_seconds: float) -> None:
        """Nothing: one PUT writes an object, whole or not at all."""

    def probe(self) -> None:
        """A HEAD of every bucket, without a second try."""
        end = time.monotonic() + PROBE_SECONDS
        for bucket in self._buckets:
            self._ask("list", bucket, partial(send, self._prober, "HEAD", bucket), Backoff(0.0, max_tries=1))
            if time.monotonic() > end:
                raise StoreUnavailableError(f"The store takes longer than {PROBE_SECONDS:g} s to answer.")

    def free_bytes(self) -> int | None:
        """S3 does not tell."""
        return None

    def uri(self, key: str) -> str:
        """An s3: URI."""
        check_key(key)
        return f"s3://{key}"

    def storage_options(self) -> dict[str, str]:
        """How deltalake reaches this store."""
        return delta_options(self._s3)

    @cached_property
    def _arrow(self) -> pafs.S3FileSystem:
        """Made when the first object is opened: it starts threads, and many processes open none."""
        return arrow_filesystem(self._s3)

    def _ask(self, verb: Verb, key: str, request: Callable[[], T], backoff: Backoff | None = None) -> T:
        """Repeats a request until it is answered or the backoff ends."""
        backoff = backoff or Backoff(FIRST_PAUSE_SECONDS, max_tries=TRIES, seconds=TRYING_SECONDS)
        while True:
            try:
                return request()
            except CLIENT_ERRORS as error:
                fault = fault_of(error)
            if fault.kind == "taken":
                raise KeyExistsError(key)
            if fault.kind == "missing":
                raise KeyMissingError(key)
            mistaken = (
                verb == "write" and fault.code == "AccessDenied" and backoff.failures + 1 < REFUSED_TRIES
            )
            if not (fault.kind == "passing" or mistaken) or not backoff.again():
                raise store_error(fault, verb, key)

    def _create(self, bucket: str, name: str, body: memoryview) -> None:
        try:
            send(self._client, "PUT", bucket, name, body=body, headers={"If-None-Match": "*"})
        except CLIENT_ERRORS as error:
            # A store that refuses closes the connection without reading a large body, and its
            # answer may be lost with it, try after try [seen with MinIO over TLS].
            if fault_of(error).kind == "passing" and self._is_there(bucket, name):
                raise KeyExistsError(f"{bucket}/{name}") from None
            raise

    def _is_there(self, bucket: str, name: str) -> bool:
        """Asks once, and not for long."""
        try:
            send(self._prober, "HEAD", bucket, name)
        except CLIENT_ERRORS:
            return False
        return True

    def _page(self, bucket: str, folder: str, last: str) -> Names:
        found = self._client.list_objects(bucket, folder, recursive=True, start_after=last or None)
        return [each.object_name or "" for each in islice(found, PAGE)]

    def _level(self, bucket: str, folder: str) -> Names:
        return [each.object_name or "" for each in self._client.list_objects(bucket, folder)]

    def _delete_batch(self, bucket: str, keys: Names) -> bool:
        """Deletes some objects; tells whether some are left."""
        objects = [DeleteObject(key[len(bucket) + 1 :]) for key in keys]
        return bool(list(self._client.remove_objects(bucket, objects)))

    def _ensure(self, bucket: str) -> None:
        """Makes a bucket unless there is one."""
        try:
            check_bucket_name(bucket, strict=True)
        except ValueError:
            raise StoreDeniedError(
                f"{bucket!r} cannot name a bucket: use 3 to 63 of a-z 0-9 . -, ends being letters or digits.",
                {"bucket": bucket, "code": "InvalidBucketName"},
            ) from None
        if not self._ask("list", bucket, partial(self._has, bucket)):
            self._ask("make", bucket, partial(self._make, bucket))

    def _has(self, bucket: str) -> bool:
        """Lists instead of asking with HEAD, whose answer has no body to say what is wrong."""
        try:
            send(self._client, "GET", bucket, query={"list-type": "2", "max-keys": "1"})
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            return False
        return True

    def _make(self, bucket: str) -> None:
        try:
            self._client.make_bucket(bucket)
        except S3Error as error:
            # Another replica was first. Whether the bucket is ours shows when it is used.
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise


def _place(key: str) -> tuple[str, str]:
    """The bucket and the name in it."""
    check_key(key)
    bucket, _, name = key.partition("/")
    if not name:
        raise ValueError(f"{key!r} is not a key: it must name a bucket and an object in it")
    return bucket, name


def _folder(prefix: str) -> tuple[str, str]:
    """The bucket, and what every name in the folder begins with."""
    check_key(prefix.rstrip("/"))
    bucket, _, name = prefix.rstrip("/").partition("/")
    return bucket, f"{name}/" if name else ""
