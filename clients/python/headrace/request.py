"""The requests of the contract, built from what callers write in Python."""

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack

import grpc
from google.protobuf import duration_pb2, timestamp_pb2

from headrace.backoff import PATIENCE_S, Backoff
from headrace.encoding import Format, encoding_of
from headrace.errors import InvalidArgumentError
from headrace.options import check_options
from headrace.row import NOT_UNICODE, DataType, columns_of, is_unicode, shown
from headrace.source import (
    ArrowData,
    Compression,
    File,
    Rows,
    RowSource,
    Source,
    StreamSource,
    TableSource,
    file_source,
    opened,
)
from headrace.transfer import ValidateTransfer
from headrace.upload import Upload
from headrace.v1 import run_pb2, table_pb2, upload_pb2, validation_pb2

_VALIDATED: tuple[Format, ...] = ("csv", "json_lines")


class UploadOptions(TypedDict, total=False):
    """Options of an upload: what refuses it, and how long it is resumed.

    Attributes:
        policy: `quarantine` (default) keeps bad rows out; with `all_or_nothing`
            one bad row refuses the upload.
        max_rejects: More bad records refuse the upload. 0 = no limit.
        max_reject_ratio: A larger share of bad records, 0.0 to 1.0, refuses it.
        unknown_columns: `ignore` (default) warns of columns outside the contract,
            `reject` fails the upload.
        max_future_skew: How far ahead of now a timestamp may lie. Default 1 day.
        upload_id: A UUID, to resume or repeat an upload. Default a new one.
        patience_s: Seconds without progress after which an upload that broke is
            given up. Default 120; 0 = it is not resumed at all.
    """

    policy: Literal["quarantine", "all_or_nothing"]
    max_rejects: int
    max_reject_ratio: float
    unknown_columns: Literal["ignore", "reject"]
    max_future_skew: timedelta
    upload_id: str
    patience_s: float


class ValidateOptions(TypedDict, total=False):
    """How a validation judges.

    Attributes:
        reject_unknown_columns: Fail on columns outside the contract.
        max_future_skew: How far ahead of now a timestamp may lie. Default 1 day.
    """

    reject_unknown_columns: bool
    max_future_skew: timedelta


class RunOptions(TypedDict, total=False):
    """What a run reads, and whose it is.

    Attributes:
        interactions_version, items_version: Table versions to read. Default the newest.
        known_at: Read what was committed at or before it; naive = UTC. Default the newest.
        request_id: A UUID: the run goes on without this client, and is followed again, or its result
            fetched, by a call with the same id and options. Default: the run ends with the call.
        patience_s: Seconds without progress after which a run with a request_id is no longer followed while
            the server cannot be reached. Default 120; 0 = it is not tried again at all.
    """

    interactions_version: int
    items_version: int
    known_at: datetime
    request_id: str
    patience_s: float


class DriftLimits(TypedDict, total=False):
    """From when on the result of a features run warns that a column has drifted.

    Attributes:
        l_infinity, jensen_shannon: The largest distance that is no drift, 0 to 1. Default any. Neither is for
            user_id, item_id and bucket.
        columns: The same for single columns, by names such as `user_features.avg_rating`.
        baseline_versions: Versions to compare with, by table. Default the versions before.
    """

    l_infinity: float
    jensen_shannon: float
    columns: Mapping[str, float]
    baseline_versions: Mapping[str, int]


class FeaturesOptions(RunOptions, total=False):
    """What features are computed; `describe_features` and run.proto say more.

    Attributes:
        windows: Lengths of the windows before `as_of`, in days. Default 7 and 30.
        weights: Weights of interaction types in engagement_score; those left out keep their defaults.
        half_life_days: After so many days an event adds half as much to engagement_score. Default 30.
        smoothing: How many views the tenant's own rate stands for in the smoothed rates. Default 10.
        drift_limits: When to warn of drift. Default never.
    """

    windows: Sequence[int]
    weights: Mapping[str, float]
    half_life_days: float
    smoothing: float
    drift_limits: DriftLimits


class TemporalSplit(TypedDict, total=False):
    """Divides training data by time: one value gives train and test, two give train, valid and test.

    Attributes:
        cuts: When each split after train begins; naive = UTC.
        fractions: In their place the shares of the positives that are before each, such as 0.8 and 0.9.
    """

    cuts: Sequence[datetime]
    fractions: Sequence[float]


class NegativesOptions(RunOptions, total=False):
    """What training data is made; run.proto says more of every field.

    Attributes:
        dataset: Name of the training set. Default training_data.
        negative_ratio: Distinct negatives for each positive.
        strategy: `popularity` (default), `uniform`, `zipf`, `mixed` or `exposed`. A parameter that it does
            not heed is refused, unless it has its default.
        alpha: Exponent of popularity: the strategy, its share of mixed, and what exposed draws by when it has
            too few. Default 0.75.
        zipf_exponent: Exponent of the rank, of zipf. Default 1.
        uniform_share: Of uniform in mixed, the rest is popularity. Default 0.5.
        available_only: Draws only items that occur by the positive's time, whoever they occur with.
        same_category_share: How likely each draw is from the positive's own category. Default 0.
        seed: Equal inputs and seed give equal tables. Default 0.
        positive_interaction_types: Default click, purchase, like.
        max_interactions_per_user, min_interactions_per_user,
        min_interactions_per_item: The cap and the k-core. 0 = off.
        split: How the set is divided: by time, or each user's last positive is test and the one before it
            valid. Default not at all.
        eval_negative_ratio: The negative_ratio of valid and test.
        with_features: Adds features to each row, of one instant or of the positive's day. Default none.
        feature_columns: Which ones, such as `user_total_interactions`. Default all but lists.
        history: Adds a list of the user's last so many events before the positive. Default none.
        history_interaction_types: Of these types. Default the positive ones.
        history_timestamps: Adds their times too.
        with_indices: Adds the integers of users and items, and the tables `<dataset>_users` and
            `<dataset>_items`. An id keeps its integer in all training sets of the tenant.
    """

    dataset: str
    negative_ratio: int
    strategy: str
    alpha: float
    zipf_exponent: float
    uniform_share: float
    available_only: bool
    same_category_share: float
    seed: int
    positive_interaction_types: Sequence[str]
    max_interactions_per_user: int
    min_interactions_per_user: int
    min_interactions_per_item: int
    split: TemporalSplit | Literal["leave_last_out"]
    eval_negative_ratio: int
    with_features: Literal["snapshot", "point_in_time"]
    feature_columns: Sequence[str]
    history: int
    history_interaction_types: Sequence[str]
    history_timestamps: bool
    with_indices: bool


class ReadOptions(TypedDict, total=False):
    """What is read of a table.

    Attributes:
        version: Version to read. Default the newest.
        columns: Columns, in this order. Default all.
        limit: At most this many rows. 0 = no limit.
        offset: Rows to skip before the first one. Default 0.
        split: Only rows of this split of a training set; offset and limit count them alone. Default all.
    """

    version: int
    columns: Sequence[str]
    limit: int
    offset: int
    split: str


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
) -> tuple[Upload, TableSource]:
    """The upload of a table, and the source that encodes it.

    Raises:
        TypeError: The table does not speak Arrow.
        BadDataError: A column of the contract, of a frame, cannot be converted to Arrow.
    """
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
        upload_id=options.get("upload_id") or str(uuid.uuid4()),
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


def _choice(enum: Any, prefix: str, option: str, value: str) -> Any:
    """The enum's number for a word."""
    words = (value.name for value in enum.DESCRIPTOR.values if value.number)
    names = {name.removeprefix(f"{prefix}_").lower(): name for name in words}
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


def sample_request(
    data_type: DataType, rows: Iterable[Mapping[str, Any]]
) -> validation_pb2.ValidateSampleRequest:
    """The request that validates a few rows as JSON objects.

    Raises:
        ValueError: JSON does not know a value; the message names row and column.
    """
    request = validation_pb2.ValidateSampleRequest(data_type=data_type)
    for number, row in enumerate(rows):
        fields = request.sample_data.add()
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
    return request


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
