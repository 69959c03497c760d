"""The events of a shard: its interactions before `as_of`, of which equal ones count once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute import cancellation
from headrace_compute.errors import NoInteractionsError
from headrace_compute.inputs.exchange import Slice, encode_texts
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import DataFile, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import newest_us
from headrace_compute.report import END_US, iso_time

_FACTORS = np.array(
    [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], dtype=np.uint64
)
"""Odd, with bits spread evenly: the primes of XXH64."""


@dataclass(frozen=True)
class Events:
    """The source rows of a shard, duplicates once, with numbers for names.

    Attributes:
        rows: user_code i32, item_code i32, interaction_type i8 (its place in INTERACTION_TYPES), time_us i64,
            rating f64.
        users: user_id by user_code, in the order of (bucket, user_id).
        user_buckets: Bucket by user_code, int16.
        numbering: Of the item_codes.
    """

    rows: pa.Table
    users: pa.Array
    user_buckets: np.ndarray
    numbering: Numbering

    def before(self, end_us: int) -> "Events":
        """Those before an instant, microseconds since the epoch, with the numbers that all have."""
        is_before = self.rows["time_us"].to_numpy() < end_us
        return self if is_before.all() else replace(self, rows=self.rows.filter(pa.array(is_before)))


def gather(numbering: Numbering, slices: Sequence[Slice]) -> Events:
    """The events of a shard.

    Args:
        numbering: Of all items.
        slices: The shard's rows of each batch, in the order of the batches.
    """
    columns = [pa.array([], pa.string()), *(rows.user_ids for rows in slices)]
    user_indices, user_names = encode_texts(pa.chunked_array(columns))
    cancellation.check()
    buckets = bucket_of(xxh64_strings(user_names))
    by_name = pc.sort_indices(user_names).to_numpy()
    user_order = by_name[np.argsort(buckets[by_name], kind="stable")]
    items = [places[rows.items] for places, rows in zip(numbering.places, slices, strict=True)]
    rows = pa.table(
        {
            "user_code": _ranks(user_order)[user_indices],
            "item_code": _joined(np.int32, items),
            "interaction_type": _joined(np.int8, (rows.types for rows in slices)),
            "time_us": _joined(np.int64, (rows.times_us for rows in slices)),
            "rating": pa.array(_joined(np.float64, (rows.ratings for rows in slices)), from_pandas=True),
        }
    )
    cancellation.check()
    users, buckets = user_names.take(pa.array(user_order)), buckets[user_order]
    return Events(_drop_duplicates(rows), users, buckets, numbering)


def _joined(kind: type[np.generic], columns: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *columns])


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


def no_interactions(as_of_us: int | None, known_us: int | None = None) -> NoInteractionsError:
    """The error of a run that has no interactions: before `as_of_us`, yet at `known_us`, or at all."""
    if known_us is not None:
        known_at = iso_time(known_us)
        return NoInteractionsError(
            f"There were no interactions yet at known_at = {known_at}; choose a later known_at.",
            {"known_at": known_at},
        )
    if as_of_us is None or as_of_us >= END_US:
        return NoInteractionsError("There are no interactions; upload some first.", {"as_of": ""})
    as_of = iso_time(as_of_us)
    return NoInteractionsError(
        f"There are no interactions before as_of = {as_of}; choose a later as_of, or upload some first.",
        {"as_of": as_of},
    )


def _ranks(order: np.ndarray) -> np.ndarray:
    """The place of each index in `order`: int32."""
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks


def _drop_duplicates(rows: pa.Table) -> pa.Table:
    """Keeps one of rows that are equal in all columns of the contract; null equals null.

    Sorting hashes shows that there are none, the usual case, at little cost.
    """
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
    kinds = rows["interaction_type"].to_numpy().astype(np.uint64)
    times = rows["time_us"].to_numpy().view(np.uint64)
    ratings = pc.fill_null(rows["rating"], 0.0).to_numpy().view(np.uint64)
    hashes: np.ndarray = (users << np.uint64(32) | items) * _FACTORS[0]
    for column, factor in zip((times, kinds, ratings), _FACTORS[1:], strict=True):
        hashes = (hashes ^ hashes >> np.uint64(29)) + column * factor
    return hashes
