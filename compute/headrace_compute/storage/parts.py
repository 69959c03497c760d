"""Parts: Parquet files in the store, written once and read by row group.

Parts of clustered tables are sorted by `bucket`; the statistics of their small
row groups then tell a shard which few of them to read.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from headrace_compute.errors import PartLostError, StoreUnavailableError
from headrace_compute.model import ROW_GROUP_ROWS, ColumnStats, DataFile, Part, Shard
from headrace_compute.storage.store import KeyExistsError, KeyMissingError, ObjectStore

BUCKET = "bucket"

RARE = 1 / 3
"""Different texts of a row group, as a share of its rows, above which they have no dictionary."""

ANEW = "Upload its rows anew, under another id."


def write_part(store: ObjectStore, key: str, table: pa.Table, *, stats: Sequence[str] = ()) -> Part:
    """Writes a table as one part; equal rows give equal bytes, however the table is chunked.

    Dictionary columns are stored as their values: the file has the plain schema.

    Args:
        store: Where it goes.
        key: Under which key.
        table: Its rows.
        stats: Columns whose exact bounds go into the part.

    Raises:
        KeyExistsError: the key holds other bytes. The same bytes are no error, so a
            repeated task may write its part again.
    """
    table = _decoded(table).combine_chunks()
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP_ROWS,
        store_schema=False,
        **_encodings(table),
    )
    data = sink.getvalue()
    try:
        store.create(key, data)
    except KeyExistsError:
        if store.get(key) != data:
            raise
    return Part(
        key=key,
        rows=table.num_rows,
        size_bytes=data.size,
        checksum=xxhash.xxh128_hexdigest(data),
        stats={name: _column_stats(table.column(name)) for name in stats},
    )


def read_part(store: ObjectStore, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a whole part, or some of its columns in the order given.

    Raises:
        PartLostError: the part is not there, or is not Parquet.
        StoreUnavailableError: it cannot be read.
    """
    with _opened(store, key) as file:
        return _select(file.read(columns=_names(columns)), columns)


def part_row_groups(store: ObjectStore, key: str) -> int:
    """The number of row groups of a part."""
    with _opened(store, key) as file:
        return int(file.num_row_groups)


def part_rows(store: ObjectStore, key: str) -> int:
    """The number of rows of a part, from its footer."""
    with _opened(store, key) as file:
        return int(file.metadata.num_rows)


def newest_us(store: ObjectStore, key: str, column: str) -> int | None:
    """The newest value of a timestamp("us") column, from the footer if it tells; None if all are null."""
    with _opened(store, key) as file:
        place = file.metadata.schema.names.index(column)
        groups = [file.metadata.row_group(index).column(place) for index in range(file.num_row_groups)]
        if all(group.is_stats_set and group.statistics.has_min_max for group in groups):
            return max((int(group.statistics.max_raw) for group in groups), default=None)
        newest = pc.max(file.read(columns=[column])[column].cast(pa.int64())).as_py()
        return None if newest is None else int(newest)


def read_row_groups(
    store: ObjectStore, key: str, groups: Sequence[int], columns: Sequence[str] | None = None
) -> pa.Table:
    """Reads some row groups of a part, in the order given."""
    with _opened(store, key) as file:
        return _select(file.read_row_groups(list(groups), columns=_names(columns)), columns)


def read_buckets(
    store: ObjectStore,
    files: Sequence[DataFile],
    shard: Shard,
    columns: Sequence[str],
    *,
    dictionary: Sequence[str] = (),
) -> pa.Table:
    """Reads the rows of a shard: of each file only the row groups that may hold some.

    Args:
        store: Where the files are.
        files: Files with a `bucket` column.
        shard: The buckets wanted.
        columns: Columns of the result; `bucket` is read in any case and need not be among them.
        dictionary: String columns to leave dictionary-encoded, which is faster to read and smaller;
            each chunk of them has a dictionary of its own.

    Returns:
        The rows in file order. Without files there is no schema: columns of type null.
    """
    pieces = [_read_shard(store, file.key, shard, columns, dictionary) for file in files]
    if not pieces:
        return pa.table({name: pa.nulls(0) for name in columns})
    return pa.concat_tables(pieces)


def verify_part(store: ObjectStore, part: Part) -> None:
    """Checks that the store holds exactly the part that was written.

    Raises:
        PartLostError: it is gone, or its size, rows or checksum differ.
    """
    try:
        data = store.get(part.key)
    except KeyMissingError:
        raise _gone(part.key) from None
    found = (len(data), xxhash.xxh128_hexdigest(data), _rows(part.key, data))
    if found != (part.size_bytes, part.checksum, part.rows):
        raise PartLostError(
            f"The part {part.key} is damaged: it has {found[0]} bytes, checksum {found[1]}, "
            f"{found[2]} rows instead of {part.size_bytes}, {part.checksum} and {part.rows}. {ANEW}"
        )


def _gone(key: str) -> PartLostError:
    return PartLostError(f"The part {key} is gone from the store. {ANEW}")


def _rows(key: str, data: bytes) -> int:
    try:
        return int(pq.read_metadata(pa.BufferReader(data)).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise PartLostError(f"The part {key} cannot be read: {type(error).__name__}. {ANEW}") from error


def _read_shard(
    store: ObjectStore, key: str, shard: Shard, columns: Sequence[str], dictionary: Sequence[str]
) -> pa.Table:
    with _opened(store, key, dictionary) as file:
        groups, whole = _groups_of(file.metadata, shard)
        wanted = list(columns) if whole or BUCKET in columns else [*columns, BUCKET]
        table = file.read_row_groups(groups, columns=wanted)
    if not whole:
        table = _only(table, shard)
    return table.select(list(columns))


def _groups_of(metadata: pq.FileMetaData, shard: Shard) -> tuple[list[int], bool]:
    """The row groups that may hold rows of a shard, and whether they hold nothing else."""
    column = metadata.schema.names.index(BUCKET)
    groups, whole = [], True
    for index in range(metadata.num_row_groups):
        statistics = metadata.row_group(index).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            groups.append(index)
            whole = False
        elif statistics.min < shard.last and statistics.max >= shard.first:
            groups.append(index)
            whole = whole and shard.first <= statistics.min and statistics.max < shard.last
    return groups, whole


def _only(table: pa.Table, shard: Shard) -> pa.Table:
    """The rows of a shard: a slice where rows are sorted by bucket, without copying."""
    buckets = table.column(BUCKET).to_numpy()
    if np.all(buckets[1:] >= buckets[:-1]):
        first, last = np.searchsorted(buckets, [shard.first, shard.last])
        return table.slice(first, last - first)
    return table.filter(pa.array((buckets >= shard.first) & (buckets < shard.last)))


def _decoded(table: pa.Table) -> pa.Table:
    """Dictionary columns as their values: Parquet would repeat the whole dictionary in each row group.

    A dictionary of one value is what the writer would make of the values itself.
    """
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table.column(index)
            if column.num_chunks != 1 or len(column.chunk(0).dictionary) != 1:
                table = table.set_column(index, field.name, column.cast(field.type.value_type))
    return table


def _encodings(table: pa.Table) -> dict[str, Any]:
    """How each column is written, by its type.

    Differences for 64-bit integers and times, dictionaries for the rest but hashes, doubles and texts that
    rarely repeat: a third smaller and faster to write than Parquet's own choice [measured on interactions].
    Zstandard finds nothing in differences that Snappy does not, nor anything at all in hashes. Bounds of
    texts are left out: in parts sorted by a hash they tell nothing, and looking for them is slow.
    """
    dictionary, differences, bounded = [], [], []
    compression = {}
    for field in table.schema:
        path = f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        compression[path] = "zstd"
        if field.type == pa.int64() or pa.types.is_timestamp(field.type):
            differences.append(path)
            compression[path] = "snappy"
        elif field.type == pa.uint64():
            compression[path] = "none"
        elif field.type != pa.float64() and not _rarely_repeats(table.column(field.name)):
            dictionary.append(path)
        if pa.types.is_primitive(field.type):
            bounded.append(path)
    return {
        "use_dictionary": dictionary,
        "column_encoding": dict.fromkeys(differences, "DELTA_BINARY_PACKED"),
        "compression": compression,
        "compression_level": {path: 1 for path, codec in compression.items() if codec == "zstd"},
        "write_statistics": bounded,
    }


def _rarely_repeats(column: pa.ChunkedArray) -> bool:
    """Whether texts are so many different ones that a row group's dictionary is no shorter than they are.

    Zstandard finds those few that do repeat: ids of 100,000 users take two thirds of the room and time.
    """
    if not pa.types.is_string(column.type):
        return False
    group = column.slice(0, ROW_GROUP_ROWS)
    # One text alone has a dictionary however few its rows: a dictionary column of it is stored as it is.
    return bool(pc.count_distinct(group).as_py() > max(1, len(group) * RARE))


def _column_stats(column: pa.ChunkedArray) -> ColumnStats:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    bounds = pc.min_max(column)
    return ColumnStats(bounds["min"].as_py(), bounds["max"].as_py(), column.null_count)


def _names(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


def _select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Puts columns in the order asked for; Parquet readers keep the file's and skip unknown names."""
    return table if columns is None else table.select(list(columns))


@contextmanager
def _opened(store: ObjectStore, key: str, dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """A part open for reading; whatever is wrong with its bytes is the store's fault."""
    try:
        with closing(store.open(key)) as source:
            yield pq.ParquetFile(source, read_dictionary=list(dictionary), pre_buffer=True)
    except KeyMissingError:
        raise _gone(key) from None
    except pa.ArrowInvalid as error:
        raise PartLostError(f"The part {key} is damaged, and no Parquet any more. {ANEW}") from error
    except (OSError, pa.ArrowException) as error:
        raise StoreUnavailableError(f"The part {key} cannot be read: {type(error).__name__}.") from error
