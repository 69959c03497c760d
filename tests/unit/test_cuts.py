"""Features at many cut times against runs as of each of them, and against the oracle."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from harness.features import (
    DEFAULTS,
    Row,
    at,
    bucket,
    catalog_of,
    compute,
    many_rows,
    read,
    store_rows,
)
from harness.oracle import DAY, assert_rows, expected_items, expected_users
from harness.workers import Unordered
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.features import timeline
from headrace_compute.features.cut_run import Wanted, features_at_cuts
from headrace_compute.features.cuts import distinct_points
from headrace_compute.features.feature import Feature, Grain
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import cuts_schema_of, features_of
from headrace_compute.inputs.workers import InProcess, Workers
from headrace_compute.model import BUCKETS, Shard, StoreConfig

Asked = Collection[tuple[str, datetime]]


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(str(tmp_path))


def asked_table(key: str, asked: Asked) -> pa.Table:
    names, cuts = [name for name, _ in asked], [cut for _, cut in asked]
    return pa.table({key: pa.array(names, pa.string()), "cut": pa.array(cuts, pa.timestamp("us", tz="UTC"))})


@dataclass(frozen=True)
class Cuts:
    users: pa.Table
    items: pa.Table


def plan_of(shards: int) -> list[Shard]:
    edges = [BUCKETS * number // shards for number in range(shards + 1)]
    return [Shard(first, last) for first, last in pairwise(edges)]


def at_cuts(
    config: StoreConfig,
    uploads: Sequence[Sequence[Row]],
    users: Asked,
    items: Asked,
    shards: int = 1,
    catalog: pa.Table | None = None,
    params: FeatureParams = DEFAULTS,
    workers: Workers | None = None,
    columns: Collection[str] | None = None,
) -> Cuts:
    """What the driver makes, shard after shard."""
    plan = plan_of(shards)
    latest = max((cut for _, cut in (*users, *items)), default=at("2024-01-01"))
    source = read(config, store_rows(config, uploads), plan, latest, catalog)
    wanted = Wanted(
        [asked_table("user_id", users)],
        [asked_table("item_id", items)],
        chosen("user", params, columns),
        chosen("item", params, columns),
        params,
    )
    run = features_at_cuts(workers or InProcess(config), source, catalog, plan, wanted)
    made = asyncio.run(run)
    return Cuts(pa.concat_tables(made.users), pa.concat_tables(made.items))


def chosen(grain: Grain, params: FeatureParams, columns: Collection[str] | None) -> tuple[Feature, ...]:
    features = features_of(grain, params)
    return tuple(each for each in features if columns is None or each.name in columns)


def in_order(key: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["bucket"], row[key].encode(), row["cut"]))


def by_cut(asked: Asked) -> dict[datetime, set[str]]:
    names: dict[datetime, set[str]] = defaultdict(set)
    for name, cut in asked:
        names[cut].add(name)
    return names


def of_runs(
    config: StoreConfig,
    uploads: Sequence[Sequence[Row]],
    users: Asked,
    items: Asked,
    catalog: pa.Table | None,
    params: FeatureParams,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of those that are asked, in tables of a features run as of each cut by itself."""
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
    of_users, of_items = by_cut(users), by_cut(items)
    for number, cut in enumerate(of_users.keys() | of_items.keys()):
        alone = StoreConfig(f"{config.root}/{number}")
        tables = compute(alone, uploads, cut, catalog=catalog, params=params)[:2]
        for rows, table, key, names in zip(
            found, tables, ("user_id", "item_id"), (of_users[cut], of_items[cut]), strict=True
        ):
            rows += [{"cut": cut, **row} for row in table.to_pylist() if row[key] in names]
    return in_order("user_id", found[0]), in_order("item_id", found[1])


def some_asked(names: Sequence[str], seed: int, count: int) -> list[tuple[str, datetime]]:
    """Eight days before, amid and after `many_rows`; some pairs twice."""
    some = random.Random(seed)
    return [(some.choice(names), at("2023-12-30") + 9 * some.randrange(8) * DAY) for _ in range(count)]


USERS = some_asked([f"u{number}" for number in range(120)], 1, 60)
ITEMS = some_asked([f"i{number}" for number in range(40)], 2, 60)


@pytest.mark.parametrize(
    "params",
    [
        DEFAULTS,
        FeatureParams(
            windows=(1, 3, 90), weights={"view": 2.5, "like": 1e6}, half_life_days=0.7, smoothing=0
        ),
    ],
)
def test_each_row_is_that_of_a_run_as_of_its_cut_to_the_bit(
    config: StoreConfig, params: FeatureParams
) -> None:
    rows, catalog = many_rows(), catalog_of(i3="Three", none="Nobody's")
    uploads = [rows[:900], rows[700:]]
    users, items = USERS[:20], [*ITEMS[:20], ("none", at("2024-01-09")), ("i3", at("2023-01-01"))]
    made = at_cuts(config, uploads, users, items, 3, catalog, params)
    of_users, of_items = of_runs(config, uploads, users, items, catalog, params)
    # Whoever has no event before the cut is in no run's table; see below.
    seen = made.users.filter(pc.greater(made.users["total_interactions"], 0))
    assert seen.to_pylist() == of_users
    known = {(row["item_id"], row["cut"]) for row in of_items}
    assert [row for row in made.items.to_pylist() if (row["item_id"], row["cut"]) in known] == of_items
    assert made.users.num_rows == len(set(users))
    assert made.items.num_rows == len(set(items))


@pytest.mark.parametrize(("shards", "uploads"), [(2, 5), (7, 1), pytest.param(64, 2, marks=pytest.mark.slow)])
def test_however_many_shards_in_whatever_order_the_tables_are_equal(
    config: StoreConfig, shards: int, uploads: int
) -> None:
    rows, catalog = many_rows(), catalog_of(i3="Three", none="Nobody's")
    whole = at_cuts(config, [rows], USERS, ITEMS, catalog=catalog)
    config = StoreConfig(f"{config.root}/again")
    parts = [rows[number::uploads] for number in range(uploads)]
    cut = at_cuts(config, parts, USERS[::-1], ITEMS[::-1], shards, catalog, workers=Unordered(config, shards))
    assert cut.users.equals(whole.users)
    assert cut.items.equals(whole.items)


def test_who_has_no_event_before_the_cut_has_a_row_of_nothing(config: StoreConfig) -> None:
    rows = many_rows()
    early, nobody = at("2023-01-01"), [("u1", at("2023-01-01")), ("stranger", at("2024-02-01"))]
    items = [("i1", early), ("i3", early), ("unheard-of", at("2024-02-01"))]
    catalog = catalog_of(i3="Three")
    made = at_cuts(config, [rows], nobody, items, 2, catalog)
    user, stranger = (row for row in in_order("user_id", made.users.to_pylist()))
    for row in (user, stranger):
        assert row["total_interactions"] == row["days_active"] == row["total_interactions_7d"] == 0
        assert row["recent_items"] == []
        assert row["hourly_activity"] == [0] * 24
        nothing = ("avg_rating", "first_interaction", "interactions_per_day", "conversion_rate")
        assert [row[name] for name in nothing] == [None] * 4
    by_name = {row["item_id"]: row for row in made.items.to_pylist()}
    for row in by_name.values():
        assert row["total_interactions"] == row["popularity_score"] == row["engagement_score"] == 0
        assert row["last_interaction"] is None
    assert by_name["i3"]["title"] == "Three"
    assert by_name["unheard-of"]["title"] is None
    # What all other items have tells of one without events, too; before the first event nothing does.
    assert by_name["unheard-of"]["purchase_rate_smoothed"] is not None
    assert by_name["i1"]["purchase_rate_smoothed"] is None


def test_an_event_at_the_cut_does_not_count(config: StoreConfig) -> None:
    rows: list[Row] = [
        ("ann", "i1", "view", at("2024-01-01T23:59:59.999999"), None),
        ("ann", "i2", "purchase", at("2024-01-02"), 4.0),
    ]
    cuts = [at("2024-01-02"), at("2024-01-02T00:00:00.000001")]
    made = at_cuts(config, [rows], [("ann", cut) for cut in cuts], [("i2", cut) for cut in cuts])
    assert made.users["total_interactions"].to_pylist() == [1, 2]
    assert made.users["recent_items"].to_pylist() == [["i1"], ["i2", "i1"]]
    assert made.items["num_purchases"].to_pylist() == [0, 1]
    # The window takes its first instant in, as ever.
    window = at("2024-01-09")
    made = at_cuts(config, [rows], [("ann", window)], [])
    assert made.users["total_interactions_7d"].to_pylist() == [1]


def test_recent_items_at_a_cut_are_the_50_newest_and_ties_go_by_item_id(config: StoreConfig) -> None:
    """Also where one of them was seen before, and where what fell out comes back."""
    early = [("ann", f"e{n:02d}", "view", at("2024-01-01"), None) for n in range(30)]
    late = [("ann", f"l{n:02d}", "view", at("2024-01-02"), None) for n in range(60)]
    again: list[Row] = [("ann", item, "click", at("2024-01-03"), None) for item in ("l07", "e29", "e03")]
    users = [("ann", at(day)) for day in ("2024-01-02", "2024-01-03", "2024-01-04")]
    made = at_cuts(config, [[*late, *again, *early]], users, [])
    lates = [row[1] for row in late]
    assert made.users["recent_items"].to_pylist() == [
        [row[1] for row in early],
        lates[:50],
        ["e03", "e29", "l07", *(item for item in lates if item != "l07")][:50],
    ]


def test_what_decays_is_added_up_over_pieces_of_any_size(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = at_cuts(config, [many_rows()], [], ITEMS)
    monkeypatch.setattr(timeline, "PIECE_ROWS", 97)
    pieces = at_cuts(StoreConfig(f"{config.root}/again"), [many_rows()], [], ITEMS)
    assert pieces.items.equals(whole.items)


def test_columns_are_those_that_are_wanted(config: StoreConfig) -> None:
    columns = ("num_views", "total_interactions_7d", "recent_items", "popularity_score")
    whole = at_cuts(config, [many_rows()], USERS, ITEMS)
    again = StoreConfig(f"{config.root}/again")
    made = at_cuts(again, [many_rows()], USERS, ITEMS, columns=columns)
    users = ["user_id", "cut", "num_views", "recent_items", "total_interactions_7d", "bucket"]
    items = ["item_id", "cut", "num_views", "total_interactions_7d", "popularity_score", "bucket"]
    assert made.users.equals(whole.users.select(users))
    assert made.items.equals(whole.items.select(items))


def test_nothing_asked_gives_nothing(config: StoreConfig) -> None:
    made = at_cuts(config, [many_rows()], [], [], 3)
    for grain, table in (("user", made.users), ("item", made.items)):
        assert table.equals(cuts_schema_of(grain, features_of(grain, DEFAULTS)).empty_table())  # type: ignore[arg-type]


def test_what_is_asked_is_put_in_order_and_each_pair_once() -> None:
    asked = asked_table("user_id", [*USERS, *USERS[:9], ("é", at("1960-05-05")), ("é", at("2024-05-05"))])
    encoded = asked.set_column(0, "user_id", asked["user_id"].dictionary_encode())
    points = distinct_points("user_id", asked, encoded)
    wanted = sorted(
        set(zip(asked["user_id"].to_pylist(), asked["cut"].to_pylist(), strict=True)),
        key=lambda pair: (bucket(pair[0]), pair[0].encode(), pair[1]),
    )
    assert list(zip(points["user_id"].to_pylist(), points["cut"].to_pylist(), strict=True)) == wanted
    assert points["bucket"].to_pylist() == [bucket(name) for name, _ in wanted]


NAMES = st.sampled_from(["a", "b", "B", "é", "日本", "zz", "u1", "u2"])
TIMES = st.integers(-60, 60).map(lambda hours: at("2024-01-01") + hours * timedelta(hours=1))
CUTS = st.integers(-4, 4).map(lambda days: at("2024-01-01") + days * DAY) | TIMES
RATINGS = st.none() | st.sampled_from([1.0, 3.3, 5.0])
KINDS = st.sampled_from(["view", "click", "purchase", "like", "add_to_cart"])
ROWS = st.lists(st.tuples(NAMES, NAMES, KINDS, TIMES, RATINGS), min_size=1, max_size=40)
ASKED = st.sets(st.tuples(NAMES, CUTS), max_size=12)


@given(
    rows=ROWS,
    users=ASKED,
    items=ASKED,
    listed=st.sets(NAMES),
    again=st.integers(0, 40),
    shards=st.integers(1, 2),
)
def test_any_data_at_any_cuts_gives_what_the_definitions_say(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    users: set[tuple[str, datetime]],
    items: set[tuple[str, datetime]],
    listed: set[str],
    again: int,
    shards: int,
) -> None:
    config = StoreConfig(str(tmp_path_factory.mktemp("store")))
    facts = {item: {"title": item.upper(), "category": "c", "price": 9.5} for item in listed}
    catalog = catalog_of(**{item: item.upper() for item in listed})
    distinct = list(dict.fromkeys(rows))
    uploads = [part for part in (distinct, distinct[:again]) if part]
    made = at_cuts(config, uploads, users, items, shards, catalog)
    expected = [
        {"cut": cut, **row}
        for cut, names in by_cut(users).items()
        for row in expected_users(distinct, cut, names)
    ]
    assert_rows(made.users, in_order("user_id", expected))
    expected = [
        {"cut": cut, **row}
        for cut, names in by_cut(items).items()
        for row in expected_items(distinct, cut, facts, names)
    ]
    assert_rows(made.items, in_order("item_id", expected))


@given(rows=ROWS, others=ROWS, users=ASKED, items=ASKED)
def test_what_happens_at_a_cut_or_later_changes_no_row_of_it(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    others: list[Row],
    users: set[tuple[str, datetime]],
    items: set[tuple[str, datetime]],
) -> None:
    latest = max((cut for _, cut in (*users, *items)), default=at("2024-01-01"))
    late = list(dict.fromkeys((*row[:3], latest + abs(row[3] - at("2024-01-01")), row[4]) for row in others))
    distinct = list(dict.fromkeys(rows))
    before = at_cuts(StoreConfig(str(tmp_path_factory.mktemp("before"))), [distinct], users, items)
    after = at_cuts(StoreConfig(str(tmp_path_factory.mktemp("after"))), [distinct, late], users, items)
    assert after.users.equals(before.users)
    assert after.items.equals(before.items)
