"""The value types of the pipeline: frozen, and picklable across process boundaries.

Units are last in names: `_us` microseconds since the epoch, `_bytes` bytes.
Keys name objects in the store as `{bucket}/{path}`; they never start with `/`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal
from urllib.parse import urlsplit

BUCKETS = 1024
"""User (or item) buckets: `bucket = xxh64(user_id) mod 1024`."""

ROW_GROUP_ROWS = 16_384
"""Rows of a Parquet row group: small enough that a shard reads little it does not need."""

BATCH_ROWS = 1_000_000
"""Rows of a batch, unless there would be more than BATCHES."""

BATCHES = 64
"""Batches that a version is read in at most."""

FILE_COST_ROWS = 1_000
"""Opening a file takes as long as reading so many rows."""

MAX_RECORD_BYTES = 1 << 20
"""A CSV record or a JSON line above this fails the upload."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""Tenant and dataset names, to be matched in full."""

DataType = Literal["interactions", "items"]
Kind = Literal[
    "interactions",
    "items",
    "rejects",
    "user_features",
    "item_features",
    "feature_statistics",
    "user_vocabulary",
    "item_vocabulary",
    "dataset_users",
    "dataset_items",
    "training_data",
]
BlockFormat = Literal["csv", "json_lines", "rows", "arrow"]
StreamFormat = Literal["csv", "json_lines", "rows", "arrow_ipc", "parquet"]
Compression = Literal["none", "gzip", "zstd"]


@dataclass(frozen=True)
class S3Config:
    """An S3 store and how to speak to it. Picklable; its repr shows no credentials.

    Attributes:
        endpoint: `http://host:port` or `https://host:port`; buckets are part of the path.
        region: What requests are signed for.
        ca_file: PEM file of the authorities to trust over https; empty for the system's.

    Raises:
        ValueError: the endpoint is no such URL, or holds credentials.
    """

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    ca_file: str = ""

    def __post_init__(self) -> None:
        """Checks the endpoint, without repeating one that may hold a password."""
        url = urlsplit(self.endpoint)
        if "@" in url.netloc:
            raise ValueError("The S3 endpoint must not hold credentials; give the keys by themselves.")
        if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/") or url.query:
            raise ValueError(
                f"{self.endpoint!r} is not an S3 endpoint; write http://host:port or https://host:port."
            )


@dataclass(frozen=True)
class StoreConfig:
    """Where objects live. Picklable: workers open their own store from it.

    Attributes:
        root: Absolute path of the data folder, which holds the objects unless `s3` is given.
        raw, processed, training, features: Bucket names: folders below root, or buckets of the S3 store.
        s3: The S3 store, if objects live in one.
    """

    root: str
    raw: str = "raw-data"
    processed: str = "processed-data"
    training: str = "training-data"
    features: str = "features"
    s3: S3Config | None = None

    @property
    def buckets(self) -> tuple[str, ...]:
        """The buckets by name, each once."""
        return tuple(dict.fromkeys((self.raw, self.processed, self.training, self.features)))


@dataclass(frozen=True)
class UploadSpec:
    """What every block of one upload shares.

    Attributes:
        part_prefix: Key prefix of data parts, e.g. `raw-data/acme/interactions/`.
        rejects_prefix: Key prefix of reject parts.
        sidecar_prefix: Key prefix of sidecars, inside the upload's session folder.
        started_us: The upload's start; every row's `ingested_at`.
        latest_us: Timestamps later than this are FUTURE_TIMESTAMP.
        columns: Names of the stream's columns: the CSV header as sent, or an Arrow schema's; empty
            for rows and JSON lines.
        reject_unknown: Whether a key outside the contract fails a stream of JSON lines; of other streams
            the columns are known, and checked, before any block.
    """

    upload_id: str
    data_type: DataType
    part_prefix: str
    rejects_prefix: str
    sidecar_prefix: str
    started_us: int
    latest_us: int
    columns: tuple[str, ...] = ()
    reject_unknown: bool = False


@dataclass(frozen=True)
class Block:
    """Some whole records of a stream: the unit of work.

    Attributes:
        index: 0-based place in the upload.
        offset, end_offset: Stream offsets it covers: bytes of the decompressed stream for csv and
            json_lines, rows for the others.
        first_row: row_number of its first record.
        rows: Records in it (blank lines are not records).
        first_line: 1-based line of its first byte; 0 where there are no lines.
    """

    index: int
    format: BlockFormat
    offset: int
    end_offset: int
    first_row: int
    rows: int
    first_line: int


@dataclass(frozen=True)
class StagedObject:
    """A piece of a stream as it was sent, kept in the store until the stream is decoded.

    Attributes:
        offset, end_offset: Stream offsets it covers.
        checksum: xxh128 of its bytes, hex.
        crc32c: CRC-32C of the stream up to its end.
    """

    key: str
    offset: int
    end_offset: int
    checksum: str
    crc32c: int


@dataclass(frozen=True)
class StagedSource:
    """A whole stream in the store, and how to make blocks of it.

    Attributes:
        objects: Its pieces in order, without gaps.
        reject_unknown: Whether columns outside the contract fail the stream.
        block_bytes: Decoded bytes that a block should have.
    """

    format: StreamFormat
    compression: Compression
    data_type: DataType
    objects: tuple[StagedObject, ...]
    reject_unknown: bool
    block_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the stream as it was sent."""
        return self.objects[-1].end_offset if self.objects else 0


@dataclass(frozen=True)
class Position:
    """Where a block begins.

    Attributes:
        index: The block's place in the upload.
        offset: Offset in the decompressed stream; rows where there are no bytes.
        row: row_number of its first record.
        line: 1-based line of its first byte; 0 where there are no lines.
    """

    index: int = 0
    offset: int = 0
    row: int = 0
    line: int = 0


@dataclass(frozen=True)
class ColumnStats:
    """Exact bounds of one column of a part, for the Delta log; None = all null."""

    minimum: str | int | float | None
    maximum: str | int | float | None
    nulls: int


@dataclass(frozen=True)
class Part:
    """One Parquet file in the store.

    Attributes:
        key: Its object key.
        checksum: xxh128 of the file's bytes, hex.
        stats: Column name -> bounds; timestamps as microseconds.
    """

    key: str
    rows: int
    size_bytes: int
    checksum: str
    stats: dict[str, ColumnStats] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFile:
    """One file of a table version.

    Attributes:
        partition: Value of each partition column; the file itself lacks these columns.
        split: The split that all rows of a part of training data are in; None if there is no such split.
    """

    key: str
    rows: int
    size_bytes: int
    partition: dict[str, bool | int | str | None] = field(default_factory=dict)
    split: str | None = None


@dataclass(frozen=True)
class Piece:
    """Rows of a file that follow each other, all in one row group.

    Attributes:
        group: Which row group.
        first: The first of its rows, from 0.
        rows: How many, 1 or more.
    """

    file: DataFile
    group: int
    first: int
    rows: int


@dataclass(frozen=True)
class Snapshot:
    """One version of a table.

    Attributes:
        table_key: e.g. `raw-data/acme/interactions`.
        committed_us: When the version was committed, by the committer's clock.
        metadata: Commit metadata of the version's own commit (`headrace.*` keys).
        writer_version: Which Delta writers the table asks for.
    """

    table_key: str
    uri: str
    kind: str
    version: int
    files: tuple[DataFile, ...]
    committed_us: int
    metadata: dict[str, str]
    writer_version: int = 2

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def split_rows(self) -> dict[str, int]:
        """Rows of each split, in the order of the files; empty without splits."""
        rows: dict[str, int] = {}
        for file in self.files:
            if file.split is not None:
                rows[file.split] = rows.get(file.split, 0) + file.rows
        return rows


@dataclass(frozen=True)
class Shard:
    """A range of buckets, `first <= bucket < last`: one worker's share."""

    first: int
    last: int


@dataclass(frozen=True)
class Batch:
    """Some whole files of a version, which one stage reads.

    Attributes:
        number: Its place among the batches of the version.
    """

    number: int
    files: tuple[DataFile, ...]


def batch_plan(files: Sequence[DataFile]) -> tuple[Batch, ...]:
    """Cuts the files of a version into batches of about a million rows each, and no more than BATCHES.

    So the slices of all batches for all shards are as many as there are shards, times BATCHES at most.
    """
    costs = [file.rows + FILE_COST_ROWS for file in files]
    share = max(BATCH_ROWS, -(-sum(costs) // BATCHES))
    batches: list[list[DataFile]] = []
    room = 0
    for file, cost in zip(files, costs, strict=True):
        if room <= 0:
            batches.append([])
            room = share
        batches[-1].append(file)
        room -= cost
    return tuple(Batch(number, tuple(some)) for number, some in enumerate(batches))


def shard_plan(rows: int, rows_per_shard: int = 1_000_000, minimum: int = 2) -> tuple[Shard, ...]:
    """Cuts the buckets into equal ranges. Depends on the data alone, never on the machine."""
    count = max(minimum, min(BUCKETS, -(-rows // rows_per_shard)))
    edges = [BUCKETS * i // count for i in range(count + 1)]
    return tuple(Shard(first, last) for first, last in pairwise(edges))
