"""What a stream is made of, without a wire: files, pipes, rows, tables, and what is kept of them."""

import asyncio
import gzip
import io
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.encoding import encoding_of
from headrace.errors import BadDataError, DataLossError, InvalidArgumentError
from headrace.request import (
    features_request,
    file_upload,
    file_validation,
    rows_upload,
    sample_request,
    table_upload,
)
from headrace.row import to_interaction, to_item
from headrace.source import (
    BATCH_BYTES,
    Chunk,
    FileSource,
    RowSource,
    Source,
    Start,
    StreamSource,
    file_source,
)
from headrace.source.table import TableSource, reader_of
from headrace.v1 import upload_pb2

ROWS = [{"item_id": f"i{n}", "title": "t" * 100} for n in range(10_000)]
CONTENT = bytes(range(250))


def collect(source: Source, start: Start) -> list[Chunk]:
    """What comes for aio, which must be what comes for sync."""

    async def run() -> list[Chunk]:
        return [chunk async for chunk in source.achunks(start)]

    return asyncio.run(run())


def needed(chunks: list[Chunk], start: int) -> bytes:
    """The bytes from the start on; chunks must follow one another."""
    assert all(before.end_offset == after.offset for before, after in itertools.pairwise(chunks))
    content = b"".join(chunk.content for chunk in chunks)
    return content[start - chunks[0].offset :] if chunks else b""


def ids(chunks: list[Chunk]) -> list[str]:
    return [item.item_id for chunk in chunks for item in chunk.rows.items]


@pytest.mark.parametrize("start", [0, 1, 99, 100, 250])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_file_is_cut_into_chunks_that_cover_it_from_where_the_server_stands(
    tmp_path: Path, start: int, checksum: bool
) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(CONTENT)
    crc32c = google_crc32c.value(CONTENT[:start]) if checksum else None
    begin = Start(start, crc32c, limit_bytes=100)
    for take in (lambda source: list(source.chunks(begin)), lambda source: collect(source, begin)):
        for source in (FileSource(file), StreamSource(io.BytesIO(CONTENT))):
            chunks = take(source)
            assert needed(chunks, start) == CONTENT[start:]
            assert all(chunk.weight_bytes <= 100 for chunk in chunks)
            if checksum and chunks:
                last = chunks[-1]
                assert last.stream_crc32c(last.end_offset) == google_crc32c.value(CONTENT)


@pytest.mark.parametrize("start", [1, 100, 200, 250])
def test_other_content_than_the_server_has_is_refused_before_the_first_chunk_it_lacks(
    tmp_path: Path, start: int
) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(CONTENT)
    for source in (FileSource(file), StreamSource(io.BytesIO(CONTENT))):
        came: list[Chunk] = []
        with pytest.raises(ValueError, match=f"first {start} bytes .* not the same content"):
            came.extend(source.chunks(Start(start, 12345, limit_bytes=100)))
        assert all(chunk.end_offset <= start for chunk in came)


def test_a_named_pipe_is_read_as_the_stream_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(CONTENT * 1_000))
    writer.start()
    source = file_source(path)
    assert isinstance(source, StreamSource)
    assert source.total == 0
    assert needed(list(source.chunks(Start())), 0) == CONTENT * 1_000
    writer.join()


def test_small_reads_of_a_pipe_are_put_together() -> None:
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 1_000))

    chunks = list(StreamSource(Pipe(bytes(3 * BATCH_BYTES))).chunks(Start()))
    assert all(chunk.weight_bytes >= BATCH_BYTES for chunk in chunks[:-1])
    assert chunks[-1].end_offset == 3 * BATCH_BYTES


def test_only_what_is_not_acknowledged_is_kept() -> None:
    source = StreamSource(io.BytesIO(bytes(1_000)))
    chunks = source.chunks(Start(limit_bytes=100))
    sent = [next(chunks) for _ in range(5)]
    source.acked(250)
    again = list(source.chunks(Start(250, limit_bytes=100)))
    assert [chunk.offset for chunk in again] == list(range(200, 1_000, 100))
    assert again[0] == sent[2]
    with pytest.raises(DataLossError, match="The server has 150 bytes of the upload, but acknowledged 200"):
        list(source.chunks(Start(150)))


def test_kept_rows_are_encoded_and_equal_to_what_was_sent() -> None:
    source = RowSource("items", iter(ROWS))
    chunks = source.chunks(Start())
    sent = [next(chunks), next(chunks)]
    again = list(source.chunks(Start()))
    assert ids(again) == [row["item_id"] for row in ROWS]
    assert all(chunk.batch is None for chunk in again[:2])
    assert [chunk.rows for chunk in again[:2]] == [chunk.rows for chunk in sent]


def test_a_broken_stream_that_still_reads_leaves_what_it_reads_to_the_next() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[dict[str, str]]:
        for n, row in enumerate(ROWS):
            if n == 5_000:
                reading.set()
                go_on.wait(10)
            yield row

    source = RowSource("items", slow())
    first: list[Chunk] = []

    def read_some() -> None:
        for chunk in source.chunks(Start()):
            first.append(chunk)
            if reading.is_set():
                return

    broken = threading.Thread(target=read_some)
    broken.start()
    assert reading.wait(10)
    second: list[Chunk] = []
    resumed = threading.Thread(target=lambda: second.extend(source.chunks(Start())))
    resumed.start()
    go_on.set()
    broken.join(10)
    resumed.join(10)
    assert ids(second) == [row["item_id"] for row in ROWS]


@pytest.mark.parametrize("start", [0, 1, 5_000, 9_999, 10_000])
def test_rows_are_packed_into_batches_from_where_the_server_stands(start: int) -> None:
    async def stream() -> AsyncIterator[dict[str, str]]:
        for row in ROWS:
            yield row

    chunks = list(RowSource("items", iter(ROWS)).chunks(Start(start)))
    assert ids(chunks) == [f"i{n}" for n in range(start, 10_000)]
    assert all(chunk.weight_bytes < 300_000 for chunk in chunks)
    assert [chunk.offset for chunk in chunks] == [0, *(chunk.end_offset for chunk in chunks[:-1])]
    for rows in (ROWS, stream()):
        assert collect(RowSource("items", rows), Start(start)) == chunks


def test_fewer_rows_than_the_server_has_are_not_the_same_rows() -> None:
    with pytest.raises(ValueError, match="only 10,000 rows, but 10,001 were stored: not the same content"):
        list(RowSource("items", ROWS).chunks(Start(10_001)))


def test_an_async_iterable_is_for_the_aio_client() -> None:
    async def stream() -> AsyncIterator[dict[str, str]]:
        yield {}

    with pytest.raises(TypeError, match="AsyncClient"):
        next(RowSource("items", stream()).chunks(Start()))


TABLE = pa.table({"item_id": [f"i{n}" for n in range(150_000)], "price": [float(n) for n in range(150_000)]})


class Frame:
    """What a frame of pandas is to us: its Arrow export."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TABLE,
        lambda: TABLE.to_reader(max_chunksize=10_000),
        lambda: Frame(TABLE),
        lambda: TABLE.combine_chunks().to_batches()[0],
        lambda: TABLE.set_column(0, "item_id", TABLE["item_id"].dictionary_encode()),
    ],
    ids=["table", "reader", "frame", "batch", "dictionary"],
)
def test_tables_become_an_arrow_stream_of_small_batches(make: Callable[[], Any]) -> None:
    chunks = list(TableSource(make()).chunks(Start(limit_bytes=500_000)))
    content = needed(chunks, 0)
    assert all(chunk.weight_bytes <= 500_000 for chunk in chunks)
    with pa.ipc.open_stream(content) as stream:
        batches = list(stream)
    assert pa.Table.from_batches(batches).cast(TABLE.schema).equals(TABLE)
    assert max(batch.num_rows for batch in batches) <= 65_536
    # With its end marker: without one a reader cannot tell that nothing is missing.
    assert content.endswith(b"\xff\xff\xff\xff\x00\x00\x00\x00")
    assert needed(collect(TableSource(make()), Start(limit_bytes=500_000)), 0) == content


class Odd(Frame):
    """A frame of pandas with columns that Arrow does not take: its export fails as a whole."""

    index = pa.array([1])  # As a range: without levels that have names.

    def __init__(self, **columns: list[Any]) -> None:
        self._columns = columns

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        raise pa.ArrowInvalid("Could not convert, or duplicate column names found")

    def items(self) -> Any:
        """As pandas gives them; a column `x` twice."""
        return [(name.rstrip("_"), values) for name, values in self._columns.items()]


def test_columns_of_a_frame_that_are_ignored_are_never_refused() -> None:
    odd = Odd(
        x=[object(), 1], item_id=["a", "b"], x_=[1 + 2j, "c"], price=[1.5, float("nan")], title=[None, "t"]
    )
    reader = reader_of(odd, ("item_id", "title", "price"))
    assert reader.schema.names == ["x", "item_id", "x", "price", "title"]
    table = reader.read_all()
    assert [pa.types.is_null(table.schema.field(place).type) for place in range(5)] == [True, False] * 2 + [
        False
    ]
    rows = table.select([1, 3, 4]).to_pylist()
    assert rows == [
        {"item_id": "a", "price": 1.5, "title": None},
        {"item_id": "b", "price": None, "title": "t"},
    ]


@pytest.mark.parametrize(
    ("values", "row", "says"),
    [
        ([1, 2, "c", 4], 2, r"'c' \(str\)"),
        ([object()], 0, r"<object object at \w+> \(object\)"),
        ([None, "a", 7], 2, r"7 \(int\)"),
        (["a"] * 1000 + [{"b"}], 1000, r"\{'b'\} \(set\)"),
        ([1, 2**70], 1, r"1180591620717411303424 \(int\)"),
        (["a", "\ud800"], 1, r"'\\ud800' \(str\)"),
    ],
)
def test_a_column_of_the_contract_that_arrow_does_not_take_is_a_typed_error(
    values: list[Any], row: int, says: str
) -> None:
    told = rf"^Column item_id cannot .*: row {row} has {says}, (which Arrow .* make all|half of a surrogate)"
    with pytest.raises(BadDataError, match=told) as caught:
        reader_of(Odd(x=[1] * len(values), item_id=values), ("item_id",))
    assert (caught.value.reason, caught.value.metadata) == ("UNSUPPORTED_TYPE", {"columns": "item_id"})


def test_what_rows_can_carry_is_left_for_the_server_to_judge() -> None:
    sent = to_interaction(
        {"user_id": 2**70, "item_id": np.int8(-5), "interaction_type": 7, "timestamp": 1735689600}
    )
    assert (sent.user_id, sent.item_id) == (str(2**70), "-5")
    assert (sent.interaction_type, sent.timestamp) == ("7", "1735689600")
    assert to_item({"item_id": "i", "title": 1984}).title == "1984"
    assert to_interaction({"timestamp": 1735689600.5}).timestamp == "1735689600.5"


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "0001-01-01T00:00:00+01:00"),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "9999-12-31T23:59:59.999999-01:00"),
        (datetime.min.replace(tzinfo=timezone(timedelta(seconds=1172))), "0001-01-01T00:00:00+00:20"),
        (datetime.max.replace(tzinfo=timezone(-timedelta(seconds=1))), "9999-12-31T23:59:59.999999-00:01"),
        (datetime.min.replace(tzinfo=UTC), "0001-01-01T00:00:00+00:00"),
        (datetime.max, "9999-12-31T23:59:59.999999"),
    ],
)
def test_datetimes_at_the_ends_of_time_are_sent(moment: datetime, text: str) -> None:
    assert to_interaction({"timestamp": moment}).timestamp == text


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
@pytest.mark.parametrize("field", ["as_of", "known_at"])
def test_a_moment_that_no_message_has_is_a_typed_error(field: str, moment: datetime) -> None:
    beyond = moment.replace(tzinfo=timezone(timedelta(hours=1 if moment == datetime.min else -1)))
    options: dict[str, Any] = {"as_of": None} | {field: beyond}
    with pytest.raises(
        InvalidArgumentError, match=f"Field {field} is .*; in UTC it must lie between"
    ) as caught:
        features_request("acme", **options)
    assert (caught.value.reason, caught.value.metadata) == ("INVALID_FIELD", {"field": field})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"title": "\ud83d"}, r"title is '\\ud83d'; half of a surrogate pair is not a character"),
        ({"title": b"\xff"}, r"title is b'\\xff'; decode it to a str, as it is not UTF-8"),
        ({"title": 1.5}, "title is 1.5; give a str or int"),
        ({"title": True}, "title is True; give a str or int"),
        ({"price": "4"}, "price is '4'; give a float or int"),
    ],
)
def test_what_rows_cannot_carry_names_row_column_value_and_remedy(row: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"^Row 3: {says}"):
        to_item(row, 3)


def test_a_sample_with_half_of_a_surrogate_pair_is_told_so() -> None:
    with pytest.raises(ValueError, match=r"^Row 1: title is 'a\\udc00'; half of a surrogate pair"):
        sample_request("items", [{}, {"title": "a\udc00"}])


def test_a_polars_frame_keeps_its_values() -> None:
    frame = pl.DataFrame({"item_id": ["i1", None], "category": pl.Series(["a", "a"], dtype=pl.Categorical)})
    content = needed(list(TableSource(frame).chunks(Start())), 0)
    read = pl.from_arrow(pa.ipc.open_stream(content).read_all())
    assert isinstance(read, pl.DataFrame)
    assert read.select(pl.all().cast(pl.String)).equals(frame.select(pl.all().cast(pl.String)))


def test_a_table_without_rows_is_a_stream_too() -> None:
    content = needed(list(TableSource(TABLE.slice(0, 0)).chunks(Start())), 0)
    assert pa.ipc.open_stream(content).read_all().schema == TABLE.schema


def test_the_size_of_an_encoded_table_is_known_before() -> None:
    source = TableSource(TABLE)
    assert (source.rows, source.total) == (150_000, len(needed(list(source.chunks(Start())), 0)))
    assert TableSource(TABLE.to_reader()).total == 0


def test_what_does_not_speak_arrow_is_refused_with_what_does() -> None:
    with pytest.raises(TypeError, match=r"got a list, which does not speak Arrow.*upload_rows"):
        TableSource([{"item_id": "i1"}])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Expected a file, got a DataFrame.*upload_table"):
        file_upload("acme", "items", pl.DataFrame(), None, None)  # type: ignore[arg-type]


@given(
    content=st.binary() | st.binary().map(gzip.compress),
    ending=st.sampled_from(["", ".json", ".gz", ".x.zst"]),
)
def test_any_bytes_have_an_encoding_or_are_named_as_a_json_array(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str
) -> None:
    file = tmp_path_factory.getbasetemp() / f"any{ending}"
    file.write_bytes(content)
    complaint = ""
    try:
        encoding_of(file)
    except ValueError as error:
        complaint = str(error)
    assert not complaint or "is a JSON array" in complaint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.CSV", ("csv", "none")),
        ("b", ("csv", "none")),
        ("x.csv.gz", ("csv", "gzip")),
        ("x.CSV.ZST", ("csv", "zstd")),
        ("x.gz", ("csv", "gzip")),
        ("x.jsonl", ("json_lines", "none")),
        ("x.ndjson.gz", ("json_lines", "gzip")),
        ("x.parquet", ("parquet", "none")),
        ("x.pq", ("parquet", "none")),
        ("x.PARQ", ("parquet", "none")),
        ("x.arrow", ("arrow_ipc", "none")),
        ("x.arrows", ("arrow_ipc", "none")),
        ("x.feather", ("arrow_ipc", "none")),
    ],
)
def test_format_and_compression_follow_the_name(name: str, expected: tuple[str, str]) -> None:
    assert encoding_of(name) == encoding_of(Path(name)) == expected


JSON_LINE = b'{"item_id": "i1", "title": "Chair"}\n'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x", b"PAR1...", ("parquet", "none")),
        ("x.dat", b"ARROW1\x00\x00", ("arrow_ipc", "none")),
        ("x.dat", b"\xff\xff\xff\xff\x10", ("arrow_ipc", "none")),
        ("reviews.json", JSON_LINE, ("json_lines", "none")),
        ("reviews.json", b"\xef\xbb\xbf\r\n " + JSON_LINE, ("json_lines", "none")),
        ("reviews.json.gz", gzip.compress(JSON_LINE, mtime=0), ("json_lines", "gzip")),
        ("reviews", gzip.compress(JSON_LINE, mtime=0), ("json_lines", "gzip")),
        ("x.txt", b"item_id,title\n", ("csv", "none")),
        ("x.gz", gzip.compress(b"item_id,title\n", mtime=0), ("csv", "gzip")),
        ("x.gz", b"no gzip", ("csv", "gzip")),
        ("x", b"", ("csv", "none")),
        ("x.csv", b"{odd},item_id,title\n", ("csv", "none")),
    ],
)
def test_where_the_name_says_nothing_the_first_bytes_do(
    tmp_path: Path, name: str, content: bytes, expected: tuple[str, str]
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert encoding_of(file) == encoding_of(str(file)) == expected
    assert encoding_of(file, "csv") == ("csv", expected[1] if name.endswith(".gz") else "none")


def test_a_json_array_is_named_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "reviews.json"
    file.write_bytes(b" [" + JSON_LINE + b"]")
    with pytest.raises(ValueError, match=r"^reviews\.json is a JSON array; write one object per line"):
        encoding_of(file)
    packed = tmp_path / "reviews.json.gz"
    packed.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    with pytest.raises(ValueError, match="JSON array"):
        file_upload("acme", "items", packed, None, None)


def test_an_open_file_without_a_name_is_plain_csv() -> None:
    assert encoding_of(io.BytesIO()) == ("csv", "none")
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        assert encoding_of(pipe) == ("csv", "none")
    os.close(write)


def test_a_compressed_file_is_sent_as_it_is_and_validated_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "x.csv.gz"
    file.write_bytes(gzip.compress(CONTENT, mtime=0))
    upload, source = file_upload("acme", "items", file, None, None)
    assert upload.header.compression == upload_pb2.COMPRESSION_GZIP
    assert needed(list(source.chunks(Start())), 0) == file.read_bytes()
    upload, _ = file_upload("acme", "items", file, "csv", "none")
    assert upload.header.compression == upload_pb2.COMPRESSION_UNSPECIFIED
    _, source = file_validation("items", file, None)
    assert needed(list(source.chunks(Start())), 0) == CONTENT


def test_every_upload_has_an_id_before_it_starts(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a\n")
    first, _ = file_upload("acme", "items", file, None, None)
    second, _ = rows_upload("acme", "items", ROWS)
    third, _ = table_upload("acme", "items", TABLE)
    assert len({first.header.upload_id, second.header.upload_id, third.header.upload_id, ""}) == 4
    assert (first.header.expected_bytes, first.progress.total) == (2, 2)
    assert (second.header.expected_rows, second.progress.total) == (10_000, 10_000)
    assert (third.header.expected_rows, third.header.expected_bytes) == (150_000, third.progress.total)
    named, _ = rows_upload(
        "acme", "items", ROWS, upload_id="mine", policy="all_or_nothing", max_reject_ratio=0.0
    )
    assert named.header.upload_id == "mine"
    assert named.header.policy == upload_pb2.POLICY_ALL_OR_NOTHING
    assert named.header.HasField("max_reject_ratio")
