"""Features against values computed by hand and against a slow reading of SEMANTICS.md."""

import asyncio
import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from harness.features import (
    DEFAULTS,
    Row,
    at,
    bucket,
    catalog_files,
    catalog_of,
    compute,
    many_rows,
    micros,
    read,
    read_parts,
    shard_of,
    store_rows,
)
from harness.oracle import COUNTS, WEIGHTS, assert_rows, expected_items, expected_users
from harness.workers import Unordered
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import InvalidFieldError, NoInteractionsError
from headrace_compute.features.aggregate import (
    UserShard,
)
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import schema_of
from headrace_compute.features.run import make_features
from headrace_compute.inputs.catalog import CATALOG_SCHEMA
from headrace_compute.inputs.events import gather, newest_event
from headrace_compute.model import BUCKETS, Shard, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.sink import PartSink
from headrace_compute.statistics.sketch import sketch_table
from headrace_compute.statistics.summary import statistics_of, to_json


def by(table: pa.Table, key: str) -> dict[str, dict[str, Any]]:
    return {row[key]: row for row in table.to_pylist()}


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(str(tmp_path))


STORY: list[Row] = [
    ("ann", "i1", "view", at("2024-01-01T10:00:00"), None),
    ("ann", "i1", "view", at("2024-01-01T11:00:00"), None),
    ("ann", "i2", "view", at("2024-01-01T23:59:59.999999"), None),
    ("ann", "i1", "purchase", at("2024-01-02T00:00:00"), 4.5),
    ("ann", "i3", "like", at("2024-01-11T00:00:00"), 2.0),
    ("bob", "i1", "click", at("2024-01-01T00:00:00"), None),
    ("bob", "i1", "add_to_cart", at("2024-01-01T00:00:00"), None),
]


def test_user_features_have_the_values_computed_by_hand(config: StoreConfig) -> None:
    users = by(compute(config, [STORY], at("2024-01-11T12:00:00"))[0], "user_id")
    assert users["ann"] == {
        "user_id": "ann",
        "total_interactions": 5,
        "unique_items": 3,
        "avg_rating": 3.25,
        "first_interaction": at("2024-01-01T10:00:00"),
        "last_interaction": at("2024-01-11T00:00:00"),
        "days_active": 3,
        "interactions_per_day": 5 / 3,
        "num_views": 3,
        "num_clicks": 0,
        "num_purchases": 1,
        "num_likes": 1,
        "num_add_to_carts": 0,
        "conversion_rate": 1 / 3,
        "recent_items": ["i3", "i1", "i2"],
        "days_since_last_interaction": 0.5,
        "total_interactions_7d": 1,
        "num_purchases_7d": 0,
        "total_interactions_30d": 5,
        "num_purchases_30d": 1,
        "hourly_activity": [2, *[0] * 9, 1, 1, *[0] * 11, 1],
        "weekday_activity": [3, 1, 0, 1, 0, 0, 0],
        "bucket": bucket("ann"),
    }
    assert users["bob"]["avg_rating"] is None
    assert users["bob"]["conversion_rate"] is None
    assert users["bob"]["interactions_per_day"] == 2.0
    assert users["bob"]["days_since_last_interaction"] == 10.5


def test_item_features_have_the_values_computed_by_hand(config: StoreConfig) -> None:
    """Half-life 30 days: at as_of = January 31st an event of the 1st weighs half."""
    rows: list[Row] = [
        ("ann", "i1", "view", at("2024-01-01"), None),
        ("ann", "i1", "purchase", at("2024-01-01"), 5.0),
        ("bob", "i1", "view", at("2024-01-01"), None),
        ("bob", "i2", "like", at("2024-01-01"), 1.0),
    ]
    catalog = catalog_of(i1="One", i3="Three")
    _, table, written = compute(config, [rows], at("2024-01-31"), catalog=catalog)
    items = by(table, "item_id")
    assert items["i1"] == {
        "item_id": "i1",
        "total_interactions": 3,
        "unique_users": 2,
        "avg_rating": 5.0,
        "num_views": 2,
        "num_clicks": 0,
        "num_purchases": 1,
        "num_likes": 0,
        "num_add_to_carts": 0,
        "popularity_score": 1.0,
        "engagement_score": pytest.approx((0.1 + 4 + 0.1) / 2, abs=2**-39),
        "purchase_rate": 0.5,
        "click_through_rate": 0.0,
        "first_interaction": at("2024-01-01"),
        "last_interaction": at("2024-01-01"),
        "days_since_last_interaction": 30.0,
        # The window includes its first instant.
        "total_interactions_30d": 3,
        "num_purchases_30d": 1,
        "total_interactions_7d": 0,
        "num_purchases_7d": 0,
        "purchase_rate_smoothed": (10 + 1) / (2 + 10 * 2 / 1),
        "click_through_rate_smoothed": None,
        "title": "One",
        "category": "c",
        "price": 9.5,
        "brand": None,
        "bucket": bucket("i1"),
    }
    assert items["i2"]["popularity_score"] == pytest.approx(math.log(2) / math.log(4))
    assert items["i2"]["engagement_score"] == 1.0
    assert items["i2"]["purchase_rate"] is None
    assert items["i2"]["title"] is None
    assert items["i3"] == {
        "item_id": "i3",
        **dict.fromkeys(COUNTS, 0),
        "total_interactions": 0,
        "unique_users": 0,
        "avg_rating": None,
        "popularity_score": 0.0,
        "engagement_score": 0.0,
        "purchase_rate": None,
        "click_through_rate": None,
        "first_interaction": None,
        "last_interaction": None,
        "days_since_last_interaction": None,
        **dict.fromkeys(("total_interactions_7d", "total_interactions_30d"), 0),
        **dict.fromkeys(("num_purchases_7d", "num_purchases_30d"), 0),
        "purchase_rate_smoothed": 10 / (10 * 2 / 1),
        "click_through_rate_smoothed": None,
        "title": "Three",
        "category": "c",
        "price": 9.5,
        "brand": None,
        "bucket": bucket("i3"),
    }
    assert written.rows == 3
    assert written.unknown.interactions == 1
    assert written.unknown.samples == ("i2",)


def test_rates_are_never_clamped(config: StoreConfig) -> None:
    rows: list[Row] = [
        ("ann", "i1", kind, at("2024-01-01") + hour * timedelta(hours=1), None)
        for hour, kind in enumerate(["view", "purchase", "purchase", "click", "click", "click"])
    ]
    users, items, _ = compute(config, [rows], at("2024-01-02"))
    assert users["conversion_rate"].to_pylist() == [2.0]
    assert items["purchase_rate"].to_pylist() == [2.0]
    assert items["click_through_rate"].to_pylist() == [3.0]


def test_an_event_at_as_of_does_not_count(config: StoreConfig) -> None:
    users, items, _ = compute(config, [STORY], at("2024-01-11T00:00:00"))
    assert by(users, "user_id")["ann"]["total_interactions"] == 4
    assert "i3" not in by(items, "item_id")
    files = store_rows(config, [STORY])
    for as_of, count in ((at("2024-01-11"), 6), (None, 7)):
        source = read(config, files, [Shard(0, BUCKETS)], as_of)
        assert gather(source.numbering, source.shares[0]).rows.num_rows == count


def test_a_row_in_two_uploads_counts_once(config: StoreConfig) -> None:
    once = compute(config, [STORY], at("2024-02-01"))
    (config_root := Path(config.root) / "again").mkdir()
    rated: Row = (*STORY[0][:4], 3.0)  # differs from the first row in its rating alone
    twice = compute(StoreConfig(str(config_root)), [STORY, STORY[:4], STORY[2:]], at("2024-02-01"))
    assert twice[0].equals(once[0])
    assert twice[1].equals(once[1])
    more = compute(StoreConfig(str(config_root / "more")), [STORY, [rated]], at("2024-02-01"))
    assert by(more[0], "user_id")["ann"]["total_interactions"] == 6


def test_recent_items_are_the_50_newest_and_ties_go_by_item_id(config: StoreConfig) -> None:
    early = [("ann", f"e{n:02d}", "view", at("2024-01-01"), None) for n in range(30)]
    late = [("ann", f"l{n:02d}", "view", at("2024-01-02"), None) for n in range(30)]
    seen_again: Row = ("ann", "e29", "click", at("2024-01-03"), None)
    users, _, _ = compute(config, [[*reversed(early), *reversed(late), seen_again]], at("2024-01-04"))
    wanted = ["e29", *(row[1] for row in late), *(row[1] for row in early)][:50]
    assert users["recent_items"].to_pylist() == [wanted]
    assert users["unique_items"].to_pylist() == [60]


def test_days_are_utc_dates_also_before_1970(config: StoreConfig) -> None:
    times = ["1969-12-31T23:59:59.999999", "1970-01-01", "1970-01-01T23:59:59", "0001-01-01"]
    rows: list[Row] = [("ann", "i1", "view", at(time), None) for time in times]
    users, _, _ = compute(config, [rows], at("1970-01-03"))
    assert users["days_active"].to_pylist() == [3]


def test_engagement_weights_are_parameters(config: StoreConfig) -> None:
    rows: list[Row] = [("ann", "i1", "view", at("2024-01-01"), None)]
    params = FeatureParams(weights={"view": 8}, half_life_days=1)
    _, items, _ = compute(config, [rows], at("2024-01-03"), params=params)
    assert items["engagement_score"].to_pylist() == [2.0]


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("weights", {"weights": {"view": -1.0}}),
    ("weights", {"weights": {"click": math.nan}}),
    ("weights", {"weights": {"purchase": math.inf}}),
    ("weights", {"weights": {"stare": 1.0}}),
    ("half_life_days", {"half_life_days": 0.0}),
    ("half_life_days", {"half_life_days": math.inf}),
    ("smoothing", {"smoothing": -1.0}),
    ("smoothing", {"smoothing": math.nan}),
    ("windows", {"windows": (0,)}),
    ("windows", {"windows": (3_651,)}),
    ("windows", {"windows": tuple(range(1, 10))}),
]


@pytest.mark.parametrize(("name", "wrong"), WRONG)
def test_senseless_parameters_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        FeatureParams(**wrong)
    assert refused.value.attributes == {"field": name}


@pytest.mark.parametrize(
    ("w", "all_views", "all_purchases", "views", "purchases", "percent"),
    [
        (10, 100, 10, 2, 1, 10.78),
        (1, 100, 10, 2, 1, 16.67),
        (10, 100, 10, 10, 3, 11.82),
        (10, 20, 5, 10, 3, 26.00),
    ],
)
def test_smoothed_rates_have_the_values_of_the_check_vectors(
    config: StoreConfig,
    w: int,
    all_views: int,
    all_purchases: int,
    views: int,
    purchases: int,
    percent: float,
) -> None:
    counts = [("i1", "view", views), ("i1", "purchase", purchases)]
    counts += [("i2", "view", all_views - views), ("i2", "purchase", all_purchases - purchases)]
    rows: list[Row] = [
        ("ann", item, kind, at("2024-01-01") + number * timedelta(seconds=1), None)
        for item, kind, count in counts
        for number in range(count)
    ]
    _, items, _ = compute(config, [rows], at("2024-01-02"), params=FeatureParams(smoothing=w))
    rate = by(items, "item_id")["i1"]["purchase_rate_smoothed"]
    assert round(100 * rate, 2) == percent


def test_without_smoothing_a_rate_is_the_raw_one(config: StoreConfig) -> None:
    rows: list[Row] = [
        ("ann", "i1", "view", at("2024-01-01"), None),
        ("ann", "i1", "purchase", at("2024-01-01"), None),
        ("ann", "i2", "purchase", at("2024-01-01"), None),
    ]
    _, items, _ = compute(config, [rows], at("2024-01-02"), params=FeatureParams(smoothing=0))
    assert items.sort_by("item_id")["purchase_rate_smoothed"].to_pylist() == [1.0, None]


def test_windows_are_those_asked_for(config: StoreConfig) -> None:
    params = FeatureParams(windows=(1, 90))
    users, items, _ = compute(config, [STORY], at("2024-01-11T00:00:00.000001"), params=params)
    assert by(users, "user_id")["ann"]["total_interactions_1d"] == 1
    assert by(users, "user_id")["ann"]["total_interactions_90d"] == 5
    assert by(items, "item_id")["i1"]["num_purchases_1d"] == 0
    assert by(items, "item_id")["i1"]["num_purchases_90d"] == 1
    assert not [name for name in users.column_names if name.endswith(("_7d", "_30d"))]


def test_without_a_catalog_no_item_is_unknown(config: StoreConfig) -> None:
    _, _, written = compute(config, [STORY], at("2024-02-01"))
    assert written.unknown.interactions == 0
    (root := Path(config.root) / "empty").mkdir()
    nothing = CATALOG_SCHEMA.empty_table()
    _, _, written = compute(StoreConfig(str(root)), [STORY], at("2024-02-01"), catalog=nothing)
    assert written.unknown.interactions == 0


def test_unknown_items_are_counted_in_full_and_the_busiest_are_named(config: StoreConfig) -> None:
    rows: list[Row] = [
        ("ann", f"i{n:02d}", "view", at("2024-01-01") + copy * timedelta(hours=1), None)
        for n in range(25)
        for copy in range(2 if n == 24 else 1)
    ]
    _, _, written = compute(config, [rows], at("2024-02-01"), catalog=catalog_of(i00="Zero"))
    assert written.unknown.interactions == 25
    assert written.unknown.samples == ("i24", *(f"i{n:02d}" for n in range(1, 20)))


def test_a_shard_without_events_writes_nothing(config: StoreConfig) -> None:
    files = store_rows(config, [STORY])
    for some, as_of in ((files, at("2000-01-01")), ([], at("2024-02-01"))):
        source = read(config, some, [Shard(0, BUCKETS)], as_of)
        how = (PartSink("features/acme/"), "none", DEFAULTS, source.numbering)
        empty, partial = shard_of(config, Shard(0, BUCKETS), micros(as_of), *how, *source.shares[0])
        assert empty == UserShard((), 0)
        assert partial.num_rows == 0
    assert not open_store(config).exists("features/acme/none.parquet")


def test_the_newest_event_is_found_over_all_files(config: StoreConfig) -> None:
    files = store_rows(config, [STORY[:2], STORY[4:], STORY[2:4]])
    assert newest_event(config, files) == micros(at("2024-01-11"))
    with pytest.raises(NoInteractionsError):
        newest_event(config, [])


NAMES = st.sampled_from(["a", "b", "B", "é", "日本", "a\u00a0b", "\U0001f600", "zz", "u1", "u2", "u3"])
TIMES = st.one_of(
    st.datetimes(datetime(2023, 12, 30), datetime(2024, 1, 3)).map(lambda time: time.replace(tzinfo=UTC)),
    st.sampled_from([at("2024-01-01"), at("2024-01-01T23:59:59.999999"), at("2024-01-02")]),
)
RATINGS = st.one_of(st.none(), st.floats(1, 5, allow_subnormal=False), st.sampled_from([1.0, 3.3, 5.0]))
KINDS = st.sampled_from(sorted(WEIGHTS))
ROWS = st.lists(st.tuples(NAMES, NAMES, KINDS, TIMES, RATINGS), min_size=1, max_size=40)


@given(
    rows=ROWS,
    listed=st.sets(NAMES),
    split=st.integers(0, 40),
    again=st.integers(0, 40),
    cut=st.integers(1, BUCKETS - 1),
)
def test_any_data_under_any_shard_plan_gives_what_the_definitions_say(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    listed: set[str],
    split: int,
    again: int,
    cut: int,
) -> None:
    config = StoreConfig(str(tmp_path_factory.mktemp("store")))
    distinct = list(dict.fromkeys(rows))
    uploads = [part for part in (distinct[:split], distinct[split:], distinct[:again]) if part]
    as_of = at("2024-01-02T12:00:00")
    facts = {item: {"title": item.upper(), "category": "c", "price": 9.5} for item in listed}
    catalog = catalog_of(**{item: item.upper() for item in listed})
    whole_users, whole_items, written = compute(config, uploads, as_of, catalog=catalog)
    assert_rows(whole_users, expected_users(set(rows), as_of))
    assert_rows(whole_items, expected_items(set(rows), as_of, facts))
    unknown = sum(row[3] < as_of and row[1] not in listed for row in set(rows))
    assert written.unknown.interactions == (unknown if listed else 0)
    # Not close but equal: sums are integers, so no plan changes a bit.
    edges = sorted({0, cut // 2, cut, BUCKETS})
    users, items, _ = compute(config, uploads, as_of, edges=edges, catalog=catalog)
    assert users.equals(whole_users)
    assert items.equals(whole_items)


@given(rows=ROWS, others=ROWS)
def test_what_happens_at_as_of_or_later_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], others: list[Row]
) -> None:
    as_of = at("2024-01-01T18:00:00")
    late = list(dict.fromkeys((*row[:3], max(row[3], as_of), row[4]) for row in others))
    before = compute(StoreConfig(str(tmp_path_factory.mktemp("before"))), [rows], as_of)
    after = compute(StoreConfig(str(tmp_path_factory.mktemp("after"))), [rows, late], as_of)
    assert after[0].equals(before[0])
    assert after[1].equals(before[1])


@pytest.mark.parametrize(("shards", "uploads"), [(2, 5), (7, 1), (64, 2)])
def test_however_many_shards_and_files_in_whatever_order_the_tables_are_equal(
    config: StoreConfig, shards: int, uploads: int
) -> None:
    rows = many_rows()
    catalog = catalog_of(i3="Three", none="Nobody's")
    whole = compute(config, [rows], at("2024-03-01"), catalog=catalog)
    config = StoreConfig(f"{config.root}/again")
    files = store_rows(config, [rows[number::uploads] for number in range(uploads)])
    edges = [BUCKETS * number // shards for number in range(shards + 1)]
    plan = [Shard(a, b) for a, b in pairwise(edges)]
    run = make_features(
        Unordered(config, shards),
        files,
        catalog_files(config, catalog),
        plan,
        micros(at("2024-03-01")),
        DEFAULTS,
        PartSink("features/u-"),
        PartSink("features/i-"),
    )
    made = asyncio.run(run)
    assert read_parts(config, made.users, schema_of("user", DEFAULTS)).equals(whole[0])
    assert read_parts(config, made.items, schema_of("item", DEFAULTS)).equals(whole[1])
    assert made.interactions == len(set(rows))
    assert made.unknown == whole[2].unknown
    as_of_us = micros(at("2024-03-01"))
    told = made.user_statistics, made.item_statistics
    for table, key, statistics in zip(whole[:2], ("user_id", "item_id"), told, strict=True):
        assert statistics == to_json(statistics_of(sketch_table(table, key, as_of_us), as_of_us))
