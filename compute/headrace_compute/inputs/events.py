"""The source of every run: interactions of one version before `as_of`, duplicates once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute import cancellation
from headrace_compute.delta.layout import CONTRACT_SCHEMAS
from headrace_compute.errors import NoInteractionsError
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import DataFile, Shard, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import newest_us, read_buckets
from headrace_compute.report import iso_time

CONTRACT_SCHEMA = CONTRACT_SCHEMAS["interactions"]
"""Rows equal in all of these (null = null) are one interaction."""

END_US = 253_402_300_800_000_000
"""The end of the year 9999 in microseconds since the epoch: no event is at it or after it."""

_FACTORS = np.array(
    [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], dtype=np.uint64
)
"""Odd, with bits spread evenly: the primes of XXH64."""


@dataclass(frozen=True)
class Events:
    """The source rows of a shard, with numbers for names.

    Attributes:
        rows: user_code i32, item_code i32, interaction_type dictionary<string>, time_us i64, rating f64.
        users: user_id by user_code, in the order of (bucket, user_id). Some may have no row.
        user_buckets: Bucket by user_code, int16.
        items: item_id by item_code, in the order of item_id. Some may have no row.
    """

    rows: pa.Table
    users: pa.Array
    user_buckets: np.ndarray
    items: pa.Array


def read_events(config: StoreConfig, files: Sequence[DataFile], shard: Shard, as_of_us: int | None) -> Events:
    """Reads the interactions of a shard that happened before `as_of_us` (None: all)."""
    names = CONTRACT_SCHEMA.names
    interactions = read_buckets(open_store(config), files, shard, names, dictionary=names[:3])
    return encode_events(interactions if files else CONTRACT_SCHEMA.empty_table(), as_of_us)


def count_source(config: StoreConfig, files: Sequence[DataFile], shard: Shard, as_of_us: int | None) -> int:
    """Counts the interactions of a shard that happened before `as_of_us` (None: all)."""
    return len(read_events(config, files, shard, as_of_us).rows)


def newest_event(config: StoreConfig, files: Sequence[DataFile]) -> int:
    """The time of the newest interaction, in microseconds since the epoch.

    Raises:
        NoInteractionsError: There is none.
    """
    store = open_store(config)
    newest = [time for file in files if (time := newest_us(store, file.key, "timestamp")) is not None]
    if not newest:
        raise no_interactions(None)
    return max(newest)


def no_interactions(as_of_us: int | None) -> NoInteractionsError:
    """The error of a run that has no interactions before `as_of_us`, or (None) none at all."""
    if as_of_us is None or as_of_us >= END_US:
        return NoInteractionsError("There are no interactions; upload some first.", {"as_of": ""})
    as_of = iso_time(as_of_us)
    return NoInteractionsError(
        f"There are no interactions before as_of = {as_of}; choose a later as_of, or upload some first.",
        {"as_of": as_of},
    )


def encode_events(interactions: pa.Table, as_of_us: int | None) -> Events:
    """Replaces names by codes, drops what is not before `as_of_us`, counts duplicates once.

    Args:
        interactions: CONTRACT_SCHEMA; strings may be dictionary-encoded.
        as_of_us: Exclusive end in microseconds since the epoch; None takes all.
    """
    user_indices, user_names = _encode(interactions["user_id"])
    item_indices, item_names = _encode(interactions["item_id"])
    cancellation.check()
    buckets = bucket_of(xxh64_strings(user_names))
    by_name = pc.sort_indices(user_names).to_numpy()
    user_order = by_name[np.argsort(buckets[by_name], kind="stable")]
    item_order = pc.sort_indices(item_names).to_numpy()
    rows = pa.table(
        {
            "user_code": _ranks(user_order)[user_indices],
            "item_code": _ranks(item_order)[item_indices],
            "interaction_type": _dictionary(interactions["interaction_type"]),
            "time_us": interactions["timestamp"].combine_chunks().view(pa.int64()),
            "rating": interactions["rating"].combine_chunks(),
        }
    )
    if as_of_us is not None:
        early = rows["time_us"].to_numpy() < as_of_us
        rows = rows if early.all() else rows.filter(pa.array(early))
    cancellation.check()
    return Events(
        rows=_drop_duplicates(rows),
        users=user_names.take(pa.array(user_order)),
        user_buckets=buckets[user_order],
        items=item_names.take(pa.array(item_order)),
    )


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return encoded.unify_dictionaries().combine_chunks()


def _encode(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    encoded = _dictionary(column)
    return encoded.indices.to_numpy(), encoded.dictionary


def _ranks(order: np.ndarray) -> np.ndarray:
    """The place of each index in `order`: int32."""
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks


def _drop_duplicates(rows: pa.Table) -> pa.Table:
    """Keeps one of equal rows. Sorting hashes shows that there are none, the usual case, at little cost."""
    hashes = _hash_rows(rows)
    in_order = np.sort(hashes)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    if not repeated.size:
        return rows
    suspects = np.flatnonzero(np.isin(hashes, repeated))
    # Equal hashes are no proof: grouping compares the values.
    distinct = (
        rows.take(pa.array(suspects))
        .append_column("position", pa.array(suspects))
        .group_by(rows.column_names)
        .aggregate([("position", "min")])
    )
    kept = np.ones(rows.num_rows, np.bool_)
    kept[suspects] = False
    kept[distinct["position_min"].to_numpy()] = True
    return rows.filter(pa.array(kept))


def _hash_rows(rows: pa.Table) -> np.ndarray:
    """A 64-bit hash of each row of codes, uint64; equal rows hash equally."""
    users, items = (rows[name].to_numpy().astype(np.uint64) for name in ("user_code", "item_code"))
    kinds = rows["interaction_type"].combine_chunks().indices.to_numpy().astype(np.uint64)
    times = rows["time_us"].to_numpy().view(np.uint64)
    ratings = pc.fill_null(rows["rating"], 0.0).to_numpy().view(np.uint64)
    hashes: np.ndarray = (users << np.uint64(32) | items) * _FACTORS[0]
    for column, factor in zip((times, kinds, ratings), _FACTORS[1:], strict=True):
        hashes = (hashes ^ hashes >> np.uint64(29)) + column * factor
    return hashes
