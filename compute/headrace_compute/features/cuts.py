"""Features at many cut times: of users and items, each before some instants of its own.

Whoever joins features to events by time asks for pairs of an id and a cut. For each it gets what tables of
a features run as of that instant would say. Users are whole in their shard. Items are not, so their events
go on from the shards of users to those of items, and are whole there. What all items have together, at each
cut, is added up between.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute import cancellation
from headrace_compute.columns import BUCKET
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.features.aggregate import as_stored, name_items
from headrace_compute.features.feature import Feature, Grain
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.queries import points_query
from headrace_compute.features.registry import CUT, cuts_schema_of, key_of, overalls_of, partials_of
from headrace_compute.features.snapshot import ITEM_CODE, listed_by_number
from headrace_compute.features.timeline import Points, Timeline, rows_of_users
from headrace_compute.inputs.duckdb_session import DuckDBSession
from headrace_compute.inputs.events import Events, gather
from headrace_compute.inputs.exchange import Slice, encode_texts
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.kernels.timelines import by_time
from headrace_compute.model import Shard, StoreConfig

_ITEM_EVENT = (ITEM_CODE, "interaction_type", "time_us", "rating", "is_first")


def split_users(config: StoreConfig, shards: Sequence[Shard], *asked: pa.Table) -> Iterator[pa.Table]:
    """What is asked of users, for each shard.

    Args:
        config: Unused.
        shards: Ranges of buckets that follow each other and cover all.
        asked: user_id (string, or a dictionary of these) and cut (timestamp); the same may come twice.

    Yields:
        user_id, cut and bucket of the shard's users: each pair once, in the order of bucket, user_id and cut.
    """
    yield from _split(distinct_points("user_id", *asked), shards)


def split_items(
    config: StoreConfig, shards: Sequence[Shard], numbering: Numbering, *asked: pa.Table
) -> Iterator[np.ndarray | pa.Table]:
    """The same of items.

    Yields:
        All cuts, each once, ascending: microseconds since the epoch, int64. Then for each shard item_id, cut,
        bucket, and item_code: the item's number, null if it is neither in the source nor in the catalog.
    """
    points = with_codes(distinct_points("item_id", *asked), numbering)
    yield np.unique(_micros(points[CUT]))
    yield from _split(points, shards)


def shards_of_items(config: StoreConfig, shards: Sequence[Shard], numbering: Numbering) -> np.ndarray:
    """The place of each item's shard, int16 by number."""
    firsts = [shard.first for shard in shards]
    buckets = bucket_of(xxh64_strings(numbering.item_ids))
    return (np.searchsorted(firsts, buckets, side="right") - 1).astype(np.int16)


def user_cuts(
    config: StoreConfig,
    shard: Shard,
    params: FeatureParams,
    features: Sequence[Feature],
    asked: pa.Table,
    shards: int,
    homes: np.ndarray,
    numbering: Numbering,
    *slices: Slice,
) -> Iterator[pa.Table]:
    """The user features of a shard at cut times, and its events on the way to the shards of their items.

    Args:
        config: Unused.
        shard: Which one, for its name.
        params: What windows, weights and so on are.
        features: The columns that are wanted.
        asked: Of `split_users`.
        shards: How many shards of items there are.
        homes: `shards_of_items`.
        numbering: Of all items.
        slices: Its rows, of each batch.

    Yields:
        `users_at`, then for each shard of items its part of `rows_of_users`, without the users.
    """
    events = gather(numbering, slices)
    cancellation.check()
    rows = rows_of_users(events)
    yield users_at(events, rows, asked, params, features)
    of_items = homes[rows[ITEM_CODE].to_numpy()]
    order = np.argsort(of_items, kind="stable")
    ends = np.cumsum(np.bincount(of_items, minlength=shards))
    for begin, end in zip([0, *ends], ends, strict=False):
        cancellation.check()
        yield rows.select(_ITEM_EVENT).take(pa.array(order[begin:end]))


def item_points(
    config: StoreConfig,
    shard: Shard,
    params: FeatureParams,
    features: Sequence[Feature],
    cuts_us: np.ndarray,
    asked: pa.Table,
    numbering: Numbering,
    *rows: pa.Table,
) -> Iterator[pa.Table]:
    """What a shard of items has at cut times.

    Args:
        config: Unused.
        shard: Which one, for its name.
        params: What windows, weights and so on are.
        features: The columns that are wanted.
        cuts_us: All cuts, of `split_items`.
        asked: Of `split_items`.
        numbering: Of all items.
        rows: Its events, of each shard of users.

    Yields:
        What all of its items have together at each of the cuts: as_of_us, and the overalls of the features.
        Then for each that is asked place, item_code, as_of_us, and their partials.
    """
    yield from _item_points(rows, asked, cuts_us, params, features, numbering)


def add_overalls(config: StoreConfig, features: Sequence[Feature], *shards: pa.Table) -> pa.Table:
    """What all items have together at each cut, of what the items of each shard have."""
    columns = {"as_of_us": shards[0]["as_of_us"]}
    for each in overalls_of(features):
        add = np.add if each.function == "sum" else np.maximum
        columns[each.name] = reduce(add, (shard[each.name].to_numpy() for shard in shards))
    return pa.table(columns)


def item_cuts(
    config: StoreConfig,
    shard: Shard,
    params: FeatureParams,
    features: Sequence[Feature],
    asked: pa.Table,
    catalog: pa.Table | None,
    numbering: Numbering,
    overalls: pa.Table,
    points: pa.Table,
) -> pa.Table:
    """The item features of a shard at cut times.

    Args:
        config: Unused.
        shard: Which one, for its name.
        params: What windows, weights and so on are.
        features: The columns that are wanted.
        asked: Of `split_items`.
        catalog: CATALOG_SCHEMA (current_catalog); None if there is none.
        numbering: Of all items.
        overalls: `add_overalls` of all shards.
        points: Of `item_points`.

    Returns:
        `cuts_schema_of`, a row for each that is asked, in its order.
    """
    return _finish_items(asked, catalog, overalls, points, params, features, numbering)


def users_at(
    events: Events, rows: pa.Table, asked: pa.Table, params: FeatureParams, features: Sequence[Feature]
) -> pa.Table:
    """The user features of a shard's events at cut times.

    Args:
        events: The shard, with all events before the latest of the cuts.
        rows: `rows_of_users` of it.
        asked: user_id, cut and bucket: `distinct_points`.
        params: What windows, weights and so on are.
        features: The columns that are wanted.

    Returns:
        `cuts_schema_of`, a row for each that is asked, in its order, whether it has events or not.
    """
    nobody = len(events.users)
    codes = pc.fill_null(_places(asked["user_id"], events.users), nobody).to_numpy()
    points = Points(codes, _micros(asked[CUT]))
    how = (points, partials_of(features), params.constants)
    timeline = Timeline(rows, rows["user_code"].to_numpy(), nobody + 1, *how)
    tables = {"points": _points(points, timeline.partials())}
    return _finished("user", asked, tables, params, features, events.numbering)


def items_at(
    rows: Sequence[pa.Table],
    asked: pa.Table,
    params: FeatureParams,
    features: Sequence[Feature],
    catalog: pa.Table | None,
    numbering: Numbering,
) -> pa.Table:
    """The item features at cut times, all in one shard.

    Args:
        rows: `rows_of_users` of all shards of users.
        asked: item_id, cut, bucket and item_code: `with_codes` of `distinct_points`.
        params: What windows, weights and so on are.
        features: The columns that are wanted.
        catalog: CATALOG_SCHEMA; None if there is none.
        numbering: Of all items.
    """
    cuts_us = np.unique(_micros(asked[CUT]))
    overalls, points = _item_points(rows, asked, cuts_us, params, features, numbering)
    return _finish_items(asked, catalog, overalls, points, params, features, numbering)


def distinct_points(key: str, *asked: pa.Table) -> pa.Table:
    """What is asked, each pair once, in the order of bucket, id and cut: the id, cut (timestamp) and bucket.

    Args:
        key: user_id or item_id.
        asked: This column (string, or a dictionary of these) and cut (timestamp).
    """
    schema = pa.schema([(key, pa.string()), (CUT, TIMESTAMP)])
    ids, names = encode_texts(pa.chunked_array([[], *_chunks(asked, key)], pa.string()))
    cuts = pa.chunked_array([[], *_chunks(asked, CUT)], TIMESTAMP)
    buckets = bucket_of(xxh64_strings(names))
    by_name = pc.sort_indices(names).to_numpy()
    by_bucket = by_name[np.argsort(buckets[by_name], kind="stable")]
    ranks = np.empty(by_bucket.size, np.uint64)
    ranks[by_bucket] = np.arange(by_bucket.size, dtype=np.uint64)
    cuts_us = _micros(cuts)
    order = by_time(cuts_us, ranks[ids])
    ids, cuts_us = ids[order], cuts_us[order]
    is_new = np.ones(order.size, np.bool_)
    is_new[1:] = (ids[1:] != ids[:-1]) | (cuts_us[1:] != cuts_us[:-1])
    ids, cuts_us = ids[is_new], cuts_us[is_new]
    columns = [names.take(pa.array(ids)), pa.array(cuts_us).cast(TIMESTAMP), buckets[ids]]
    return pa.table(columns, names=[*schema.names, BUCKET])


def with_codes(points: pa.Table, numbering: Numbering) -> pa.Table:
    """Points of items with the number of each, item_code; null for what the numbering lacks."""
    return points.append_column(ITEM_CODE, _places(points["item_id"], numbering.item_ids))


def _item_points(
    rows: Sequence[pa.Table],
    asked: pa.Table,
    cuts_us: np.ndarray,
    params: FeatureParams,
    features: Sequence[Feature],
    numbering: Numbering,
) -> Iterator[pa.Table]:
    events = pa.concat_tables([each.select(_ITEM_EVENT) for each in rows])
    codes = events[ITEM_CODE].to_numpy()
    wanted = pc.fill_null(asked[ITEM_CODE], -1).to_numpy()
    is_here = np.zeros(len(numbering) + 1, np.bool_)
    # The place behind all numbers, at -1, is that of what has none.
    is_here[codes] = is_here[wanted] = is_here[-1] = True
    places = np.cumsum(is_here, dtype=np.int32) - np.int32(1)
    groups = places[codes]
    order = by_time(events["time_us"].to_numpy(), groups.astype(np.uint64))
    points = Points(places[wanted], _micros(asked[CUT]))
    how = (points, partials_of(features), params.constants)
    timeline = Timeline(events.take(pa.array(order)), groups[order], int(places[-1]) + 1, *how)
    yield pa.table({"as_of_us": cuts_us, **timeline.overalls(overalls_of(features), cuts_us)})
    yield _points(points, {ITEM_CODE: asked[ITEM_CODE], **timeline.partials()})


def _finish_items(
    asked: pa.Table,
    catalog: pa.Table | None,
    overalls: pa.Table,
    points: pa.Table,
    params: FeatureParams,
    features: Sequence[Feature],
    numbering: Numbering,
) -> pa.Table:
    tables = {"points": points, "overalls": overalls, "catalog": listed_by_number(catalog, numbering)}
    return _finished("item", asked, tables, params, features, numbering)


def _finished(
    grain: Grain,
    asked: pa.Table,
    tables: Mapping[str, pa.Table],
    params: FeatureParams,
    features: Sequence[Feature],
    numbering: Numbering,
) -> pa.Table:
    cancellation.check()
    with DuckDBSession(tables) as session:
        found = session.query(points_query(features), params.constants)
    rows = name_items(found, features, numbering)
    for name in (key_of(grain), CUT, BUCKET):
        rows = rows.append_column(name, asked[name])
    return as_stored(rows, cuts_schema_of(grain, features))


def _points(points: Points, columns: Mapping[str, pa.Array | np.ndarray]) -> pa.Table:
    place = np.arange(points.cuts_us.size)
    return pa.table({"place": place, "as_of_us": points.cuts_us, **columns})


def _split(points: pa.Table, shards: Sequence[Shard]) -> Iterator[pa.Table]:
    buckets = points[BUCKET].to_numpy()
    for shard in shards:
        begin, end = np.searchsorted(buckets, [shard.first, shard.last])
        # A slice would be pickled with all of its table.
        yield points.take(pa.array(np.arange(begin, end)))


def _places(ids: pa.ChunkedArray, names: pa.Array) -> pa.ChunkedArray:
    """The place of each id among some names, int32; null for what is not among them."""
    used, of = encode_texts(ids)
    return pc.take(pc.index_in(of, value_set=names), pa.array(used))


def _chunks(tables: Sequence[pa.Table], name: str) -> Iterator[pa.Array]:
    kind = TIMESTAMP if name == CUT else pa.string()
    for table in tables:
        yield from table[name].cast(kind).chunks


def _micros(times: pa.ChunkedArray) -> np.ndarray:
    micros: np.ndarray = times.cast(pa.int64()).to_numpy()
    return micros
