"""The exchange: each file of a version is read once, and every shard is handed its rows.

A stage reads a batch of whole files and cuts their rows at the edges of the shards. What it makes stays
with the workers, a slice for each shard, until the shard's own stage takes the slices of all batches. So what
a row costs depends neither on how many rows there are, nor on how many shards they are cut into.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute import cancellation
from headrace_compute.columns import BUCKET, CONTRACT, INTERACTION_TYPES
from headrace_compute.model import Batch, Shard, StoreConfig
from headrace_compute.objects.store import ObjectStore, open_store
from headrace_compute.parts import read_part

COLUMNS = tuple(CONTRACT["interactions"])

_TYPES = pa.array(INTERACTION_TYPES)


@dataclass(frozen=True)
class Slice:
    """Rows of interactions in one order, with numbers for what repeats.

    Attributes:
        user_ids: user_id, string.
        items: int32, the place of each item_id among the items of the batch.
        types: int8, the place of each interaction_type in INTERACTION_TYPES.
        times_us: int64.
        rated: A bit for each row, packed (uint8): whether it has a rating.
        some_ratings: float64, of the rows that have one: most events of most tenants have none.
    """

    user_ids: pa.Array
    items: np.ndarray
    types: np.ndarray
    times_us: np.ndarray
    rated: np.ndarray
    some_ratings: np.ndarray

    @property
    def ratings(self) -> np.ndarray:
        """The rating of each row, float64; NaN for null."""
        ratings = np.full(len(self.items), np.nan)
        ratings[np.unpackbits(self.rated, count=len(self.items)).view(np.bool_)] = self.some_ratings
        return ratings


class _Rows(NamedTuple):
    """Rows from which slices are cut; the columns are those of a Slice."""

    user_ids: pa.Array
    items: np.ndarray
    types: np.ndarray
    times_us: np.ndarray
    ratings: np.ndarray

    def cut(self, ranges: Sequence[tuple[int, int]]) -> Slice:
        """The rows of some ranges, [begin, end), one behind the other, copied."""

        def picked(column: np.ndarray) -> np.ndarray:
            return np.concatenate([column[begin:end] for begin, end in ranges])

        # Behind nothing: one array alone would not be copied, and a slice is pickled with all of its array.
        users = [self.user_ids.slice(begin, end - begin) for begin, end in ranges]
        ratings = picked(self.ratings)
        rated = ~np.isnan(ratings)
        return Slice(
            pa.concat_arrays([self.user_ids.slice(0, 0), *users]),
            picked(self.items),
            picked(self.types),
            picked(self.times_us),
            np.packbits(rated),
            ratings[rated],
        )


def exchange(
    config: StoreConfig, batch: Batch, shards: Sequence[Shard], as_of_us: int | None
) -> Iterator[pa.Array | Slice]:
    """Reads a batch of interactions.

    Args:
        config: Where objects live.
        batch: What to read.
        shards: Ranges of buckets that follow each other and cover all.
        as_of_us: Only events before it, in microseconds since the epoch; None takes all.

    Yields:
        The item_ids of the batch, each once, in no order; then for each shard a Slice.
    """
    store = open_store(config)
    tables = []
    for file in batch.files:
        cancellation.check()
        tables.append(_read(store, file.key, as_of_us))
    rows = pa.concat_tables(tables)
    edges = [*(shard.first for shard in shards), shards[-1].last]
    bounds, begin = [], 0
    for table in tables:
        bounds.append(begin + np.searchsorted(table[BUCKET].to_numpy(), edges))
        begin += table.num_rows
    del tables
    item_ids, everything = _encoded(rows)
    yield item_ids
    for number in range(len(shards)):
        cancellation.check()
        yield everything.cut([(bound[number], bound[number + 1]) for bound in bounds])


def encode_texts(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """The place of each text among the different ones (int32), and these."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries().combine_chunks()
    return encoded.indices.to_numpy(), encoded.dictionary


def encode_rows(rows: pa.Table) -> tuple[pa.Array, Slice]:
    """The different item_ids of interactions (the columns of the contract), and the rows."""
    item_ids, everything = _encoded(rows)
    return item_ids, everything.cut([(0, rows.num_rows)])


def _encoded(rows: pa.Table) -> tuple[pa.Array, _Rows]:
    items, item_ids = encode_texts(rows["item_id"])
    used = np.bincount(items, minlength=len(item_ids)) > 0
    if not used.all():
        items, item_ids = (np.cumsum(used, dtype=np.int32) - 1)[items], item_ids.filter(pa.array(used))
    types, names = encode_texts(rows["interaction_type"])
    places = pc.index_in(names, value_set=_TYPES).to_numpy(zero_copy_only=False).astype(np.int8)
    return item_ids, _Rows(
        rows["user_id"].combine_chunks(),
        items,
        places[types],
        rows["timestamp"].cast(pa.int64()).to_numpy(),
        rows["rating"].to_numpy(),
    )


def _read(store: ObjectStore, key: str, as_of_us: int | None) -> pa.Table:
    """The rows of a file before `as_of_us`, in the order of their buckets."""
    # Items and types repeat: as dictionaries they are faster to read, and each text is handled once.
    texts = ["item_id", "interaction_type"]
    table = read_part(store, key, [*COLUMNS, BUCKET], dictionary=texts, at_once=True)
    if as_of_us is not None:
        early = table["timestamp"].cast(pa.int64()).to_numpy() < as_of_us
        table = table if early.all() else table.filter(pa.array(early))
    buckets = table[BUCKET].to_numpy()
    if np.all(buckets[1:] >= buckets[:-1]):
        return table
    return table.take(pa.array(np.argsort(buckets, kind="stable")))
