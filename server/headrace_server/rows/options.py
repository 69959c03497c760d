"""The options of an upload: a validated UploadHeader."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from headrace.v1 import upload_pb2
from headrace_compute.model import Compression, DataType, StreamFormat
from headrace_server.rpc import requests

FORMATS: dict[int, StreamFormat] = {
    upload_pb2.FORMAT_UNSPECIFIED: "csv",
    upload_pb2.FORMAT_CSV: "csv",
    upload_pb2.FORMAT_JSON_LINES: "json_lines",
    upload_pb2.FORMAT_ROWS: "rows",
    upload_pb2.FORMAT_ARROW_IPC: "arrow_ipc",
    upload_pb2.FORMAT_PARQUET: "parquet",
}

COMPRESSIONS: dict[int, Compression] = {
    upload_pb2.COMPRESSION_UNSPECIFIED: "none",
    upload_pb2.COMPRESSION_NONE: "none",
    upload_pb2.COMPRESSION_GZIP: "gzip",
    upload_pb2.COMPRESSION_ZSTD: "zstd",
}


@dataclass(frozen=True)
class UploadOptions:
    """The choices of a header, with defaults filled in; equal headers make equal options.

    Attributes:
        max_rejects: Bad records allowed; 0 = no limit.
        max_reject_ratio: Share of bad records allowed; None = no limit.
        skew_us: How far after the upload's start a timestamp may lie.
    """

    tenant: str
    data_type: DataType
    format: StreamFormat
    all_or_nothing: bool = False
    max_rejects: int = 0
    max_reject_ratio: float | None = None
    reject_unknown: bool = False
    skew_us: int = requests.DEFAULT_SKEW_US
    compression: Compression = "none"

    @property
    def staged(self) -> bool:
        """Whether the stream must be whole before records can be found in it."""
        return self.compression != "none" or self.format in ("arrow_ipc", "parquet")

    @classmethod
    def from_header(cls, header: upload_pb2.UploadHeader) -> Self:
        """Checks a header.

        Raises:
            InvalidFieldError: A field has a value it must not have.
        """
        tenant = requests.check_tenant(header.tenant_id)
        data_type = requests.check_data_type(header.data_type)
        requests.check_enum("format", upload_pb2.Format, header.format)
        requests.check_enum("compression", upload_pb2.Compression, header.compression)
        compression = COMPRESSIONS[header.compression]
        if compression != "none" and FORMATS[header.format] not in ("csv", "json_lines"):
            raise requests.invalid(
                "compression",
                f"Field compression is {compression}, which only CSV and JSON lines take; leave it out, "
                "Arrow and Parquet compress their own buffers.",
            )
        ratio = header.max_reject_ratio if header.HasField("max_reject_ratio") else None
        if ratio is not None and not 0.0 <= ratio <= 1.0:
            raise requests.invalid(
                "max_reject_ratio", f"Field max_reject_ratio is {ratio}; it must be 0.0 to 1.0."
            )
        requests.check_enum("policy", upload_pb2.Policy, header.policy)
        requests.check_enum("unknown_columns", upload_pb2.UnknownColumns, header.unknown_columns)
        skew = header.max_future_skew if header.HasField("max_future_skew") else None
        return cls(
            tenant=tenant,
            data_type=data_type,
            format=FORMATS[header.format],
            all_or_nothing=header.policy == upload_pb2.POLICY_ALL_OR_NOTHING,
            max_rejects=header.max_rejects,
            max_reject_ratio=ratio,
            reject_unknown=header.unknown_columns == upload_pb2.UNKNOWN_COLUMNS_REJECT,
            skew_us=requests.skew_us("max_future_skew", skew),
            compression=compression,
        )

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The options of a session's open record."""
        return cls(**body)

    def to_json(self) -> dict[str, Any]:
        """For the session's open record; as sessions of 0.1.0 have it where nothing is compressed."""
        body = asdict(self)
        if self.compression == "none":
            del body["compression"]
        return body

    def to_header(self, upload_id: str) -> upload_pb2.UploadHeader:
        """The header again, with its defaults filled in."""
        header = upload_pb2.UploadHeader(
            tenant_id=self.tenant,
            data_type=self.data_type,
            format=upload_pb2.Format.Value(f"FORMAT_{self.format.upper()}"),
            compression=upload_pb2.Compression.Value(f"COMPRESSION_{self.compression.upper()}"),
            upload_id=upload_id,
            policy=upload_pb2.POLICY_ALL_OR_NOTHING if self.all_or_nothing else upload_pb2.POLICY_QUARANTINE,
            max_rejects=self.max_rejects,
            max_reject_ratio=self.max_reject_ratio,
            unknown_columns=(
                upload_pb2.UNKNOWN_COLUMNS_REJECT
                if self.reject_unknown
                else upload_pb2.UNKNOWN_COLUMNS_IGNORE
            ),
        )
        header.max_future_skew.FromMicroseconds(self.skew_us)
        return header

    def refusal(self, received: int, bad: int) -> str:
        """Why so many bad records refuse the upload; empty if they do not.

        Args:
            received: Records received.
            bad: Records that broke a rule, duplicates not counted.
        """
        if bad == 0:
            return ""
        if self.all_or_nothing:
            return f"{bad:,} of {received:,} records break the contract and the policy is ALL_OR_NOTHING."
        if self.max_rejects and bad > self.max_rejects:
            return f"{bad:,} records break the contract, more than max_rejects {self.max_rejects:,}."
        if self.max_reject_ratio is not None and bad > self.max_reject_ratio * received:
            share = bad / received
            return (
                f"{bad:,} of {received:,} records ({share:.2%}) break the contract, "
                f"more than max_reject_ratio {self.max_reject_ratio:g}."
            )
        return ""
