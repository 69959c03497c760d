"""User and item features: DuckDB SQL over the events of one shard, then one merge of the items.

Every user is in one shard, so user features are final there. Items collect partial
aggregates from all shards; those are integers, so the result does not depend on the shard plan.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic

import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute import cancellation
from headrace_compute.columns import BUCKET
from headrace_compute.features.feature import Feature
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import features_of, key_of, schema_of
from headrace_compute.features.snapshot import aggregate, items_at
from headrace_compute.inputs.events import Events, gather
from headrace_compute.inputs.exchange import Slice
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.model import Shard, StoreConfig
from headrace_compute.sink import Sink, W
from headrace_compute.statistics.sketch import TableSketch, merge_tables, sketch_table
from headrace_compute.statistics.summary import statistics_of, to_json

PART_ROWS = 1_000_000
"""Rows of an item part at most."""

ITEM_BYTES = 50
"""About what a row of an item part takes, beside what the catalog says of the item."""

SAMPLES = 20
"""Unknown items named at most."""


@dataclass(frozen=True)
class UserShard(Generic[W]):
    """What one shard made.

    Attributes:
        parts: What became of its user features; there are none if no user of it has an event.
        interactions: Events that counted, duplicates once.
    """

    parts: tuple[W, ...]
    interactions: int


@dataclass(frozen=True)
class UnknownItems:
    """Interactions whose item the (non-empty) catalog lacks.

    Attributes:
        interactions: How many.
        samples: Some of their items, those with most interactions first.
    """

    interactions: int
    samples: tuple[str, ...]


@dataclass(frozen=True)
class ItemFeatures(Generic[W]):
    """The item features.

    Attributes:
        parts: What became of them.
        statistics: Of their columns, as JSON.
    """

    parts: tuple[W, ...]
    rows: int
    unknown: UnknownItems
    statistics: str


def user_shard(
    config: StoreConfig,
    shard: Shard,
    as_of_us: int,
    sink: Sink[W],
    name: str,
    params: FeatureParams,
    numbering: Numbering,
    *slices: Slice,
) -> Iterator[UserShard[W] | pa.Table | TableSketch]:
    """Computes the user features of a shard, and aggregates its items.

    Args:
        config: Where objects live.
        shard: Which one, for its name.
        as_of_us: What the slices end before, microseconds since the epoch.
        sink: Where they go.
        name: What they are called by, of this shard alone.
        params: What to compute.
        numbering: Of all items.
        slices: Its rows, of each batch.

    Yields:
        What became of them, then its item aggregates: item_code and the partials of the item features; then
        their sketch.
    """
    events = gather(numbering, slices)
    users, items = user_features(events, as_of_us, params)
    cancellation.check()
    output = sink.open(config)
    if users.num_rows:
        output.write(name, users, stats=("user_id", "bucket"))
    yield UserShard(output.close(), events.rows.num_rows)
    yield items
    yield sketch_table(users, key_of("user"), as_of_us)


def user_features(events: Events, as_of_us: int, params: FeatureParams) -> tuple[pa.Table, pa.Table]:
    """The user features (`schema_of`) and the item aggregates of a shard's events."""
    users, items = aggregate(
        events, as_of_us, params, features_of("user", params), features_of("item", params)
    )
    return _name_users(events, users, params), items


def forecast_items(config: StoreConfig, catalog: pa.Table | None, numbering: Numbering) -> int:
    """About how many bytes `write_items` writes, at most: a catalog takes less once it is compressed."""
    return len(numbering) * ITEM_BYTES + (0 if catalog is None else int(catalog.nbytes))


def write_items(
    config: StoreConfig,
    sink: Sink[W],
    as_of_us: int,
    params: FeatureParams,
    catalog: pa.Table | None,
    numbering: Numbering,
    totals: pa.Table,
) -> ItemFeatures[W]:
    """Joins the item aggregates with the catalog to the item features.

    Args:
        config: Where objects live.
        sink: Where they go.
        as_of_us: What the events end before, microseconds since the epoch.
        params: What to compute.
        catalog: CATALOG_SCHEMA (current_catalog); None if the tenant has no items.
        numbering: Of all items.
        totals: `add_partials` over all shards.
    """
    features, unknown = item_features(as_of_us, params, catalog, numbering, totals)
    output = sink.open(config)
    sketch = TableSketch()
    for index, start in enumerate(range(0, features.num_rows, PART_ROWS)):
        cancellation.check()
        rows = features.slice(start, PART_ROWS)
        sketch = merge_tables(sketch, sketch_table(rows, key_of("item"), as_of_us))
        output.write(f"{index:04d}", rows, stats=("item_id", "bucket"))
    statistics = to_json(statistics_of(sketch, as_of_us))
    return ItemFeatures(output.close(), features.num_rows, unknown, statistics)


def item_features(
    as_of_us: int, params: FeatureParams, catalog: pa.Table | None, numbering: Numbering, totals: pa.Table
) -> tuple[pa.Table, UnknownItems]:
    """The item features (`schema_of`) from the aggregates of all shards, and what the catalog lacks."""
    rows = items_at(as_of_us, params, features_of("item", params), catalog, numbering, totals)
    rows = rows.append_column("item_id", numbering.item_ids.take(rows["item_code"].combine_chunks()))
    unknown = _unknown_items(rows) if catalog is not None and catalog.num_rows else UnknownItems(0, ())
    return as_stored(rows, schema_of("item", params)), unknown


def _name_users(events: Events, users: pa.Table, params: FeatureParams) -> pa.Table:
    """Puts names in the place of codes, and the buckets beside them."""
    codes = users["user_code"].combine_chunks()
    columns = {name: users[name] for name in users.column_names} | {
        "user_id": events.users.take(codes),
        BUCKET: pa.array(events.user_buckets[codes.to_numpy()]),
    }
    named = name_items(pa.table(columns), features_of("user", params), events.numbering)
    return as_stored(named, schema_of("user", params))


def name_items(rows: pa.Table, features: Sequence[Feature], numbering: Numbering) -> pa.Table:
    """Puts the item_ids in the place of their numbers, in lists of these."""
    for feature in features:
        if feature.names_items:
            numbers = rows[feature.name].combine_chunks()
            named = pa.ListArray.from_arrays(numbers.offsets, numbering.item_ids.take(numbers.values))
            rows = rows.set_column(rows.column_names.index(feature.name), feature.name, named)
    return rows


def as_stored(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema, of its types; its comments are the log's, not the files'."""
    return rows.select(schema.names).cast(schema.remove_metadata()).replace_schema_metadata()


def _unknown_items(features: pa.Table) -> UnknownItems:
    unknown = features.filter(pc.invert(features["in_catalog"]))
    busiest = unknown.sort_by([("total_interactions", "descending"), ("item_id", "ascending")])
    return UnknownItems(
        interactions=pc.sum(unknown["total_interactions"]).as_py() or 0,
        samples=tuple(busiest["item_id"].slice(0, SAMPLES).to_pylist()),
    )
