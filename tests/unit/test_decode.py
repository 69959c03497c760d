"""Decoded blocks: the same rows whatever the format, and the same blocks wherever decoding goes on."""

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.streams import (
    INTERACTIONS,
    Blocks,
    compress,
    csv_bytes,
    decoded,
    encrypted_parquet,
    ipc_file,
    ipc_stream,
    json_lines,
    parquet,
    staged,
    table_of,
)
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.v1 import row_pb2
from headrace_compute.errors import (
    BadEncodingError,
    CorruptStreamError,
    DuplicateColumnError,
    InvalidDataError,
    MissingColumnError,
    NoHeaderError,
    RecordTooLargeError,
    TooLargeError,
    UnknownColumnError,
    UnsupportedTypeError,
)
from headrace_compute.findings import Findings
from headrace_compute.formats import arrow as arrow_module
from headrace_compute.formats.decode import whole_blocks
from headrace_compute.ingest.block import ingest_block
from headrace_compute.model import Block, Position, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part
from headrace_server.rows.intake import to_arrow

GOOD = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2025-01-01"}


def spec_of(columns: tuple[str, ...]) -> UploadSpec:
    return UploadSpec(
        upload_id="up",
        data_type="interactions",
        part_prefix="raw-data/acme/interactions/",
        rejects_prefix="processed-data/acme/rejects/",
        sidecar_prefix="raw-data/_headrace/up/",
        started_us=1_767_225_600_000_000,
        latest_us=1_767_312_000_000_000,
        columns=columns,
    )


class Taken:
    """A stream decoded and ingested: accepted rows, rejects, findings."""

    def __init__(self, root: Path, blocks: Blocks) -> None:
        store = open_store(config := StoreConfig(root=str(root)))
        self.rows: list[dict[str, Any]] = []
        self.rejects: list[tuple[int, str, str, int | None]] = []
        self.findings = Findings()
        for block, columns, payload in blocks:
            result = ingest_block(config, spec_of(columns), block, payload, str(root))
            if result.data:
                self.rows += read_part(store, result.data.key).to_pylist()
            for part in result.rejects:
                for row in read_part(store, part.key).to_pylist():
                    self.rejects.append((row["row_number"], row["column"], row["code"], row["duplicate_of"]))
            self.findings = self.findings.merge(result.findings)
        self.rows.sort(key=lambda row: int(row["row_number"]))

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        return {key: check.failing_rows for key, check in self.findings.checks.items()}


values = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["", "a", "b", "ä\x80", 'say "x"', "c,d", None, "x" * 300]),
        "item_id": st.sampled_from(["i", "j", "日本\r\n", None]),
        "interaction_type": st.sampled_from(["view", "view", "like", "buy", None]),
        "timestamp": st.sampled_from(
            ["2025-01-01", "2025-01-01T00:00:00+00:00", None, "2027-01-01", "2025-02-30"]
        ),
        "rating": st.sampled_from([None, 4.0, 4.5, 6.0, 1e300]),
    }
)


# Every byte of a piece of its own once: pieces are files.
@example([{**GOOD, "user_id": 'say "x"', "rating": 4.5}], 1, 1)
@given(st.lists(values, min_size=1, max_size=30), st.integers(1, 12), st.integers(20, 400))
def test_the_same_rows_are_taken_whatever_carries_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], batch: int, piece: int
) -> None:
    root = tmp_path_factory.mktemp("store")
    table, text = table_of(rows), csv_bytes(rows)
    messages = [row_pb2.Interaction(**{k: v for k, v in row.items() if v is not None}) for row in rows]
    as_messages = Block(0, "rows", 0, len(rows), 0, len(rows), 0)
    expected = Taken(root / "rows", [(as_messages, (), to_arrow(messages, "interactions"))])
    streams: dict[str, tuple[bytes, Any, Any]] = {
        "gzip": (compress(text, "gzip"), "csv", "gzip"),
        "zstd": (compress(text, "zstd"), "csv", "zstd"),
        "json lines": (compress(json_lines(rows), "gzip"), "json_lines", "gzip"),
        "stream": (ipc_stream(table, batch), "arrow_ipc", "none"),
        "packed stream": (ipc_stream(table, batch, compression="zstd"), "arrow_ipc", "none"),
        "file": (ipc_file(table, batch), "arrow_ipc", "none"),
        "parquet": (parquet(table, len(rows)), "parquet", "none"),
    }
    for name, (data, format, compression) in streams.items():
        config, source = staged(root / name, data, format, compression, piece_bytes=piece)
        found = Taken(root / name, decoded(config, source))
        assert found.rows == expected.rows, name
        assert found.rejects == expected.rejects, name
        assert found.counts == expected.counts, name
        for column, summary in expected.findings.columns.items():
            assert found.findings.columns[column] == summary, (name, column)


def many(count: int) -> list[dict[str, Any]]:
    return [
        {**GOOD, "user_id": f"u{n % 37}", "item_id": f"i{n}", "rating": 1.0 + n % 5} for n in range(count)
    ]


def pickle(block: Any) -> Any:
    payload = block[2]
    return (block[0], payload.tobytes() if isinstance(payload, np.ndarray) else payload.to_pydict())


@pytest.mark.parametrize(
    ("make", "format", "compression"),
    [
        (lambda: compress(csv_bytes(many(700)), "gzip"), "csv", "gzip"),
        (lambda: compress(csv_bytes(many(700)), "zstd"), "csv", "zstd"),
        (lambda: compress(json_lines(many(700)), "zstd"), "json_lines", "zstd"),
        (lambda: ipc_stream(table_of(many(700)), 90), "arrow_ipc", "none"),
        (lambda: ipc_file(table_of(many(700)), 90), "arrow_ipc", "none"),
        (lambda: parquet(table_of(many(700)), 130), "parquet", "none"),
    ],
    ids=["gzip", "zstd", "json lines", "stream", "file", "parquet"],
)
def test_decoding_goes_on_after_any_block_as_if_nothing_had_happened(
    tmp_path: Path, make: Callable[[], bytes], format: Any, compression: Any
) -> None:
    config, source = staged(tmp_path, make(), format, compression, block_bytes=2000)
    whole = [pickle(block) for block in decoded(config, source)]
    assert len(whole) > 5
    assert sum(block.rows for block, _ in whole) == 700
    line = 2 if format == "csv" else 1
    for done in range(len(whole)):
        block = whole[done][0]
        start = Position(block.index, block.offset, block.first_row, block.first_line)
        assert [pickle(each) for each in decoded(config, source, start)] == whole[done:]
        if format in ("csv", "json_lines"):
            assert block.first_line == line
            line += block.rows
    # Other block sizes, as after a restart with other settings, give the same rows.
    block = whole[3][0]
    start = Position(block.index, block.offset, block.first_row, block.first_line)
    others = decoded(config, replace(source, block_bytes=777), start)
    assert sum(each[0].rows for each in others) == 700 - block.first_row
    assert others[0][0].first_row == block.first_row


def test_offsets_and_lines_are_those_of_the_decompressed_stream(tmp_path: Path) -> None:
    text = csv_bytes([GOOD, {**GOOD, "user_id": "a\nb"}, {**GOOD, "rating": "x"}])
    config, source = staged(tmp_path, compress(text, "gzip"), "csv", "gzip")
    ((block, columns, payload),) = decoded(config, source)
    result = ingest_block(config, spec_of(columns), block, payload, "a")
    rejects = read_part(open_store(config), result.rejects[0].key).to_pylist()
    assert [(row["row_number"], row["line"]) for row in rejects] == [(1, 3), (2, 5)]
    assert [row["byte_offset"] for row in rejects] == [
        text.index(b'"a\nb"'),
        text.index(b"u,i,view,2025-01-01,x"),
    ]


def test_arrow_rejects_have_neither_line_nor_offset_but_value_and_record(tmp_path: Path) -> None:
    config, source = staged(
        tmp_path, parquet(table_of([{**GOOD, "user_id": None, "rating": 9.5}])), "parquet"
    )
    ((block, columns, payload),) = decoded(config, source)
    result = ingest_block(config, spec_of(columns), block, payload, "a")
    missing, rating = read_part(open_store(config), result.rejects[0].key).to_pylist()
    assert (missing["line"], missing["byte_offset"], missing["value"]) == (None, None, "")
    assert (rating["code"], rating["value"]) == ("OUT_OF_RANGE", "9.5")
    raw = '{"item_id": "i", "interaction_type": "view", "timestamp": "2025-01-01", "rating": 9.5}'
    assert rating["raw"] == raw


def test_int96_holds_all_years_in_microseconds(tmp_path: Path) -> None:
    days = [datetime(1, 1, 1), datetime(2024, 1, 2, 3, 4, 5, 123456), datetime(9999, 12, 31)]
    times = pa.array(days, pa.timestamp("us"))
    table = table_of([GOOD] * 3).drop_columns("timestamp").append_column("timestamp", times)
    sink = io.BytesIO()
    pq.write_table(table, sink, use_deprecated_int96_timestamps=True)
    config, source = staged(tmp_path, sink.getvalue(), "parquet")
    ((_, _, payload),) = decoded(config, source)
    assert payload["timestamp"].cast(pa.timestamp("us")).equals(pa.chunked_array([times]))


def test_blocks_are_cut_by_weight_and_small_batches_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.array([10, 10, 500, 10, 10, 10])
    batch = pa.record_batch({"user_id": pa.array([b"x"] * 6, pa.binary())})
    tables = whole_blocks(iter([(batch, weights), (batch, weights)]), 30)
    assert [table.num_rows for table in tables] == [2, 1, 3, 2, 1, 3]
    monkeypatch.setattr("headrace_compute.formats.decode.ROWS_PER_BLOCK", 5)
    tables = whole_blocks(iter([(batch, weights), (batch, weights)]), 10_000)
    assert [table.num_rows for table in tables] == [5, 5, 2]


def refused(
    root: Path, data: bytes, format: Any, compression: Any = "none", **options: Any
) -> InvalidDataError:
    config, source = staged(root, data, format, compression, piece_bytes=1 << 20, **options)
    with pytest.raises(InvalidDataError) as caught:
        decoded(config, source)
    assert len(caught.value.message) < 1000
    return caught.value


ARROWS: tuple[tuple[str, Callable[..., bytes]], ...] = (
    ("arrow_ipc", ipc_stream),
    ("arrow_ipc", ipc_file),
    ("parquet", parquet),
)


@pytest.mark.parametrize(("format", "write"), ARROWS, ids=["stream", "file", "parquet"])
def test_columns_are_held_against_the_contract(tmp_path: Path, format: Any, write: Any) -> None:
    table = table_of([GOOD])
    error = refused(tmp_path, write(table.drop_columns(["user_id"])), format)
    assert isinstance(error, MissingColumnError)
    twice = pa.table([*table.columns, table["user_id"]], [*table.column_names, "user_id"])
    assert isinstance(refused(tmp_path, write(twice), format), DuplicateColumnError)
    other = table.append_column("colour", pa.array(["red"]))
    assert isinstance(refused(tmp_path, write(other), format, reject_unknown=True), UnknownColumnError)
    config, source = staged(tmp_path, write(other), format)
    ((_, columns, payload),) = decoded(config, source)
    assert columns == (*INTERACTIONS, "colour")
    assert "colour" not in payload.column_names
    wide = pa.table(
        [*table.columns, *([pa.array(["x"])] * 10_000)], [*INTERACTIONS, *map(str, range(10_000))]
    )
    error = refused(tmp_path, write(wide), format)
    assert isinstance(error, TooLargeError)
    assert error.attributes == {"what": "columns", "limit": "1024"}


def tensors() -> pa.Array:
    shape = pa.fixed_shape_tensor(pa.int32(), [1])
    return pa.ExtensionArray.from_storage(shape, pa.array([[1]], pa.list_(pa.int32(), 1)))


@pytest.mark.parametrize(("format", "write"), ARROWS, ids=["stream", "file", "parquet"])
def test_extension_types_of_the_contract_s_columns_are_refused_wherever_they_hide(
    tmp_path: Path, format: Any, write: Any
) -> None:
    table = table_of([GOOD])
    if format == "arrow_ipc":
        item = pa.field("item", pa.string(), metadata={"ARROW:extension:name": "evil"})
        marked = pa.field("user_id", pa.list_(item))
        inside = pa.table([pa.array([["a"]], marked.type), *table.columns[1:]], table.schema.set(0, marked))
        assert isinstance(refused(tmp_path, write(inside), format), UnsupportedTypeError)
    error = refused(tmp_path, write(table.set_column(4, "rating", tensors())), format)
    assert isinstance(error, UnsupportedTypeError)
    assert error.attributes == {"columns": "rating"}


@pytest.mark.parametrize(("format", "write"), ARROWS, ids=["stream", "file", "parquet"])
def test_columns_that_are_ignored_may_be_anything(tmp_path: Path, format: Any, write: Any) -> None:
    table = table_of([GOOD])
    evil = pa.field(
        "x", pa.binary(), metadata={"ARROW:extension:name": "evil", "ARROW:extension:metadata": "!"}
    )
    columns = [
        pa.array([b"a"]),
        *table.columns,
        tensors(),
        pa.array([1]),
        pa.array(["b"]),
        pa.array([b"\xff"]),
    ]
    unnamed, tensor = pa.field(" ", pa.binary()), pa.field("t", tensors().type)
    repeated = [pa.field("", pa.int64()), pa.field("x", pa.string()), evil]
    schema = pa.schema([unnamed, *table.schema, tensor, *repeated])
    data = write(pa.table(columns, schema=schema))
    config, source = staged(tmp_path, data, format)
    ((_, names, payload),) = decoded(config, source)
    assert names == (" ", *INTERACTIONS, "t", "", "x", "x")
    assert set(payload.column_names) <= set(INTERACTIONS)
    assert isinstance(refused(tmp_path, data, format, reject_unknown=True), UnknownColumnError)


@pytest.mark.parametrize(("format", "write"), ARROWS, ids=["stream", "file", "parquet"])
def test_an_index_of_pandas_is_a_column_without_a_name(tmp_path: Path, format: Any, write: Any) -> None:
    table = table_of([GOOD])
    for name in ("__index_level_0__", "__index_level_12__"):
        table = table.append_column(name, pa.array([7]))
    table = table.append_column("__index_level_x__", pa.array([7]))
    data = write(table)
    config, source = staged(tmp_path, data, format)
    found = Taken(tmp_path, decoded(config, source)).findings.warnings
    assert found["UNNAMED_COLUMN", ""].samples == ("6", "7")
    assert [column for code, column in found if code == "UNKNOWN_COLUMN"] == ["__index_level_x__"]
    error = refused(tmp_path, data, format, reject_unknown=True)
    assert "column 6 without a name" in error.message


@pytest.mark.parametrize(
    ("format", "called"), [("parquet", "Parquet"), ("arrow_ipc", "an Arrow IPC stream or file")]
)
def test_an_empty_file_is_told_to_be_empty(tmp_path: Path, format: Any, called: str) -> None:
    error = refused(tmp_path, b"", format)
    assert isinstance(error, BadEncodingError)
    assert error.message == (
        f"The stream is empty, which is not {called}; write the file again, and send all of it."
    )


@pytest.mark.parametrize(("format", "write"), ARROWS, ids=["stream", "file", "parquet"])
@pytest.mark.parametrize("missing", [1, 7, 8, 9, 100, 700])
def test_what_ends_before_its_end_is_refused(tmp_path: Path, format: Any, write: Any, missing: int) -> None:
    data = write(table_of(many(300)))
    assert isinstance(refused(tmp_path, data[:-missing], format), CorruptStreamError)


def test_a_stream_without_its_end_marker_or_with_more_behind_it_is_refused(tmp_path: Path) -> None:
    data = ipc_stream(table_of(many(300)))
    assert "without its end marker" in refused(tmp_path, data[:-8], "arrow_ipc").message
    assert "send one stream" in refused(tmp_path, data + data, "arrow_ipc").message
    assert "send one stream" in refused(tmp_path, data + b"\0" * 8, "arrow_ipc").message


@pytest.mark.parametrize("format", ["arrow_ipc", "parquet"])
@pytest.mark.parametrize("data", [b"", b"user_id,item_id\n", b"PK\x03\x04zip", b"ARROW", b"PAR"])
def test_what_is_another_format_is_named(tmp_path: Path, format: Any, data: bytes) -> None:
    assert isinstance(refused(tmp_path, data, format), BadEncodingError | CorruptStreamError)


def test_an_empty_compressed_csv_has_no_header(tmp_path: Path) -> None:
    for data in (b"", compress(b"", "gzip"), compress(b"\n\n", "gzip")):
        assert isinstance(refused(tmp_path, data, "csv", "gzip"), NoHeaderError)


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1, data.count(old)
    return data.replace(old, new)


def test_forged_offsets_are_found_before_a_value_is_touched(tmp_path: Path) -> None:
    table = table_of([GOOD | {"user_id": "abcdefgh"}, GOOD | {"user_id": "ijklmnop"}])
    for write in (ipc_stream, ipc_file):
        data = patched(write(table), struct.pack("<3i", 0, 8, 16), struct.pack("<3i", 0, 0x7F000000, 16))
        assert isinstance(refused(tmp_path, data, "arrow_ipc"), CorruptStreamError)
        data = patched(write(table), struct.pack("<3i", 0, 8, 16), struct.pack("<3i", 0, 8, -16))
        assert isinstance(refused(tmp_path, data, "arrow_ipc"), CorruptStreamError)


def test_forged_views_are_found(tmp_path: Path) -> None:
    table = table_of([GOOD | {"user_id": "x" * 40}])
    table = table.set_column(0, "user_id", table["user_id"].cast(pa.string_view()))
    view = struct.pack("<i4sii", 40, b"xxxx", 0, 0)
    for forged in (
        (40, b"xxxx", 0, 1 << 30),
        (40, b"xxxx", 7, 0),
        (1 << 30, b"xxxx", 0, 0),
        (-1, b"xxxx", 0, 0),
    ):
        data = patched(ipc_stream(table), view, struct.pack("<i4sii", *forged))
        assert isinstance(refused(tmp_path, data, "arrow_ipc"), CorruptStreamError)


def test_forged_dictionary_indices_are_found(tmp_path: Path) -> None:
    table = table_of([GOOD | {"user_id": name * 3, "item_id": "iii"} for name in "abcdefg"])
    table = table.set_column(0, "user_id", table["user_id"].dictionary_encode())
    indices = struct.pack("<7i", *range(7))
    for forged in (7, 1 << 30, -1):
        data = patched(ipc_stream(table), indices, struct.pack("<7i", *range(6), forged))
        assert isinstance(refused(tmp_path, data, "arrow_ipc"), CorruptStreamError)


def test_a_length_that_lies_is_no_allocation(tmp_path: Path) -> None:
    data = bytearray(ipc_stream(table_of(many(50)), 50))
    # The body length of the record batch message, wherever it stands: each 8 bytes in turn become 1 TiB.
    for place in range(0, min(len(data), 1500), 8):
        forged = bytes(data[:place]) + struct.pack("<q", 1 << 40) + bytes(data[place + 8 :])
        config, source = staged(tmp_path, forged, "arrow_ipc", piece_bytes=1 << 20)
        try:
            Taken(tmp_path / str(place), decoded(config, source))
        except InvalidDataError:
            continue


def test_rows_that_cost_nothing_to_write_are_counted(tmp_path: Path) -> None:
    nothing = pa.table({name: pa.nulls(50_000_000) for name in INTERACTIONS})
    assert isinstance(refused(tmp_path, ipc_stream(nothing, 50_000_000), "arrow_ipc"), TooLargeError)
    assert isinstance(refused(tmp_path, parquet(nothing, 50_000_000), "parquet"), TooLargeError)


def test_a_dictionary_that_unfolds_to_too_much_is_refused(tmp_path: Path) -> None:
    text = pa.array(["x" * 100_000])
    ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), text)
    table = table_of([GOOD] * 100_000).set_column(0, "user_id", ids)
    for format, write in ARROWS:
        data = write(table, 100_000)
        error = refused(tmp_path, data, format)
        assert isinstance(error, TooLargeError), format


def test_encrypted_parquet_is_named_unless_nobody_asks_for_the_column(tmp_path: Path) -> None:
    table = table_of([GOOD]).append_column("colour", pa.array(["red"]))
    error = refused(tmp_path, encrypted_parquet(table, "user_id"), "parquet")
    assert isinstance(error, CorruptStreamError)
    assert "write it without encryption" in error.message
    error = refused(tmp_path, encrypted_parquet(table, "user_id", plaintext_footer=False), "parquet")
    assert error.attributes["found"].endswith("(encrypted Parquet)")
    config, source = staged(tmp_path, encrypted_parquet(table, "colour"), "parquet")
    ((block, _, _),) = decoded(config, source)
    assert block.rows == 1


def test_row_groups_of_a_few_rows_share_blocks_and_the_footer_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], pq.ParquetFile

    def opens(*args: Any, **options: Any) -> Any:
        opened.append(options)
        return real(*args, **options)

    data = parquet(table_of(many(1000)), 3)
    monkeypatch.setattr(pq, "ParquetFile", opens)
    config, source = staged(tmp_path, data, "parquet", piece_bytes=1 << 20)
    ((block, _, payload),) = decoded(config, source)
    assert (block.rows, len(opened)) == (1000, 1)
    assert payload["item_id"].to_pylist() == [f"i{n}".encode() for n in range(1000)]


def test_a_parquet_footer_that_says_more_rows_than_there_are_is_refused(tmp_path: Path) -> None:
    data = parquet(table_of(many(100)), 100)
    number, forged = (bytes([0x16, 2 * rows & 0x7F | 0x80, 2 * rows >> 7]) for rows in (100, 101))
    # The file says it first, then every column, then the row group.
    file, group = data.index(number, data.rindex(b"\x19\x6c")), data.rindex(number)
    for places in ((file,), (group,), (file, group)):
        lie = bytearray(data)
        for at in places:
            lie[at : at + len(forged)] = forged
        assert isinstance(refused(tmp_path, bytes(lie), "parquet"), CorruptStreamError)


@pytest.mark.parametrize(("format", "write"), ARROWS, ids=["stream", "file", "parquet"])
def test_a_record_above_a_mebibyte_is_refused_as_in_csv(tmp_path: Path, format: Any, write: Any) -> None:
    rows = [GOOD, GOOD | {"item_id": "x" * ((1 << 20) + 1)}]
    error = refused(tmp_path, write(table_of(rows)), format)
    assert isinstance(error, RecordTooLargeError)
    assert error.attributes == {"row_number": "1", "limit_bytes": str(1 << 20)}


def test_unvalidated_values_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise AssertionError("a value was read")

    data = patched(
        ipc_stream(table_of([GOOD | {"user_id": "abcdefgh"}, GOOD | {"user_id": "ijklmnop"}])),
        struct.pack("<3i", 0, 8, 16),
        struct.pack("<3i", 0, 0x7F000000, 16),
    )
    monkeypatch.setattr(arrow_module, "_lengths", stop)
    monkeypatch.setattr(arrow_module, "_raw", stop)
    assert isinstance(refused(tmp_path, data, "arrow_ipc"), CorruptStreamError)
