"""Features and histories in the rows of training data, against docs/semantics.md in plain Python."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from harness.oracle import expected_items, expected_users
from harness.sampling import NO_CORE, make, views_of
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import NoInteractionsError, NoPositivesError
from headrace_compute.training import negatives
from headrace_compute.training.feature_columns import columns_of
from headrace_compute.training.parameters import POINT_IN_TIME, SNAPSHOT
from headrace_compute.training.split import LEAVE_LAST_OUT, TEMPORAL, Split

DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = [day * DAY_US + shift for day in range(-1, 4) for shift in (0, 1, DAY_US // 2, DAY_US - 1)]
KINDS = ("view", "click", "purchase", "like", "add_to_cart")


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def micros(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


@st.composite
def cases(draw: Any) -> Any:
    event = st.tuples(
        st.sampled_from(["u0", "u1", "u2", "é"]),
        st.sampled_from([f"i{number}" for number in range(7)]),
        st.sampled_from(KINDS),
        st.sampled_from(TIMES),
    )
    split = draw(
        st.sampled_from(
            (
                None,
                Split(LEAVE_LAST_OUT),
                Split(TEMPORAL, (DAY_US + 5,)),
                Split(TEMPORAL, (DAY_US, 2 * DAY_US)),
            )
        )
    )
    params = replace(
        NO_CORE,
        seed=draw(st.integers(0, 99)),
        negative_ratio=draw(st.integers(1, 3)),
        split=split,
    )
    catalog = draw(st.none() | st.just(["i0", "i1", "i8"]))
    return draw(st.lists(event, min_size=5, max_size=60)), params, catalog


def made(root: Path, case: Any, **more: Any) -> Any:
    """The rows, the parameters and the rows that are made; no rows if there are none to make."""
    rows, params, catalog = case
    params = replace(params, **more)
    end_us = max(row[3] for row in rows) + 1
    try:
        _, table = make(root, rows, params, catalog=catalog, as_of_us=end_us, plan=1)
    except (NoInteractionsError, NoPositivesError):
        return params, pa.table({}), end_us
    return params, table, end_us


@given(
    case=cases(),
    length=st.sampled_from((1, 2, 1000)),
    types=st.sampled_from(((), ("view",), ("view", "purchase", "add_to_cart"))),
)
def test_a_history_is_what_the_split_sees_of_the_user_before_the_positive(
    tmp_path: Path, case: Any, length: int, types: Any
) -> None:
    params, table, _ = made(tmp_path, case, history=length, history_types=types, history_timestamps=True)
    rows = set(case[0])
    views = dict(zip(*views_of(list(rows), params)[:2], strict=True)) if params.split else {None: rows}
    for row in table.to_pylist():
        events = sorted(
            (time, item.encode(), item)
            for user, item, kind, time in set(views[row["split"]])
            if user == row["user_id"]
            and kind in (types or params.positive_types)
            # Strictly before.
            and time < micros(row["timestamp"])
        )[-length:]
        assert row["history"] == [item for _, _, item in events]
        assert list(map(micros, row["history_timestamps"])) == [time for time, _, _ in events]


def _as_rows(rows: Any) -> list[Any]:
    return [(user, item, kind, moment(time), None) for user, item, kind, time in rows]


def _check_features(row: Any, rows: Any, cut_us: int, catalog: Any, columns: Any) -> None:
    facts = {item: dict.fromkeys(("title", "category", "brand", "price"), None) for item in catalog or ()}
    cut = moment(cut_us)
    (user,) = expected_users(rows, cut, [row["user_id"]])
    (item,) = expected_items(rows, cut, facts, [row["item_id"]])
    for name in columns:
        expected = (user if name.startswith("user_") else item)[name.partition("_")[2]]
        value = expected if not isinstance(expected, float) else pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert row[name] == value, name


def some_columns(kind: Any) -> Any:
    """Some of the columns of features, of users, items or both: all of them take DuckDB long to plan."""
    return st.lists(st.sampled_from(sorted(columns_of(kind))), min_size=1, max_size=9, unique=True).map(tuple)


@given(
    case=cases(),
    asked=st.sampled_from((SNAPSHOT, POINT_IN_TIME)).flatmap(
        lambda kind: st.tuples(st.just(kind), some_columns(kind))
    ),
)
def test_features_are_those_before_the_day_or_of_one_instant(tmp_path: Path, case: Any, asked: Any) -> None:
    kind, columns = asked
    params, table, end_us = made(tmp_path, case, with_features=kind, feature_columns=columns)
    rows = _as_rows(set(case[0]))
    cuts = params.split.cuts_us if params.split else ()
    for row in table.to_pylist():
        midnight_us = micros(row["timestamp"]) // DAY_US * DAY_US
        snapshot_us = cuts[0] if cuts else end_us
        cut_us = snapshot_us if kind == SNAPSHOT else midnight_us
        _check_features(row, rows, cut_us, case[2], columns)


def test_a_snapshot_has_no_lists_of_items() -> None:
    assert "user_recent_items" not in columns_of(SNAPSHOT)
    assert "user_recent_items" in columns_of(POINT_IN_TIME)


@pytest.mark.parametrize(
    "columns",
    [
        ("item_price", "user_total_interactions", "item_avg_rating"),
        ("user_avg_rating",),
        ("item_total_interactions",),
    ],
)
def test_chosen_columns_come_in_their_order_with_the_values_of_all(tmp_path: Path, columns: Any) -> None:
    rng = random.Random(3)
    rows = [
        (f"u{rng.randrange(9)}", f"i{rng.randrange(9)}", rng.choice(KINDS), rng.choice(TIMES))
        for _ in range(200)
    ]
    case = (rows, NO_CORE, None)
    _, everything, _ = made(tmp_path, case, with_features=POINT_IN_TIME)
    assert "user_hourly_activity" not in everything.schema.names
    _, some, _ = made(tmp_path, case, with_features=POINT_IN_TIME, feature_columns=columns)
    assert tuple(some.schema.names[-len(columns) :]) == columns
    assert some.equals(everything.select(some.schema.names))


@given(
    case=cases(),
    changed=st.lists(st.sampled_from(TIMES), min_size=1, max_size=5),
    columns=some_columns(POINT_IN_TIME),
)
def test_later_events_change_no_feature_and_no_history_of_an_earlier_row(
    tmp_path: Path, case: Any, changed: Any, columns: Any
) -> None:
    rows, params, catalog = case
    params = replace(
        params,
        split=Split(TEMPORAL, (2 * DAY_US,)),
        with_features=POINT_IN_TIME,
        feature_columns=columns,
        history=5,
        history_types=KINDS,
    )
    later = [
        (f"u{number % 3}", "i3", "purchase", max(2 * DAY_US, time)) for number, time in enumerate(changed)
    ]
    kept = [row for row in rows if row[3] < 2 * DAY_US]
    if not kept:
        return
    tables = []
    for source in (rows, kept + later):
        try:
            tables.append(make(tmp_path, source, params, catalog=catalog, as_of_us=9 * DAY_US, plan=1)[1])
        except (NoInteractionsError, NoPositivesError) as error:
            tables.append(type(error))
    if all(isinstance(table, pa.Table) for table in tables):
        trains = [table.filter(pc.equal(table["split"], "train")) for table in tables]
        assert trains[0].equals(trains[1])
    else:
        assert tables[0] is tables[1]


def test_small_pieces_hold_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    rows = [
        (f"u{rng.randrange(30)}", f"i{rng.randrange(20)}", rng.choice(KINDS), rng.choice(TIMES))
        for _ in range(900)
    ]
    params = replace(NO_CORE, history=7, with_features=SNAPSHOT)
    whole_set, whole = make(tmp_path, rows, params, as_of_us=9 * DAY_US)
    monkeypatch.setattr(negatives, "PIECE_EVENTS", 500)
    dataset, same = make(tmp_path, rows, params, as_of_us=9 * DAY_US, plan=7)
    assert same.equals(whole)
    assert dataset.splits == whole_set.splits
