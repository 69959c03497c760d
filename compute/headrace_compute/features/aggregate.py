"""User and item features: DuckDB SQL over the events of one shard, then one merge of the items.

Every user is in one shard, so user features are final there. Items collect partial
aggregates from all shards; those are integers, so the result does not depend on the shard plan.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute import cancellation
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.errors import InvalidFieldError
from headrace_compute.inputs.catalog import CATALOG_SCHEMA
from headrace_compute.inputs.duckdb_session import DuckDBSession
from headrace_compute.inputs.events import Events, gather
from headrace_compute.inputs.exchange import Slice
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import Part, Shard, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part

_COUNT = pa.int64()

USER_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("total_interactions", _COUNT),
        ("unique_items", _COUNT),
        ("avg_rating", pa.float64()),
        ("first_interaction", TIMESTAMP),
        ("last_interaction", TIMESTAMP),
        ("days_active", _COUNT),
        ("interactions_per_day", pa.float64()),
        ("num_views", _COUNT),
        ("num_clicks", _COUNT),
        ("num_purchases", _COUNT),
        ("num_likes", _COUNT),
        ("num_add_to_carts", _COUNT),
        ("conversion_rate", pa.float64()),
        ("recent_items", pa.list_(pa.string())),
        ("days_since_last_interaction", pa.float64()),
        ("bucket", pa.int16()),
    ]
)
"""user_features: one row per user with an event, in the order of (bucket, user_id)."""

ITEM_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("total_interactions", _COUNT),
        ("unique_users", _COUNT),
        ("avg_rating", pa.float64()),
        ("num_views", _COUNT),
        ("num_clicks", _COUNT),
        ("num_purchases", _COUNT),
        ("num_likes", _COUNT),
        ("num_add_to_carts", _COUNT),
        ("popularity_score", pa.float64()),
        ("engagement_score", pa.float64()),
        ("purchase_rate", pa.float64()),
        ("click_through_rate", pa.float64()),
        ("first_interaction", TIMESTAMP),
        ("last_interaction", TIMESTAMP),
        *(field for field in CATALOG_SCHEMA if field.name != "item_id"),
    ]
)
"""item_features: one row per item with an event or in the catalog, in the order of (bucket, item_id)."""

_SUM = pa.decimal128(38, 0)

PARTIAL_SCHEMA = pa.schema(
    [
        ("item_code", pa.int32()),
        ("total_interactions", _COUNT),
        ("unique_users", _COUNT),
        ("rating_sum", _SUM),
        ("ratings", _COUNT),
        ("num_views", _COUNT),
        ("num_clicks", _COUNT),
        ("num_purchases", _COUNT),
        ("num_likes", _COUNT),
        ("num_add_to_carts", _COUNT),
        ("engagement_sum", _SUM),
        ("first_us", pa.int64()),
        ("last_us", pa.int64()),
    ]
)
"""Item aggregates of one shard, by the numbers of items; `*_sum` are exact, in units of 2^-40."""

PART_ROWS = 1_000_000
"""Rows of an item part at most."""

SAMPLES = 20
"""Unknown items named at most."""

_MAX_WEIGHT = 1e6


@dataclass(frozen=True)
class Engagement:
    """What an event adds to its item's engagement_score: weight * 2^(-age / half-life).

    Raises:
        InvalidFieldError: A weight outside [0, 1e6] or a half-life that is not positive.
    """

    view: float = 0.1
    click: float = 1.0
    like: float = 2.0
    add_to_cart: float = 3.0
    purchase: float = 4.0
    half_life_days: float = 30.0

    def __post_init__(self) -> None:
        for name in ("view", "click", "like", "add_to_cart", "purchase"):
            weight = getattr(self, name)
            if not 0 <= weight <= _MAX_WEIGHT:
                raise InvalidFieldError(f"Weight {name} is {weight}; it must be 0 to 1e6.", {"field": name})
        if not (math.isfinite(self.half_life_days) and self.half_life_days > 0):
            raise InvalidFieldError(
                f"Field half_life_days is {self.half_life_days}; it must be positive.",
                {"field": "half_life_days"},
            )

    def parameters(self) -> dict[str, float]:
        """The query parameters of item_partials.sql."""
        return {
            "view": float(self.view),
            "click": float(self.click),
            "like": float(self.like),
            "add_to_cart": float(self.add_to_cart),
            "purchase": float(self.purchase),
            "half_life_us": self.half_life_days * 86_400e6,
        }


DEFAULT_ENGAGEMENT = Engagement()


@dataclass(frozen=True)
class UserShard:
    """What one shard wrote.

    Attributes:
        part: Its user features; None if no user of it has an event.
        interactions: Events that counted, duplicates once.
    """

    part: Part | None
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
class ItemFeatures:
    """The written item features."""

    parts: tuple[Part, ...]
    rows: int
    unknown: UnknownItems


def user_shard(
    config: StoreConfig,
    shard: Shard,
    as_of_us: int,
    part_key: str,
    engagement: Engagement,
    numbering: Numbering,
    *slices: Slice,
) -> Iterator[UserShard | pa.Table]:
    """Computes and writes the user features of a shard, and aggregates its items.

    Args:
        config: Where objects live.
        shard: Which one, for its name.
        as_of_us: What the slices end before, microseconds since the epoch.
        part_key: Where the part goes; unique to this attempt.
        engagement: Weights of engagement_score.
        numbering: Of all items.
        slices: Its rows, of each batch.

    Yields:
        What it wrote, then its item aggregates (PARTIAL_SCHEMA).
    """
    events = gather(numbering, slices)
    if not events.rows.num_rows:
        yield UserShard(None, 0)
        yield PARTIAL_SCHEMA.empty_table()
        return
    users, items = aggregate(events, as_of_us, engagement)
    cancellation.check()
    part = write_part(open_store(config), part_key, users, stats=("user_id", "bucket"))
    yield UserShard(part, events.rows.num_rows)
    yield items


def aggregate(
    events: Events, as_of_us: int, engagement: Engagement = DEFAULT_ENGAGEMENT
) -> tuple[pa.Table, pa.Table]:
    """User features (USER_SCHEMA) and item aggregates (PARTIAL_SCHEMA) of a shard's events."""
    with DuckDBSession({"events": events.rows}) as session:
        session.create("pairs")
        users = session.query("user_features", as_of_us=as_of_us)
        items = session.query("item_partials", as_of_us=as_of_us, **engagement.parameters())
    return _name_users(events, users), items.cast(PARTIAL_SCHEMA)


def add_partials(config: StoreConfig, *partials: pa.Table) -> pa.Table:
    """Item aggregates (PARTIAL_SCHEMA) of several shards added up; in any order they give the same."""
    with DuckDBSession({"partials": pa.concat_tables([PARTIAL_SCHEMA.empty_table(), *partials])}) as session:
        return session.query("item_totals").cast(PARTIAL_SCHEMA)


def write_items(
    config: StoreConfig,
    part_key_prefix: str,
    catalog: pa.Table | None,
    numbering: Numbering,
    totals: pa.Table,
) -> ItemFeatures:
    """Joins the item aggregates with the catalog and writes the item features.

    Args:
        config: Where objects live.
        part_key_prefix: Parts are `{part_key_prefix}{index:04d}.parquet`; unique to this attempt.
        catalog: CATALOG_SCHEMA (current_catalog); None if the tenant has no items.
        numbering: Of all items.
        totals: `add_partials` over all shards.
    """
    features, unknown = item_features(catalog, numbering, totals)
    store = open_store(config)
    parts = []
    for index, start in enumerate(range(0, features.num_rows, PART_ROWS)):
        cancellation.check()
        rows = features.slice(start, PART_ROWS)
        key = f"{part_key_prefix}{index:04d}.parquet"
        parts.append(write_part(store, key, rows, stats=("item_id", "bucket")))
    return ItemFeatures(tuple(parts), features.num_rows, unknown)


def item_features(
    catalog: pa.Table | None, numbering: Numbering, totals: pa.Table
) -> tuple[pa.Table, UnknownItems]:
    """Item features (ITEM_SCHEMA) from the aggregates of all shards, and what the catalog lacks."""
    known = CATALOG_SCHEMA.empty_table() if catalog is None else catalog
    codes = np.arange(len(numbering), dtype=np.int32)
    buckets = bucket_of(xxh64_strings(numbering.item_ids))
    listed = known.drop_columns(["item_id", "bucket"])
    tables = {
        "items": pa.table({"item_code": codes, "bucket": buckets}),
        "totals": totals,
        "catalog": listed.append_column("item_code", pa.array(numbering.listed)),
    }
    with DuckDBSession(tables) as session:
        features = session.query("item_features")
    names = numbering.item_ids.take(features["item_code"].combine_chunks())
    features = features.append_column("item_id", names)
    unknown = _unknown_items(features) if known.num_rows else UnknownItems(0, ())
    return features.select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA), unknown


def _name_users(events: Events, users: pa.Table) -> pa.Table:
    codes = users["user_code"].combine_chunks()
    recent = users["recent_items"].combine_chunks()
    items = events.numbering.item_ids.take(recent.values)
    columns = {name: users[name] for name in users.column_names} | {
        "user_id": events.users.take(codes),
        "bucket": pa.array(events.user_buckets[codes.to_numpy()]),
        "recent_items": pa.ListArray.from_arrays(recent.offsets, items),
    }
    return pa.table([columns[name] for name in USER_SCHEMA.names], names=USER_SCHEMA.names).cast(USER_SCHEMA)


def _unknown_items(features: pa.Table) -> UnknownItems:
    unknown = features.filter(pc.invert(features["in_catalog"]))
    busiest = unknown.sort_by([("total_interactions", "descending"), ("item_id", "ascending")])
    return UnknownItems(
        interactions=pc.sum(unknown["total_interactions"]).as_py() or 0,
        samples=tuple(busiest["item_id"].slice(0, SAMPLES).to_pylist()),
    )
