"""Features of Arrow tables: no server, no Ray, nothing stored.

The workers' stages are plain functions. Here they take what a notebook or a batch job has in memory:

    python compute/examples/plain_tables.py
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from headrace_compute.features.aggregate import item_features, user_features
from headrace_compute.features.cuts import distinct_points, items_at, users_at, with_codes
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import features_of
from headrace_compute.features.timeline import rows_of_users
from headrace_compute.inputs.catalog import CATALOG_SCHEMA
from headrace_compute.inputs.events import Events, gather
from headrace_compute.inputs.exchange import encode_rows
from headrace_compute.inputs.numbering import Numbering, number_items
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import StoreConfig

NO_STORE = StoreConfig("")
"""Of the stages below none reads or writes."""

START = datetime(2026, 1, 1, tzinfo=UTC)


def interactions() -> pa.Table:
    """Two hundred events with the columns of the contract."""
    numbers = range(200)
    return pa.table(
        {
            "user_id": [f"user{number % 7}" for number in numbers],
            "item_id": [f"item{number * 3 % 11}" for number in numbers],
            "interaction_type": [("view", "view", "click", "purchase")[number % 4] for number in numbers],
            "timestamp": pa.array(
                [START + timedelta(hours=number) for number in numbers], pa.timestamp("us", tz="UTC")
            ),
            "rating": pa.array([None] * 200, pa.float64()),
        }
    )


def catalog() -> pa.Table:
    """One row an item, in the order of item_id."""
    ids = pa.array(sorted(f"item{number}" for number in range(12)))
    rows = {"item_id": ids, "title": ids, "bucket": bucket_of(xxh64_strings(ids))}
    nothing = {name: pa.nulls(len(ids)) for name in CATALOG_SCHEMA.names if name not in rows}
    return pa.table({**rows, **nothing}).select(CATALOG_SCHEMA.names).cast(CATALOG_SCHEMA)


def main() -> None:
    """Prints both tables."""
    known, params = catalog(), FeatureParams(windows=(1, 7))
    item_ids, rows = encode_rows(interactions())
    numbering = number_items(NO_STORE, known, item_ids)
    # The slices of one shard: here there is one of each.
    events = gather(numbering, [rows])
    as_of_us = int(np.max(rows.times_us)) + 1
    users, of_items = user_features(events, as_of_us, params)
    items, unknown = item_features(as_of_us, params, known, numbering, of_items)
    print(pl.from_arrow(users.select(["user_id", "total_interactions", "num_purchases_7d", "recent_items"])))
    print(pl.from_arrow(items.select(["item_id", "total_interactions", "purchase_rate_smoothed", "title"])))
    print(f"{unknown.interactions} interactions with items that the catalog lacks")
    before_days(events, known, params, numbering)


def before_days(events: Events, known: pa.Table, params: FeatureParams, numbering: Numbering) -> None:
    """Prints the features of a user and of an item before each of some days, as training data takes them."""
    days = pa.array([START + timedelta(days=day) for day in range(1, 8)], pa.timestamp("us", tz="UTC"))
    rows = rows_of_users(events)
    asked = distinct_points("user_id", pa.table({"user_id": ["user3"] * 7, "cut": days}))
    users = users_at(events, rows, asked, params, features_of("user", params))
    asked = distinct_points("item_id", pa.table({"item_id": ["item5"] * 7, "cut": days}))
    of_item = with_codes(asked, numbering)
    items = items_at([rows], of_item, params, features_of("item", params), known, numbering)
    print(pl.from_arrow(users.select(["user_id", "cut", "total_interactions", "recent_items"])))
    print(pl.from_arrow(items.select(["item_id", "cut", "num_purchases_7d", "engagement_score"])))


if __name__ == "__main__":
    main()
