"""Peers: the same work as one would write it with DuckDB or Polars, Parquet in and Parquet out.

They do less: no exact sums, no look for rows that are there twice, no catalog, no versions.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb
import polars as pl

WEIGHTS = {"view": 0.1, "click": 1.0, "like": 2.0, "add_to_cart": 3.0, "purchase": 4.0}
"""Of engagement_score."""


def copy_to_parquet(csv: Path, parquet: Path) -> None:
    """The peer of an upload: no validation, no duplicates, no transport."""
    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as connection:
        connection.sql(f"COPY (FROM read_csv('{csv}')) TO '{parquet}' (COMPRESSION zstd)")


def duckdb_features(parquet: Path) -> None:
    """The peer of ComputeFeatures in plain SQL."""
    counts = ", ".join(f"count(*) FILTER (interaction_type = '{name}')" for name in WEIGHTS)
    weights = " ".join(f"WHEN '{name}' THEN {weight}" for name, weight in WEIGHTS.items())
    users = f"""
        WITH pairs AS (
            SELECT user_id, item_id, max(timestamp) AS last FROM t GROUP BY ALL
        ), recent AS (
            SELECT user_id, list(item_id ORDER BY last DESC, item_id)[:50] AS recent_items,
                count(*) AS unique_items
            FROM pairs GROUP BY user_id
        )
        SELECT user_id, any_value(recent_items), any_value(unique_items), count(*), avg(rating),
            min(timestamp), max(timestamp), count(DISTINCT timestamp::DATE), {counts}
        FROM t JOIN recent USING (user_id) GROUP BY user_id"""
    items = f"""
        SELECT item_id, count(*), count(DISTINCT user_id), avg(rating), min(timestamp), max(timestamp),
            {counts},
            sum(CASE interaction_type {weights} END
                * pow(2, -epoch(TIMESTAMPTZ '2026-11-01' - timestamp) / 86400 / 30))
        FROM t GROUP BY item_id"""
    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as connection:
        connection.sql(f"CREATE VIEW t AS SELECT * FROM '{parquet}'")
        for name, query in (("users", users), ("items", items)):
            connection.sql(f"COPY ({query}) TO '{parquet.with_name(name)}.parquet' (COMPRESSION zstd)")


def polars_features(parquet: Path) -> None:
    """The peer of ComputeFeatures with Polars' lazy frames."""
    events = pl.scan_parquet(parquet)
    counts = [(pl.col("interaction_type") == name).sum().alias(f"num_{name}") for name in WEIGHTS]
    common = [
        pl.len().alias("total_interactions"),
        pl.col("rating").mean().alias("avg_rating"),
        pl.col("timestamp").min().alias("first_interaction"),
        pl.col("timestamp").max().alias("last_interaction"),
        *counts,
    ]
    recent = (
        events.group_by("user_id", "item_id")
        .agg(pl.col("timestamp").max())
        .sort(["user_id", "timestamp", "item_id"], descending=[False, True, False])
        .group_by("user_id", maintain_order=True)
        .agg(pl.col("item_id").head(50).alias("recent_items"), pl.len().alias("unique_items"))
    )
    days = pl.col("timestamp").dt.date().n_unique().alias("days_active")
    users = events.group_by("user_id").agg(*common, days).join(recent, on="user_id")
    end = pl.lit("2026-11-01T00:00:00Z").str.to_datetime(time_zone="UTC", time_unit="us")
    age_days = (end - pl.col("timestamp")).dt.total_microseconds() / 86_400e6
    weight = pl.col("interaction_type").replace_strict(WEIGHTS, return_dtype=pl.Float64)
    engagement = (weight * pl.lit(2.0).pow(-age_days / 30)).sum().alias("engagement_score")
    users.sink_parquet(parquet.with_name("users.parquet"), compression="zstd")
    items = events.group_by("item_id").agg(*common, pl.col("user_id").n_unique(), engagement)
    items.sink_parquet(parquet.with_name("items.parquet"), compression="zstd")


FEATURES: Mapping[str, Callable[[Path], None]] = {"DuckDB": duckdb_features, "Polars": polars_features}
