"""Peers: the same work as one would write it with DuckDB or Polars, Parquet in and Parquet out.

They do less: no exact sums, no look for rows that are there twice, no catalog, no versions.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

WEIGHTS = {"view": 0.1, "click": 1.0, "like": 2.0, "add_to_cart": 3.0, "purchase": 4.0}
"""Of engagement_score."""


def copy_to_parquet(csv: Path, parquet: Path) -> None:
    """The peer of an upload: no validation, no duplicates, no transport."""
    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as connection:
        connection.sql(f"COPY (FROM read_csv('{csv}')) TO '{parquet}' (COMPRESSION zstd)")


def duckdb_features(parquet: Path) -> int:
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
    return 0


def polars_features(parquet: Path) -> int:
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
    return 0


FEATURES: Mapping[str, Callable[[Path], int]] = {"DuckDB": duckdb_features, "Polars": polars_features}

POSITIVE = ("click", "purchase", "like")
CORE, CAP, RATIO, ALPHA = 5, 50, 4, 0.75
"""The defaults of SampleNegatives."""


def polars_negatives(parquet: Path) -> int:
    """The peer of SampleNegatives with Polars and vectorised NumPy; how many rows it wrote.

    Negatives are drawn anew while their user knows them. They may come twice in a group.
    """
    rng = np.random.default_rng(1)
    events = pl.read_parquet(parquet, columns=["user_id", "item_id", "interaction_type", "timestamp"])
    names = [events[name].unique().sort() for name in ("user_id", "item_id")]
    users, items = (
        events[every.name].cast(pl.Enum(every)).to_physical().to_numpy().astype(np.int64) for every in names
    )
    item_count = int(items.max()) + 1
    weights = np.cumsum((1.0 + np.bincount(items, minlength=item_count)) ** ALPHA)
    pairs = np.unique(users * item_count + items)
    core = pairs
    while True:
        of_users, of_items = np.bincount(core // item_count), np.bincount(core % item_count)
        rich = core[(of_users[core // item_count] >= CORE) & (of_items[core % item_count] >= CORE)]
        if rich.size == core.size:
            break
        core = rich
    frame = pl.DataFrame({"pair": users * item_count + items, "time": events["timestamp"]})
    positives = (
        frame.filter(events["interaction_type"].is_in(POSITIVE))
        .group_by("pair")
        .agg(pl.col("time").min())
        .join(pl.DataFrame({"pair": core}), on="pair", how="semi")
        .with_columns(user=pl.col("pair") // item_count)
        .sort("user", "time", descending=[False, True])
        .filter(pl.int_range(pl.len()).over("user") < CAP)
    )
    owners = np.repeat(positives["user"].to_numpy(), RATIO)
    drawn = np.empty(owners.size, np.int64)
    open_places = np.arange(owners.size)
    while open_places.size:
        chosen = np.searchsorted(weights, rng.random(open_places.size) * weights[-1], side="right")
        drawn[open_places] = chosen
        keys = owners[open_places] * item_count + chosen
        found = np.minimum(np.searchsorted(pairs, keys), pairs.size - 1)
        open_places = open_places[pairs[found] == keys]
    times = positives["time"]
    rows = pl.concat(
        pl.DataFrame(
            {
                "user_id": names[0].gather(who),
                "item_id": names[1].gather(what),
                "label": np.full(len(who), label),
                "timestamp": when,
            }
        )
        for who, what, label, when in (
            (positives["user"], positives["pair"] % item_count, 1.0, times),
            (owners, drawn, 0.0, times.gather(np.repeat(np.arange(len(times)), RATIO))),
        )
    )
    rows.write_parquet(parquet.with_name("training.parquet"), compression="zstd", compression_level=1)
    return len(rows)


def duckdb_negatives(parquet: Path) -> int:
    """The same in SQL: twice as many draws as needed, without what the user knows by an anti-join."""
    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as connection:
        run = connection.sql
        run(f"CREATE TABLE t AS SELECT user_id, item_id, interaction_type, timestamp FROM '{parquet}'")
        run("CREATE TABLE pairs AS SELECT DISTINCT user_id, item_id FROM t")
        run("CREATE TABLE core AS FROM pairs")
        while True:
            run(
                f"""CREATE OR REPLACE TABLE rich AS FROM core
                SEMI JOIN (SELECT user_id FROM core GROUP BY ALL HAVING count(*) >= {CORE}) USING (user_id)
                SEMI JOIN (SELECT item_id FROM core GROUP BY ALL HAVING count(*) >= {CORE}) USING (item_id)"""
            )
            before, after = (run(f"SELECT count(*) FROM {name}").fetchall() for name in ("core", "rich"))
            run("CREATE OR REPLACE TABLE core AS FROM rich")
            if before == after:
                break
        run(
            f"""CREATE TABLE positives AS
            SELECT user_id, item_id, min(timestamp) AS timestamp, row_number() OVER () AS number
            FROM t SEMI JOIN core USING (user_id, item_id)
            WHERE interaction_type IN {POSITIVE} GROUP BY user_id, item_id
            QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY min(timestamp) DESC) <= {CAP}"""
        )
        run(
            f"""CREATE TABLE weights AS SELECT item_id, sum(w) OVER (ORDER BY item_id) AS upto
            FROM (SELECT item_id, pow(1 + count(*), {ALPHA}) AS w FROM t GROUP BY item_id)"""
        )
        target = parquet.with_name("training.parquet")
        run(
            f"""COPY (
                SELECT user_id, item_id, 1.0 AS label, timestamp FROM positives
                UNION ALL
                SELECT user_id, item_id, 0.0, timestamp FROM (
                    SELECT user_id, weights.item_id, timestamp, number
                    FROM (
                        SELECT *, random() * (SELECT max(upto) FROM weights) AS at
                        FROM positives, range({2 * RATIO})
                    ) AS drawn ASOF JOIN weights ON drawn.at <= weights.upto
                ) ANTI JOIN pairs USING (user_id, item_id)
                QUALIFY row_number() OVER (PARTITION BY number) <= {RATIO}
            ) TO '{target}' (COMPRESSION zstd, COMPRESSION_LEVEL 1)"""
        )
        return int(run(f"SELECT count(*) FROM '{target}'").fetchall()[0][0])


NEGATIVES: Mapping[str, Callable[[Path], int]] = {"DuckDB": duckdb_negatives, "NumPy": polars_negatives}
