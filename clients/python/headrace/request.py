"""The requests of the contract, built from what callers write in Python."""

import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Unpack

import grpc
from google.protobuf import duration_pb2, timestamp_pb2

from headrace.backoff import PATIENCE_S, Backoff
from headrace.encoding import Format, encoding_of
from headrace.errors import InvalidArgumentError
from headrace.options import (
    FeaturesOptions,
    NegativesOptions,
    ReadOptions,
    RunOptions,
    TemporalSplit,
    UploadOptions,
    ValidateOptions,
    check_options,
)
from headrace.row import NOT_UNICODE, DataType, columns_of, is_unicode, shown
from headrace.source import (
    ArrowData,
    Compression,
    File,
    Rows,
    RowSource,
    Source,
    StreamSource,
    file_source,
    opened,
)
from headrace.transfer import ValidateTransfer
from headrace.upload import Upload
from headrace.v1 import ingest_pb2, run_pb2, table_pb2, upload_pb2, validation_pb2

if TYPE_CHECKING:
    from headrace.source.table import TableSource

PAGE_SIZE = 100
"""The most that the server puts into a page."""

_VALIDATED: tuple[Format, ...] = ("csv", "json_lines")


def file_upload(
    tenant: str,
    data_type: DataType,
    file: File,
    format: Format | None,
    compression: Compression | None,
    **options: Unpack[UploadOptions],
) -> tuple[Upload, Source]:
    """The upload of a file, and the source of its content.

    Raises:
        OSError: The file cannot be read.
        TypeError: It is no file.
        ValueError: It is one JSON array.
    """
    _check_is_file(file)
    format, compression = encoding_of(file, format, compression)
    header = _upload_header(tenant, data_type, format, **options)
    if compression != "none":
        header.compression = _choice(upload_pb2.Compression, "COMPRESSION", "compression", compression)
    source = file_source(file)
    header.expected_bytes = source.total
    return _upload(header, source, options), source


def rows_upload(
    tenant: str, data_type: DataType, rows: Rows, **options: Unpack[UploadOptions]
) -> tuple[Upload, RowSource]:
    """The upload of rows, and the source that gives them."""
    source = RowSource(data_type, rows, reject_unknown=options.get("unknown_columns") == "reject")
    header = _upload_header(tenant, data_type, "rows", **options)
    header.expected_rows = source.total
    return _upload(header, source, options), source


def table_upload(
    tenant: str, data_type: DataType, table: ArrowData, **options: Unpack[UploadOptions]
) -> "tuple[Upload, TableSource]":
    """The upload of a table, and the source that encodes it.

    Raises:
        TypeError: The table does not speak Arrow.
        BadDataError: A column of the contract, of a frame, cannot be converted to Arrow.
        MissingExtraError: There is no pyarrow.
    """
    from headrace.source.table import TableSource

    source = TableSource(table, columns_of(data_type))
    header = _upload_header(tenant, data_type, "arrow_ipc", **options)
    header.expected_rows, header.expected_bytes = source.rows, source.total
    return _upload(header, source, options), source


def _upload(header: upload_pb2.UploadHeader, source: Source, options: UploadOptions) -> Upload:
    return Upload(header, source.total, backoff=Backoff(options.get("patience_s", PATIENCE_S)))


def _check_is_file(file: File) -> None:
    if not isinstance(file, str | os.PathLike) and not hasattr(file, "read"):
        raise TypeError(
            f"Expected a file, got a {type(file).__name__}; give a path or a file open for reading bytes;"
            " tables and frames are for upload_table, rows for upload_rows."
        )


def _upload_header(
    tenant: str, data_type: DataType, format: Format | Literal["rows"], **options: Unpack[UploadOptions]
) -> upload_pb2.UploadHeader:
    check_options(options, UploadOptions)
    return upload_pb2.UploadHeader(
        tenant_id=tenant,
        data_type=data_type,
        format=_choice(upload_pb2.Format, "FORMAT", "format", format),
        # Chosen here, so that an upload whose first answer is lost can be found.
        upload_id=id_or_new(options.get("upload_id", "")),
        policy=_choice(upload_pb2.Policy, "POLICY", "policy", options.get("policy", "quarantine")),
        max_rejects=options.get("max_rejects", 0),
        max_reject_ratio=options.get("max_reject_ratio"),
        unknown_columns=_choice(
            upload_pb2.UnknownColumns,
            "UNKNOWN_COLUMNS",
            "unknown_columns",
            options.get("unknown_columns", "ignore"),
        ),
        max_future_skew=_duration(options.get("max_future_skew")),
    )


def _choice(enum: Any, prefix: str, option: str, value: str | Enum) -> Any:
    """The enum's number for a word, or for a member of `headrace.enums`."""
    words = (value.name for value in enum.DESCRIPTOR.values if value.number)
    names = {name.removeprefix(f"{prefix}_").lower(): name for name in words}
    value = value.name if isinstance(value, Enum) else value
    if str(value).lower() not in names:
        raise ValueError(f"Option {option} is {value!r}; expected one of {', '.join(sorted(names))}.")
    return enum.Value(names[str(value).lower()])


def file_validation(
    data_type: DataType, file: File, format: Format | None, **options: Unpack[ValidateOptions]
) -> tuple[ValidateTransfer, Source]:
    """The validation of a file, and the source of its content; a compressed one is decompressed here.

    Raises:
        OSError: The file cannot be read.
        TypeError: It is no file.
        ValueError: The format cannot be validated, or the file is one JSON array.
    """
    _check_is_file(file)
    format, compression = encoding_of(file, format)
    if format not in _VALIDATED:
        known = " and ".join(_VALIDATED)
        raise ValueError(f"Files of format {format} cannot be validated; {known} can.")
    source = file_source(file) if compression == "none" else StreamSource(opened(file, compression))
    header = _validate_header(data_type, **options)
    header.format = _choice(validation_pb2.ValidateFormat, "VALIDATE_FORMAT", "format", format)
    return ValidateTransfer(header, source.total), source


def rows_validation(
    data_type: DataType, rows: Rows, **options: Unpack[ValidateOptions]
) -> tuple[ValidateTransfer, RowSource]:
    """The validation of rows, and the source that gives them."""
    source = RowSource(data_type, rows, reject_unknown=options.get("reject_unknown_columns", False))
    return ValidateTransfer(_validate_header(data_type, **options), source.total), source


def _validate_header(
    data_type: DataType, **options: Unpack[ValidateOptions]
) -> validation_pb2.ValidateHeader:
    check_options(options, ValidateOptions)
    return validation_pb2.ValidateHeader(
        data_type=data_type,
        reject_unknown_columns=options.get("reject_unknown_columns", False),
        max_future_skew=_duration(options.get("max_future_skew")),
    )


def features_request(
    tenant: str, as_of: datetime | None, **options: Unpack[FeaturesOptions]
) -> run_pb2.ComputeFeaturesRequest:
    """The request of a features run; `as_of` None = just after the newest event, naive = UTC."""
    return run_pb2.ComputeFeaturesRequest(
        tenant_id=tenant, as_of=_timestamp("as_of", as_of), **_fields(options)
    )


def negatives_request(
    tenant: str, as_of: datetime | None, **options: Unpack[NegativesOptions]
) -> run_pb2.SampleNegativesRequest:
    """The request of a sampling run; `as_of` None = just after the newest event, naive = UTC."""
    fields = _fields(options)
    if (split := options.get("split")) is not None:
        fields["split"] = _split(split)
    return run_pb2.SampleNegativesRequest(tenant_id=tenant, as_of=_timestamp("as_of", as_of), **fields)


def _split(split: TemporalSplit | Literal["leave_last_out"]) -> run_pb2.Split:
    if split == "leave_last_out":
        return run_pb2.Split(leave_last_out=run_pb2.LeaveLastOutSplit())
    if isinstance(split, str):
        raise InvalidArgumentError(f"Unknown split {split!r}; expected 'leave_last_out', cuts or fractions.")
    check_options(split, TemporalSplit)
    cuts = [_timestamp("cuts", cut) for cut in split.get("cuts", ())]
    return run_pb2.Split(
        temporal=run_pb2.TemporalSplit(cuts=filter(None, cuts), fractions=split.get("fractions", ()))
    )


def _fields(options: RunOptions) -> dict[str, Any]:
    """The fields of a run's request that options stand for."""
    fields: dict[str, Any] = {**options, "known_at": _timestamp("known_at", options.get("known_at"))}
    fields.pop("patience_s", None)
    return fields


def run_backoff(options: RunOptions) -> Backoff | None:
    """How a run is tried again when the server cannot be reached; None if it ends with its call."""
    if not options.get("request_id"):
        return None
    return Backoff(options.get("patience_s", PATIENCE_S))


def id_or_new(request_id: str) -> str:
    """The id of a call, its own unless one is given: a call with it that is repeated stores nothing twice."""
    return request_id or str(uuid.uuid4())


def page_size(left: int) -> int:
    """How many elements of a list to ask for, of so many that are wanted; 0 = as many as a page holds."""
    return min(max(left, 0), PAGE_SIZE)


def sample_request(
    data_type: DataType, rows: Iterable[Mapping[str, Any]]
) -> validation_pb2.ValidateSampleRequest:
    """The request that validates a few rows as JSON objects.

    Raises:
        ValueError: JSON does not know a value; the message names row and column.
    """
    question = validation_pb2.ValidateSampleRequest(data_type=data_type)
    _add_objects(question.sample_data, rows)
    return question


def ingest_rows_request(
    tenant: str, data_type: DataType, rows: Iterable[Mapping[str, Any]], request_id: str
) -> ingest_pb2.IngestRowsRequest:
    """The request that stores a few rows as JSON objects; raises as `sample_request`."""
    question = ingest_pb2.IngestRowsRequest(
        tenant_id=tenant, data_type=data_type, request_id=id_or_new(request_id)
    )
    _add_objects(question.rows, rows)
    return question


def _add_objects(objects: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    for number, row in enumerate(rows):
        fields = objects.add()
        for name, value in dict(row).items():
            try:
                fields.update({name: value})
            except (TypeError, ValueError, RecursionError) as error:
                if isinstance(value, str) and not is_unicode(value):
                    raise ValueError(f"Row {number}: {name} is {shown(value)}; {NOT_UNICODE}.") from error
                raise ValueError(
                    f"Row {number}: {name} is a {type(value).__name__} that JSON does not know; give a str, "
                    "a number, a bool, None, or lists and dicts of these."
                ) from error


def read_request(tenant: str, table: str, **options: Unpack[ReadOptions]) -> table_pb2.ReadTableRequest:
    """The request of a read, as Arrow."""
    return table_pb2.ReadTableRequest(
        tenant_id=tenant, table=table, encoding=table_pb2.ROW_ENCODING_ARROW_IPC, **options
    )


def _timestamp(field: str, moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    """A moment as a message.

    Raises:
        InvalidArgumentError: In UTC it lies outside the years 1 to 9999.
    """
    if moment is None:
        return None
    timestamp = timestamp_pb2.Timestamp()
    try:
        timestamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (OverflowError, ValueError):
        raise InvalidArgumentError(
            f"Field {field} is {moment.isoformat()}; in UTC it must lie between the years 1 and 9999.",
            reason="INVALID_FIELD",
            code=grpc.StatusCode.INVALID_ARGUMENT,
            metadata={"field": field},
        ) from None
    return timestamp


def _duration(length: timedelta | None) -> duration_pb2.Duration | None:
    if length is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromTimedelta(length)
    return duration
