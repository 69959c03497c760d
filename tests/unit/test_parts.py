"""Parts: the rows come back exactly, shards read only what they need, damage is noticed."""

from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from headrace_compute.errors import PartLostError, StoreUnavailableError
from headrace_compute.model import BUCKETS, ROW_GROUP_ROWS, ColumnStats, DataFile, Part
from headrace_compute.objects.store import KeyExistsError, LocalStore
from headrace_compute.parts import (
    part_row_groups,
    read_part,
    read_parts,
    read_row_groups,
    verify_part,
    write_part,
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path))


def clustered(rows: int, seed: int = 0) -> pa.Table:
    """Rows with a number of their own, sorted by bucket."""
    buckets = np.sort(np.random.default_rng(seed).integers(0, BUCKETS, rows).astype(np.int16))
    return pa.table(
        {
            "number": pa.array(range(rows), pa.int64()),
            "bucket": buckets,
            "name": pa.array([f"ü{bucket % 7}" for bucket in buckets], pa.string()),
        }
    )


def data_file(part: Part) -> DataFile:
    return DataFile(part.key, part.rows, part.size_bytes)


def test_every_type_we_store_comes_back_as_it_was(store: LocalStore) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", None, "日本", ""]),
            "time": pa.array([0, -1, None, 2**52], pa.timestamp("us", tz="UTC")),
            "short": pa.array([-(2**15), 2**15 - 1, None, 0], pa.int16()),
            "long": pa.array([-(2**63), 2**63 - 1, None, 0], pa.int64()),
            "hash": pa.array([2**64 - 1, 0, None, 1], pa.uint64()),
            "real": pa.array([0.1, None, -0.0, 1e300]),
            "flag": pa.array([True, None, False, True]),
            "list": pa.array([["b", "a"], [], None, [None]], pa.list_(pa.string())),
        }
    )
    write_part(store, "p", table)
    assert read_part(store, "p").cast(table.schema).equals(table)
    assert read_part(store, "p").schema.types == table.schema.types


def test_dictionary_columns_are_stored_as_their_values(store: LocalStore) -> None:
    plain = pa.table({"name": ["x", "y", None, "x"]})
    encoded = pa.table({"name": plain["name"].dictionary_encode()})
    assert write_part(store, "plain", plain).checksum == write_part(store, "encoded", encoded).checksum
    assert read_part(store, "encoded").equals(plain)


def test_texts_that_rarely_repeat_have_no_dictionary(store: LocalStore) -> None:
    rows = ROW_GROUP_ROWS * 2
    table = pa.table(
        {
            "user": [f"user-{number * 2 // 3}" for number in range(rows)],
            "item": [f"item-{number * 7919 % 5000}" for number in range(rows)],
            "title": [None, *(f"a title of {number}" for number in range(1, rows))],
        }
    )
    write_part(store, "p", table)
    group = pq.ParquetFile(pa.BufferReader(store.get("p"))).metadata.row_group(0)
    coded = [column for column in range(3) if group.column(column).has_dictionary_page]
    assert coded == [1]
    assert read_part(store, "p").equals(table)


@pytest.mark.parametrize("count", [1, 2, 3, ROW_GROUP_ROWS + 5])
def test_a_constant_column_is_stored_the_same_from_a_dictionary(store: LocalStore, count: int) -> None:
    plain = pa.table({"name": ["x"] * count})
    constant = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x"]))
    encoded = pa.table({"name": constant})
    assert write_part(store, "plain", plain).checksum == write_part(store, "encoded", encoded).checksum
    assert read_part(store, "encoded").equals(plain)


def test_equal_rows_give_equal_bytes_however_they_are_chunked(store: LocalStore) -> None:
    table = clustered(40_000)
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7, 30_000), table.slice(30_007)])
    assert write_part(store, "a", table).checksum == write_part(store, "b", pieces).checksum
    assert store.get("a") == store.get("b")


def test_a_part_describes_its_file(store: LocalStore) -> None:
    part = write_part(store, "a/b.parquet", clustered(40_000))
    data = store.get("a/b.parquet")
    assert (part.key, part.rows, part.size_bytes) == ("a/b.parquet", 40_000, len(data))
    assert part.checksum == xxhash.xxh128(data).hexdigest()
    assert part_row_groups(store, part.key) == -(-40_000 // ROW_GROUP_ROWS)


def test_statistics_are_exact_and_count_nulls(store: LocalStore) -> None:
    table = pa.table(
        {
            "text": ["b", "ä", None, "B"],
            "time": pa.array([5, None, 3, 9], pa.timestamp("us", tz="UTC")),
            "none": pa.nulls(4, pa.float64()),
            "coded": pa.array(["x", "z", "y", "z"]).dictionary_encode(),
            "left_out": [1, 2, 3, 4],
        }
    )
    part = write_part(store, "p", table, stats=["text", "time", "none", "coded"])
    assert part.stats == {
        "text": ColumnStats("B", "ä", 1),
        "time": ColumnStats(3, 9, 1),
        "none": ColumnStats(None, None, 4),
        "coded": ColumnStats("x", "z", 0),
    }


def test_writing_the_same_part_again_is_no_error_but_another_one_is(store: LocalStore) -> None:
    assert write_part(store, "p", clustered(10)) == write_part(store, "p", clustered(10))
    with pytest.raises(KeyExistsError):
        write_part(store, "p", clustered(11))
    assert read_part(store, "p").num_rows == 10


def test_columns_come_in_the_order_asked_for(store: LocalStore) -> None:
    write_part(store, "p", clustered(10))
    assert read_part(store, "p", ["name", "number"]).column_names == ["name", "number"]
    assert read_row_groups(store, "p", [0], ["bucket", "number"]).column_names == ["bucket", "number"]
    with pytest.raises(KeyError):
        read_part(store, "p", ["number", "unknown"])


def test_row_groups_can_be_read_one_by_one(store: LocalStore) -> None:
    table = clustered(2 * ROW_GROUP_ROWS + 5)
    write_part(store, "p", table)
    assert read_row_groups(store, "p", [2]).equals(table.slice(2 * ROW_GROUP_ROWS))
    assert read_row_groups(store, "p", [0, 2], ["number"]).num_rows == ROW_GROUP_ROWS + 5
    assert read_row_groups(store, "p", [], ["number"]).num_rows == 0


@pytest.mark.parametrize("columns", [["number"], ["name", "bucket"], ["bucket"], ["number", "name"]])
def test_parts_are_read_one_behind_the_other(store: LocalStore, columns: list[str]) -> None:
    tables = [clustered(rows, seed=rows) for rows in (50_000, 1, 0, 300)]
    files = [data_file(write_part(store, f"p{i}", table)) for i, table in enumerate(tables)]
    assert read_parts(store, files, columns).equals(pa.concat_tables(tables).select(columns))


def test_strings_can_stay_dictionary_encoded(store: LocalStore) -> None:
    files = [data_file(write_part(store, f"p{i}", clustered(1000, seed=i))) for i in range(2)]
    coded = read_parts(store, files, ["name", "number"], dictionary=["name"])
    assert pa.types.is_dictionary(coded.schema.field("name").type)
    assert coded.to_pylist() == read_parts(store, files, ["name", "number"]).to_pylist()


def test_no_files_are_no_rows(store: LocalStore) -> None:
    empty = read_parts(store, [], ["a", "b"])
    assert (empty.num_rows, empty.column_names) == (0, ["a", "b"])


def test_other_readers_see_plain_utc_times_and_strings(store: LocalStore, tmp_path: Path) -> None:
    moment = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
    write_part(store, "p.parquet", pa.table({"time": pa.array([moment], pa.timestamp("us", tz="UTC"))}))
    assert pl.read_parquet(tmp_path / "p.parquet")["time"].to_list() == [moment]


def test_a_sound_part_passes_and_a_damaged_one_is_told(store: LocalStore) -> None:
    part = write_part(store, "p", clustered(100))
    verify_part(store, part)
    data = bytearray(store.get("p"))
    data[len(data) // 3] ^= 1
    for damaged in (bytes(data), bytes(data[:-1])):
        store.put("p", damaged)
        with pytest.raises(PartLostError, match=r"damaged|cannot be read"):
            verify_part(store, part)
    store.delete("p")
    with pytest.raises(PartLostError, match="gone"):
        verify_part(store, part)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[:-1],
    "cut to a half": lambda data: data[: len(data) // 2],
    "begins late": lambda data: data[1_000:],
    "lacks its middle": lambda data: data[:5_000] + data[6_000:],
    "zeros": lambda data: data[:4] + bytes(2_000) + data[2_004:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_told_from_a_store_that_breaks_off(tmp_path: Path, damage: str) -> None:
    class BreaksOff(LocalStore):
        """Bytes come until they are asked for in ranges; then all at once, unless it is away."""

        is_away = False

        def open(self, key: str) -> pa.NativeFile:
            class Cut(BytesIO):
                def read(self, count: int | None = -1, /) -> bytes:
                    raise OSError("AWS Error NETWORK_CONNECTION: curlCode: 56")

            return pa.PythonFile(Cut(self.get(key)), "r")

        def get(self, key: str) -> bytes:
            if self.is_away:
                raise StoreUnavailableError("The store is away.")
            return super().get(key)

    whole, breaks_off = LocalStore(str(tmp_path)), BreaksOff(str(tmp_path))
    table = clustered(2 * ROW_GROUP_ROWS)
    write_part(whole, "p", table)
    for store in (whole, breaks_off):
        assert read_row_groups(store, "p", [0, 1]).equals(table)
    whole.put("p", DAMAGES[damage](whole.get("p")))
    for store in (whole, breaks_off):
        with pytest.raises(PartLostError, match="The part p is damaged") as caught:
            read_row_groups(store, "p", [0, 1])
        assert caught.value.attributes == {"part": "p"}
    breaks_off.is_away = True
    with pytest.raises(StoreUnavailableError):
        read_part(breaks_off, "p", at_once=True)


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("raw-data/acme/interactions/p", "Upload its rows anew"),
        ("processed-data/acme/rejects/published=true/p", "Upload its rows anew"),
        ("raw-data/_headrace/uploads/acme/u/sidecars/p", "Upload its rows anew"),
        ("training-data/acme/item_vocabulary/p", "Put it back from a backup"),
        ("training-data/acme/datasets/items/p", "Run again"),
        ("features/acme/user_features/p", "Run again"),
    ],
)
def test_what_to_do_about_a_lost_part_depends_on_who_wrote_it(
    store: LocalStore, key: str, remedy: str
) -> None:
    with pytest.raises(PartLostError, match=f"gone from the store. {remedy}"):
        read_part(store, key)
    store.create(key, b"")
    with pytest.raises(PartLostError, match=f"damaged.* {remedy}"):
        read_part(store, key)
    with pytest.raises(PartLostError, match=remedy):
        verify_part(store, Part(key, 1, 1, ""))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"user_id,item_id\n" * 100])
def test_bytes_that_are_no_parquet_are_a_typed_error(store: LocalStore, content: bytes) -> None:
    store.create("p", content)
    with pytest.raises(PartLostError):
        read_part(store, "p")
    with pytest.raises(PartLostError):
        read_parts(store, [DataFile("p", 1, len(content))], ["number"])
    with pytest.raises(PartLostError):
        read_part(store, "missing")
