"""What a request may hold, checked while it is still bytes: decoding one costs many times its size.

gRPC itself refuses messages above 16 MiB, once decompressed. Most methods need a fraction of that, and
16 MiB of empty rows become a gigabyte of objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.v1 import ingest_pb2, pipeline_service_pb2, upload_pb2, validation_pb2
from headrace_compute.errors import MessageTooLargeError
from headrace_compute.kernels.wire import count_objects, count_values
from headrace_server.rpc.requests import invalid

MAX_MESSAGE_BYTES = 16 << 20
"""Limit on any message; gRPC refuses larger ones."""

MAX_CHUNK_BYTES = 8 << 20
"""Limit on the content of a chunk."""

MAX_CHUNK_ROWS = 100_000
"""Limit on the rows of a chunk."""

MAX_INGEST_ROWS = 10_000
"""Limit on the rows of a small ingest."""

MAX_SAMPLE_ROWS = 10_000
"""Limit on the objects of ValidateSample."""

_QUESTION_BYTES = 64 << 10
"""Limit on a message without rows, which has names, ids and options."""

_OBJECTS_BYTES = 4 << 20
"""Limit on a message of JSON objects, which take twenty times their size in memory."""

_OVERHEAD_BYTES = 64 << 10
"""Room in a message for what stands beside a chunk's content."""

_OBJECT_KEYS = 1_000
_OBJECT_VALUES = 200_000
"""Limits on the keys of one JSON object, and on the values of all in a message, with those within."""

_VALUE_BYTES = 2
"""Bytes of a value that says nothing."""

_ROW_BYTES = 2
"""Bytes of an empty row: a tag, and a length of zero."""


@dataclass(frozen=True)
class RowLimit:
    """The most rows of a repeated field.

    Attributes:
        field: Its name, as errors tell it.
        path: The field numbers that lead to it.
        remedy: What to do with more.
    """

    field: str
    path: tuple[int, ...]
    rows: int
    remedy: str

    def check(self, data: bytes) -> None:
        """Raises InvalidFieldError for a message that has more."""
        if len(data) <= self.rows * _ROW_BYTES:
            return
        if count_values(data, self.path, self.rows).values > self.rows:
            raise invalid(
                self.field, f"Field {self.field} has more than {self.rows:,} rows, the most; {self.remedy}."
            )


@dataclass(frozen=True)
class ByteLimit:
    """The most bytes of a field that is a message; otherwise as RowLimit."""

    field: str
    path: tuple[int, ...]
    size_bytes: int

    def check(self, data: bytes) -> None:
        """Raises InvalidFieldError for a message that has more."""
        if len(data) <= self.size_bytes:
            return
        found = count_values(data, self.path, len(data)).size_bytes
        if found > self.size_bytes:
            raise invalid(
                self.field, f"Field {self.field} has {found:,} bytes; send at most {self.size_bytes:,}."
            )


@dataclass(frozen=True)
class ObjectLimit:
    """The most keys of a JSON object of a field, and the most values of all; otherwise as RowLimit.

    A map of 300,000 keys takes most of a second to decode, in which the event loop serves nobody; each value
    costs Python a microsecond.
    """

    field: str
    path: tuple[int, ...]
    keys: int
    values: int

    def check(self, data: bytes) -> None:
        """Raises InvalidFieldError for a message that has more."""
        if len(data) <= self.keys * _VALUE_BYTES:
            return
        (number,) = self.path
        found = count_objects(data, number, self.keys, self.values)
        if found.keys > self.keys:
            raise invalid(
                self.field,
                f"Field {self.field} has an object with more than {self.keys:,} keys; send columns alone.",
            )
        if found.values > self.values:
            raise invalid(
                self.field,
                f"The objects of field {self.field} hold more than {self.values:,} values; send fewer.",
            )


@dataclass(frozen=True)
class Bound:
    """What a request of one method may hold.

    Attributes:
        size_bytes: The most bytes of a message.
        fields: Limits on single fields.
    """

    size_bytes: int = _QUESTION_BYTES
    fields: tuple[RowLimit | ByteLimit | ObjectLimit, ...] = ()

    def check(self, method: str, data: bytes) -> None:
        """Refuses an encoded message that holds too much.

        Raises:
            MessageTooLargeError: It has too many bytes.
            InvalidFieldError: A field has too many rows or bytes.
        """
        if len(data) > self.size_bytes:
            raise MessageTooLargeError(
                f"The request has {len(data):,} bytes, and {method} takes {self.size_bytes:,} at most; "
                "send less in one message.",
                {"method": method, "size_bytes": str(len(data)), "limit_bytes": str(self.size_bytes)},
            )
        for field in self.fields:
            field.check(data)


def bound_of(method: str) -> Bound:
    """What the requests of a method may hold.

    Args:
        method: Its full name, as gRPC has it.
    """
    return _BOUNDS.get(method, _QUESTION)


def _path(message: Any, *names: str) -> tuple[int, ...]:
    """Field numbers along names, from a message's descriptor down."""
    numbers = []
    for name in names:
        field = message.fields_by_name[name]
        numbers.append(field.number)
        message = field.message_type
    return tuple(numbers)


def _ingest(message: Any) -> Bound:
    rows = RowLimit("rows", _path(message, "rows"), MAX_INGEST_ROWS, "send more as a stream")
    return Bound(MAX_MESSAGE_BYTES, (rows,))


def _stream(message: Any) -> Bound:
    smaller = "send smaller chunks"
    content = ByteLimit("chunk.rows", _path(message, "chunk", "rows"), MAX_CHUNK_BYTES)
    rows = (
        RowLimit(f"chunk.rows.{name}", _path(message, "chunk", "rows", name), MAX_CHUNK_ROWS, smaller)
        for name in ("interactions", "items")
    )
    return Bound(MAX_CHUNK_BYTES + _OVERHEAD_BYTES, (content, *rows))


def _objects(message: Any, field: str, rows: int) -> Bound:
    path = _path(message, field)
    limits = (
        RowLimit(field, path, rows, "send more as a stream"),
        ObjectLimit(field, path, _OBJECT_KEYS, _OBJECT_VALUES),
    )
    return Bound(_OBJECTS_BYTES, limits)


_QUESTION = Bound()
_SERVICE = pipeline_service_pb2.DESCRIPTOR.services_by_name["PipelineService"].full_name
_BOUNDS: Mapping[str, Bound] = {
    f"/{_SERVICE}/{name}": bound
    for name, bound in {
        "IngestInteractions": _ingest(ingest_pb2.IngestInteractionsRequest.DESCRIPTOR),
        "IngestItems": _ingest(ingest_pb2.IngestItemsRequest.DESCRIPTOR),
        "IngestRows": _objects(ingest_pb2.IngestRowsRequest.DESCRIPTOR, "rows", MAX_INGEST_ROWS),
        "Upload": _stream(upload_pb2.UploadRequest.DESCRIPTOR),
        "Validate": _stream(validation_pb2.ValidateRequest.DESCRIPTOR),
        "ValidateSample": _objects(
            validation_pb2.ValidateSampleRequest.DESCRIPTOR, "sample_data", MAX_SAMPLE_ROWS
        ),
    }.items()
}
