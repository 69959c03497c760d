"""Versions are derived again and compared, against rows compared in plain Python."""

import asyncio
import random
import struct
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.features import DEFAULTS, at, catalog_files, catalog_of, many_rows, micros, store_rows
from harness.workers import Unordered
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import PartLostError
from headrace_compute.features.run import make_features
from headrace_compute.inputs.workers import InProcess
from headrace_compute.kernels.digests import joined_digest, row_hashes, run_digests
from headrace_compute.model import BUCKETS, DataFile, Kind, Shard, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part
from headrace_compute.proof.check import CheckSink
from headrace_compute.proof.difference import Difference, DifferentValue
from headrace_compute.proof.run import prove
from headrace_compute.sink import PartSink, Sink
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.run import make_dataset

AS_OF = at("2024-03-01")
PARAMS = SamplingParams(min_interactions_per_user=2, min_interactions_per_item=2, strategy="mixed", seed=3)
KINDS: tuple[Kind, ...] = ("training_data", "user_features", "item_features")


class Shop:
    """A tenant's rows, of which every kind of table is made."""

    def __init__(self, root: Path) -> None:
        self.config = StoreConfig(str(root))
        rows = many_rows()
        self._interactions = store_rows(self.config, [rows[:800], rows[800:]])
        self.catalog = catalog_of(i1="One", i2="Two", i77="Never seen")
        self._derived: dict[Kind, pa.Table] = {}
        self._items = catalog_files(self.config, self.catalog)

    def make(self, kind: Kind, sink: Sink[Any], shards: int, seed: int = 0) -> Any:
        """Makes a table, on workers that take their time; returns what became of its rows."""
        workers = Unordered(self.config, seed)
        edges = [BUCKETS * number // shards for number in range(shards + 1)]
        plan = [Shard(*pair) for pair in pairwise(edges)]
        if kind == "training_data":
            return self._dataset(workers, plan, sink)
        return self._features(workers, plan, kind, sink)

    async def _dataset(self, workers: Any, plan: Sequence[Shard], sink: Sink[Any]) -> Any:
        files, as_of_us = self._interactions, micros(AS_OF)
        return (await make_dataset(workers, files, None, plan, as_of_us, PARAMS, sink)).parts

    async def _features(self, workers: Any, plan: Sequence[Shard], kind: Kind, sink: Sink[Any]) -> Any:
        other = PartSink(f"features/{uuid.uuid4().hex}-")
        sinks = (sink, other) if kind == "user_features" else (other, sink)
        files, as_of_us = self._interactions, micros(AS_OF)
        made = await make_features(workers, files, self._items, plan, as_of_us, DEFAULTS, *sinks)
        return made.users if kind == "user_features" else made.items

    def stored(self, kind: Kind, shards: int = 2) -> list[DataFile]:
        """The files of a table."""
        parts = asyncio.run(self.make(kind, PartSink(f"tables/{uuid.uuid4().hex}/"), shards))
        return [DataFile(part.key, part.rows, part.size_bytes) for part in parts]

    def derived(self, kind: Kind) -> pa.Table:
        """All rows of a table, made once."""
        if kind not in self._derived:
            self._derived[kind] = self.rows(self.stored(kind))
        return self._derived[kind]

    def prove(self, kind: Kind, files: Sequence[DataFile], shards: int, seed: int) -> Difference | None:
        """Derives a version again and compares."""

        async def derive(sink: CheckSink) -> Any:
            return await self.make(kind, sink, shards, seed)

        return asyncio.run(prove(Unordered(self.config, seed), kind, files, derive, lambda *_: None))

    def compare(self, kind: Kind, files: Sequence[DataFile]) -> Difference | None:
        """Compares with rows that were derived before."""

        async def derive(sink: CheckSink) -> Any:
            output, rows = sink.open(self.config), self.derived(kind)
            for name, begin in enumerate(range(0, rows.num_rows, 100)):
                output.write(str(name), rows.slice(begin, 100), stats=())
            return output.close()

        return asyncio.run(prove(InProcess(self.config), kind, files, derive, lambda *_: None))

    def rows(self, files: Sequence[DataFile]) -> pa.Table:
        return pa.concat_tables([read_part(open_store(self.config), file.key) for file in files])

    def write(self, *tables: pa.Table) -> list[DataFile]:
        """Files with these rows; the names have another order than the files."""
        store = open_store(self.config)
        keys = [f"tables/{uuid.uuid4().hex}.parquet" for _ in tables]
        parts = [write_part(store, key, table) for key, table in zip(keys, tables, strict=True)]
        files = [DataFile(part.key, part.rows, part.size_bytes) for part in parts]
        return sorted(files, key=lambda file: file.key)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [1, 7, pytest.param(64, marks=pytest.mark.slow)])
def test_a_version_is_equal_however_it_is_derived_again(shop: Shop, kind: Kind, shards: int) -> None:
    assert shop.prove(kind, shop.stored(kind), shards, seed=shards) is None


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written(shop: Shop, kind: Kind) -> None:
    files = shop.stored(kind)
    before = set(open_store(shop.config).list("tables/"))
    shop.prove(kind, files, 1, 0)
    assert set(open_store(shop.config).list("tables/")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_files_may_be_compacted_in_any_order_and_cut_anywhere(shop: Shop, kind: Kind) -> None:
    rows = shop.derived(kind)
    some = random.Random(5)
    for _ in range(3):
        cuts = sorted(some.sample(range(1, rows.num_rows), 5))
        pieces = [rows.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, rows.num_rows], strict=True)]
        some.shuffle(pieces)
        assert shop.compare(kind, shop.write(*pieces)) is None
        assert shop.compare(kind, shop.write(pa.concat_tables(pieces))) is None


@pytest.mark.parametrize("kind", KINDS)
def test_types_of_another_writer_are_no_difference(shop: Shop, kind: Kind) -> None:
    rows = shop.derived(kind)
    wide = {pa.string(): pa.large_string(), pa.list_(pa.int64()): pa.large_list(pa.int64())}
    fields = [pa.field(field.name, wide.get(field.type, field.type)) for field in rows.schema]
    key = f"tables/{uuid.uuid4().hex}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(rows.cast(pa.schema(fields)).select(sorted(rows.column_names)), sink)
    open_store(shop.config).create(key, sink.getvalue())
    assert shop.compare(kind, [DataFile(key, rows.num_rows, 1)]) is None


def altered(value: Any, kind: pa.DataType) -> Any:
    """Another value, by as little as there is."""
    if value is None:
        return {"string": "", "double": 0.0}.get(str(kind), 0)
    if pa.types.is_list(kind):
        return value[:-1] if value else None
    if pa.types.is_floating(kind):
        (bits,) = struct.unpack("<q", struct.pack("<d", value))
        return struct.unpack("<d", struct.pack("<q", bits ^ 1))[0]
    if pa.types.is_string(kind):
        return value + "\0"
    if pa.types.is_boolean(kind):
        return not value
    return (
        value + 1 if pa.types.is_integer(kind) else value.replace(microsecond=(value.microsecond + 1) % 10**6)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_altered_value_is_found_with_its_bucket_its_row_and_its_column(shop: Shop, kind: Kind) -> None:
    rows = shop.derived(kind)
    some = random.Random(9)
    for name in rows.column_names:
        if name == "bucket":
            continue
        number, column = some.randrange(rows.num_rows), rows[name].to_pylist()
        was, column[number] = column[number], altered(column[number], rows.schema.field(name).type)
        place = rows.column_names.index(name)
        changed = rows.set_column(place, name, pa.array(column, rows.schema.field(name).type))
        found = shop.compare(kind, shop.write(changed))
        buckets = rows["bucket"].to_pylist()
        assert found is not None
        # Files begin a fragment where a bucket does: a changed key must not move the row.
        assert (found.section.bucket, found.row) == (buckets[number], number - buckets.index(buckets[number]))
        assert [value.column for value in found.values] == [name]
        assert (found.is_stored, found.is_derived) == (True, True)
        assert (found.values[0].derived is None) == (was is None)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_gone_doubled_swapped_or_strange_are_found(shop: Shop, kind: Kind) -> None:
    rows = shop.derived(kind)
    buckets = rows["bucket"].to_pylist()
    count = rows.num_rows
    crowded = max(set(buckets), key=buckets.count)
    first = buckets.index(crowded)
    last = first + buckets.count(crowded) - 1

    def only(order: Sequence[int]) -> Difference:
        found = shop.compare(kind, shop.write(rows.take(pa.array(order))))
        assert found is not None
        assert found.section.bucket == crowded
        return found

    everything = list(range(count))
    gone = only([number for number in everything if number != last])
    assert (gone.row, gone.is_stored, gone.is_derived) == (last - first, False, True)
    doubled = only([*everything[: last + 1], last, *everything[last + 1 :]])
    assert (doubled.row, doubled.is_stored, doubled.is_derived) == (last - first + 1, True, False)
    if last > first:
        swapped = only([*everything[: last - 1], last, last - 1, *everything[last + 1 :]])
        assert swapped.row == last - first - 1
    whole = only([number for number in everything if buckets[number] != crowded])
    assert (whole.row, whole.is_stored) == (0, False)
    absent = next(bucket for bucket in range(BUCKETS) if bucket not in buckets)
    moved = pa.array([absent if number == 0 else bucket for number, bucket in enumerate(buckets)], pa.int16())
    strange = rows.set_column(rows.column_names.index("bucket"), "bucket", moved)
    found = shop.compare(kind, shop.write(strange))
    assert found is not None
    assert found.section.bucket == min(absent, buckets[0])


def test_the_first_bucket_is_told_and_what_differs_in_its_row(shop: Shop) -> None:
    rows = shop.derived("training_data")
    probs = [None if prob is None else prob / 2 for prob in rows["sampling_prob"].to_pylist()]
    changed = rows.set_column(rows.column_names.index("sampling_prob"), "sampling_prob", pa.array(probs))
    found = shop.compare("training_data", shop.write(changed))
    assert found is not None
    number = next(number for number, prob in enumerate(probs) if prob is not None)
    row = rows.slice(number, 1).to_pylist()[0]
    assert (found.section.bucket, found.row) == (row["bucket"], number)
    assert (found.key["user_id"], found.key["item_id"]) == (f'"{row["user_id"]}"', f'"{row["item_id"]}"')
    assert found.values == (DifferentValue("sampling_prob", repr(probs[number]), repr(row["sampling_prob"])),)


def test_a_column_that_the_files_lack_counts_as_null(shop: Shop) -> None:
    rows = shop.derived("training_data")
    assert shop.compare("training_data", shop.write(rows.drop_columns(["split"]))) is None
    found = shop.compare("training_data", shop.write(rows.drop_columns(["label"])))
    assert found is not None
    assert [value.column for value in found.values] == ["label"]
    assert found.values[0].stored is None


def test_one_altered_byte_is_found_or_changes_no_value(shop: Shop) -> None:
    """Wherever it is: the file may be Parquet no more, or have another value, or the same ones."""
    (file,) = shop.write(shop.derived("training_data"))
    data = open_store(shop.config).get(file.key)
    whole = pq.read_table(pa.BufferReader(data))
    some = random.Random(2)
    outcomes = Counter[str]()
    for _ in range(60):
        place = some.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= 1 << some.randrange(8)
        key = f"tables/{uuid.uuid4().hex}.parquet"
        open_store(shop.config).create(key, bytes(damaged))
        try:
            found = shop.compare("training_data", [DataFile(key, file.rows, len(data))])
        except PartLostError:
            outcomes["lost"] += 1
            continue
        if found is None:
            assert pq.read_table(pa.BufferReader(bytes(damaged))).equals(whole)
        outcomes["same" if found is None else "different"] += 1
    assert outcomes["different"] > 10


@pytest.mark.parametrize("missing", [True, False])
def test_a_file_that_is_gone_is_named(shop: Shop, missing: bool) -> None:
    files = shop.stored("user_features")
    store = open_store(shop.config)
    store.delete(files[1].key)
    if not missing:
        store.create(files[1].key, b"no Parquet")
    with pytest.raises(PartLostError) as caught:
        shop.compare("user_features", files)
    assert caught.value.attributes == {"part": files[1].key}


NUMBERS = st.one_of(st.none(), st.integers(-2, 2))
ROWS = st.tuples(
    NUMBERS,
    st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, float("nan")])),
    st.one_of(st.none(), st.sampled_from(["", "a", "a\0"])),
    st.one_of(st.none(), st.booleans()),
    st.one_of(st.none(), st.lists(st.one_of(st.none(), st.sampled_from(["", "a"])), max_size=2)),
)


def table_of(rows: Sequence[Any]) -> pa.Table:
    kinds = (pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.list_(pa.string()))
    columns = zip(*rows, strict=True) if rows else [()] * 5
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return pa.table(dict(zip("abcde", arrays, strict=True)))


def digest_of(rows: Sequence[Any]) -> int:
    hashes = row_hashes(table_of(rows))
    return int(run_digests(hashes, pa.array([0, len(rows)]).to_numpy())[0])


def bits(row: Any) -> Any:
    number, double, text, flag, texts = row
    return number, None if double is None else struct.pack("<d", double), text, flag, texts


@given(st.lists(ROWS, max_size=6), st.lists(ROWS, max_size=6))
def test_digests_are_equal_where_rows_are_bit_for_bit(one: list[Any], other: list[Any]) -> None:
    same = len(one) == len(other) and list(map(bits, one)) == list(map(bits, other))
    assert ((digest_of(one), len(one)) == (digest_of(other), len(other))) == same


@given(st.lists(ROWS, max_size=8), st.integers(0, 8), st.randoms())
def test_digests_of_pieces_give_that_of_the_whole(rows: list[Any], cut: int, some: random.Random) -> None:
    first, second = rows[:cut], rows[cut:]
    assert joined_digest(digest_of(first), digest_of(second), len(second)) == digest_of(rows)
    table = table_of(rows)
    shuffled = some.sample(table.column_names, 5)
    chunks = pa.concat_tables([table.slice(0, cut), table.slice(cut)]).select(shuffled)
    assert row_hashes(chunks).tolist() == row_hashes(table).tolist()


@pytest.mark.parametrize("make", [lambda: (1, 2), lambda: (2**61 - 2, 2**61 - 2), lambda: (2**64 - 1, 5)])
def test_the_digest_is_the_polynomial_that_it_says(make: Callable[[], tuple[int, int]]) -> None:
    """In whole numbers of any size."""
    prime, base = 2**61 - 1, 0x0B7E151628AED2A6
    hashes = make() * 3
    expected = 0
    for number in hashes:
        expected = (expected * base + number) % prime
    found = run_digests(pa.array(hashes, pa.uint64()).to_numpy(), pa.array([0, len(hashes)]).to_numpy())
    assert found.tolist() == [expected]
