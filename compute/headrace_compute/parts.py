"""Parts: Parquet files in the store, written once, and read whole or by row group."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from headrace_compute import cancellation
from headrace_compute.encoding import decoded, encode
from headrace_compute.errors import PartLostError, StoreUnavailableError
from headrace_compute.model import ROW_GROUP_ROWS, ColumnStats, DataFile, Part
from headrace_compute.objects.store import KeyExistsError, KeyMissingError, ObjectStore

PIECE_GROUPS = 16
"""Row groups written between two looks at whether the stage is cancelled: a fifth of a second."""

REMEDIES: Mapping[str, str] = {
    **dict.fromkeys(
        ("interactions", "items", "rejects", "uploads"), "Upload its rows anew, under another id."
    ),
    **dict.fromkeys(
        ("user_vocabulary", "item_vocabulary"),
        "Put it back from a backup: which integers ids have is stored nowhere else.",
    ),
}
"""What brings lost rows back, by the folder of their table, or of the files of uploads."""

RUN_AGAIN = "Run again what made its table."
"""What brings all others back: they are derived."""

T = TypeVar("T")


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
    table = decoded(table)
    part = write_pieces(store, key, _slices(table))
    return replace(part, stats={name: _column_stats(table.column(name)) for name in stats})


def write_pieces(store: ObjectStore, key: str, pieces: Iterable[pa.Table]) -> Part:
    """Writes rows that come some at a time as one part without bounds; they need not be there all at once.

    Args:
        store: Where it goes.
        key: Under which key.
        pieces: Tables of one schema, without dictionaries of several values; at least one.

    Raises:
        KeyExistsError: As `write_part`.
    """
    data, rows = encode(pieces)
    try:
        store.create(key, data)
    except KeyExistsError:
        if store.get(key) != data:
            raise
    return Part(key=key, rows=rows, size_bytes=data.size, checksum=xxhash.xxh128_hexdigest(data), stats={})


def encoded_bytes(table: pa.Table) -> int:
    """How many bytes a part with these rows has."""
    data, _ = encode(_slices(decoded(table)))
    return int(data.size)


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    step = PIECE_GROUPS * ROW_GROUP_ROWS
    for begin in range(0, max(1, table.num_rows), step):
        yield table.slice(begin, step)


def read_part(
    store: ObjectStore,
    key: str,
    columns: Sequence[str] | None = None,
    *,
    dictionary: Sequence[str] = (),
    at_once: bool = False,
) -> pa.Table:
    """Reads a whole part, or some of its columns in the order given.

    Args:
        dictionary: String columns to leave dictionary-encoded, which is faster to read and smaller if their
            texts repeat; each chunk of them has a dictionary of its own.
        at_once: Whether to get all bytes in one request, where most columns are wanted.

    Raises:
        PartLostError: the part is not there, or is not Parquet.
        StoreUnavailableError: it cannot be read.
    """

    def whole(file: pq.ParquetFile) -> pa.Table:
        return _select(file.read(columns=_names(columns)), columns)

    return _read(store, key, whole, dictionary, at_once)


def part_row_groups(store: ObjectStore, key: str) -> int:
    """The number of row groups of a part."""
    return _read(store, key, lambda file: int(file.num_row_groups))


def part_rows(store: ObjectStore, key: str) -> int:
    """The number of rows of a part, from its footer."""
    return _read(store, key, lambda file: int(file.metadata.num_rows))


def newest_us(store: ObjectStore, key: str, column: str) -> int | None:
    """The newest value of a timestamp("us") column, from the footer if it tells; None if all are null."""

    def newest(file: pq.ParquetFile) -> int | None:
        place = file.metadata.schema.names.index(column)
        groups = [file.metadata.row_group(index).column(place) for index in range(file.num_row_groups)]
        if all(group.is_stats_set and group.statistics.has_min_max for group in groups):
            return max((int(group.statistics.max_raw) for group in groups), default=None)
        found = pc.max(file.read(columns=[column])[column].cast(pa.int64())).as_py()
        return None if found is None else int(found)

    return _read(store, key, newest)


def read_row_groups(
    store: ObjectStore, key: str, groups: Sequence[int], columns: Sequence[str] | None = None
) -> pa.Table:
    """Reads some row groups of a part, in the order given."""
    return _read(
        store, key, lambda file: _select(file.read_row_groups(list(groups), columns=_names(columns)), columns)
    )


def read_parts(
    store: ObjectStore, files: Sequence[DataFile], columns: Sequence[str], *, dictionary: Sequence[str] = ()
) -> pa.Table:
    """Reads some columns of whole files, in the order of the files; see `read_part`.

    Without files there is no schema: the columns are of type null.
    """
    tables = []
    for file in files:
        cancellation.check()
        tables.append(read_part(store, file.key, columns, dictionary=dictionary))
    if not tables:
        return pa.table({name: pa.nulls(0) for name in columns})
    return pa.concat_tables(tables)


def read_pieces(store: ObjectStore, key: str, rows: int) -> Iterator[pa.Table]:
    """All rows of a part, at most so many at a time; its bytes are held.

    Raises:
        PartLostError, StoreUnavailableError: As `read_part`.
    """
    with _whole(store, key) as file:
        for batch in file.iter_batches(rows, use_threads=False):
            yield pa.Table.from_batches([batch])


def read_first_rows(store: ObjectStore, key: str, group: int, limit: int) -> pa.Table:
    """The first rows of a row group, at most `limit`; what is behind them is hardly looked at."""

    def first_rows(file: pq.ParquetFile) -> pa.Table:
        pieces: list[pa.RecordBatch] = []
        for batch in file.iter_batches(max(1, limit), row_groups=[group], use_threads=False):
            pieces.append(batch)
            if sum(piece.num_rows for piece in pieces) >= limit:
                break
        return pa.Table.from_batches(pieces, file.schema_arrow).slice(0, limit)

    return _read(store, key, first_rows)


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
            f"{found[2]} rows instead of {part.size_bytes}, {part.checksum} and {part.rows}. "
            f"{_remedy(part.key)}",
            {"part": part.key},
        )


def _gone(key: str) -> PartLostError:
    return PartLostError(f"The part {key} is gone from the store. {_remedy(key)}", {"part": key})


def _unreadable(key: str, error: Exception) -> PartLostError:
    message = f"The part {key} is damaged, and no Parquet any more: {type(error).__name__}. {_remedy(key)}"
    return PartLostError(message, {"part": key})


def _remedy(key: str) -> str:
    """What to do about a part that is lost; third in its key is the folder of its table."""
    folder = "".join(key.split("/")[2:3])
    return REMEDIES.get(folder, RUN_AGAIN)


def _rows(key: str, data: bytes) -> int:
    try:
        return int(pq.read_metadata(pa.BufferReader(data)).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(key, error) from error


def _column_stats(column: pa.ChunkedArray) -> ColumnStats:
    nulls = column.null_count
    if pa.types.is_dictionary(column.type):
        # `decoded` left it one value, which occurs in any row that is not null.
        column = column.slice(0, 0).cast(pa.string()) if nulls == len(column) else column.chunk(0).dictionary
    elif pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    bounds = pc.min_max(column)
    return ColumnStats(bounds["min"].as_py(), bounds["max"].as_py(), nulls)


def _names(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


def _select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Puts columns in the order asked for; Parquet readers keep the file's and skip unknown names."""
    return table if columns is None else table.select(list(columns))


def _read(
    store: ObjectStore,
    key: str,
    use: Callable[[pq.ParquetFile], T],
    dictionary: Sequence[str] = (),
    at_once: bool = False,
) -> T:
    """What `use` makes of a part.

    If it cannot be read by ranges, all of its bytes tell whether they are spoilt, which no other try mends,
    or the store broke off.
    """
    if not at_once:
        try:
            with closing(store.open(key)) as source:
                return use(_parquet(source, dictionary))
        except KeyMissingError:
            raise _gone(key) from None
        except (OSError, pa.ArrowException):
            pass
    with _whole(store, key, dictionary) as file:
        return use(file)


@contextmanager
def _whole(store: ObjectStore, key: str, dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """A part of which all bytes have come; whatever is wrong with them is the part's."""
    try:
        with closing(pa.BufferReader(store.get(key))) as source:
            yield _parquet(source, dictionary)
    except KeyMissingError:
        raise _gone(key) from None
    except pa.ArrowMemoryError as error:
        raise StoreUnavailableError(f"The part {key} cannot be read: there is no memory for it.") from error
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(key, error) from error


def _parquet(source: pa.NativeFile, dictionary: Sequence[str]) -> pq.ParquetFile:
    return pq.ParquetFile(source, read_dictionary=list(dictionary), pre_buffer=True)
