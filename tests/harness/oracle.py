"""Features by plain Python: docs/semantics.md, "User features" and "Item features", read aloud."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from harness.features import Row, bucket, micros

DAY = timedelta(days=1)
WEIGHTS = {"view": 0.1, "click": 1.0, "like": 2.0, "add_to_cart": 3.0, "purchase": 4.0}
COUNTS = {
    "num_views": "view",
    "num_clicks": "click",
    "num_purchases": "purchase",
    "num_likes": "like",
    "num_add_to_carts": "add_to_cart",
}
FACTS = ("title", "category", "price", "brand")


def by_bucket(names: Iterable[str]) -> list[str]:
    """In the order of a table's rows."""
    return sorted(names, key=lambda name: (bucket(name), name.encode()))


def expected_users(
    rows: Collection[Row], as_of: datetime, users: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of user_features, or those of some users, with events or without."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row[3] < as_of:
            grouped[row[0]].append(row)
    names = by_bucket(grouped if users is None else users)
    return [_user(user, grouped.get(user, []), as_of) for user in names]


def _user(user: str, mine: Sequence[Row], as_of: datetime) -> dict[str, Any]:
    times = [row[3] for row in mine]
    newest: dict[str, datetime] = {}
    for row in mine:
        newest[row[1]] = max(newest.get(row[1], row[3]), row[3])
    days = len({time.astimezone(UTC).date() for time in times})
    recent = sorted(newest, key=lambda item: (-micros(newest[item]), item.encode()))
    common = _common(mine, as_of)
    return {
        "user_id": user,
        **common,
        "unique_items": len(newest),
        "days_active": days,
        "interactions_per_day": ratio(len(mine), days),
        "conversion_rate": ratio(common["num_purchases"], common["num_views"]),
        "recent_items": recent[:50],
        "hourly_activity": [sum(time.hour == hour for time in times) for hour in range(24)],
        "weekday_activity": [sum(time.weekday() == day for time in times) for day in range(7)],
        "bucket": bucket(user),
    }


def expected_items(
    rows: Collection[Row],
    as_of: datetime,
    catalog: Mapping[str, Mapping[str, Any]],
    items: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """The rows of item_features, or those of some items, with events or without.

    Args:
        catalog: What the current catalog says of each item.
    """
    grouped: dict[str, list[Row]] = {item: [] for item in catalog}
    for row in rows:
        if row[3] < as_of:
            grouped.setdefault(row[1], []).append(row)
    most = max((len(mine) for mine in grouped.values()), default=0)
    tenant = {kind: sum(row[2] == kind for mine in grouped.values() for row in mine) for kind in WEIGHTS}
    return [
        _item(item, grouped.get(item, []), as_of, most, tenant, catalog.get(item, {}))
        for item in by_bucket(grouped if items is None else items)
    ]


def _item(
    item: str,
    mine: Sequence[Row],
    as_of: datetime,
    most: int,
    tenant: Mapping[str, int],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    common = _common(mine, as_of)
    views, clicks, purchases = (common[f"num_{kind}"] for kind in ("views", "clicks", "purchases"))
    return {
        "item_id": item,
        **common,
        "unique_users": len({row[0] for row in mine}),
        "popularity_score": math.log(1 + len(mine)) / math.log(1 + most) if most else 0.0,
        "engagement_score": math.fsum(
            WEIGHTS[row[2]] * 2 ** (-((as_of - row[3]) / DAY) / 30) for row in mine
        ),
        "purchase_rate": ratio(purchases, views),
        "click_through_rate": ratio(clicks, views),
        "purchase_rate_smoothed": smoothed(10, tenant["view"], tenant["purchase"], views, purchases),
        "click_through_rate_smoothed": smoothed(10, tenant["view"], tenant["click"], views, clicks),
        **dict.fromkeys(FACTS),
        **facts,
        "bucket": bucket(item),
    }


def _common(mine: Sequence[Row], as_of: datetime) -> dict[str, Any]:
    """What users and items both have."""
    times = [row[3] for row in mine]
    return {
        "total_interactions": len(mine),
        "avg_rating": mean([row[4] for row in mine if row[4] is not None]),
        **{name: sum(row[2] == kind for row in mine) for name, kind in COUNTS.items()},
        "first_interaction": min(times, default=None),
        "last_interaction": max(times, default=None),
        "days_since_last_interaction": (as_of - max(times)) / DAY if times else None,
        **windows(mine, as_of),
    }


def windows(rows: Sequence[Row], as_of: datetime, *days: int) -> dict[str, int]:
    """A window of w days is [as_of - w, as_of)."""
    counts = {}
    for length in days or (7, 30):
        inside = [row for row in rows if as_of - length * DAY <= row[3] < as_of]
        counts[f"total_interactions_{length}d"] = len(inside)
        counts[f"num_purchases_{length}d"] = sum(row[2] == "purchase" for row in inside)
    return counts


def smoothed(w: float, all_bottom: int, all_top: int, bottom: int, top: int) -> float | None:
    if not (all_bottom and all_top):
        return None
    return (w + top) / (bottom + w * all_bottom / all_top)


def mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def ratio(top: int, bottom: int) -> float | None:
    return top / bottom if bottom else None


def assert_rows(actual: pa.Table, expected: Sequence[Mapping[str, Any]]) -> None:
    """Equal rows in equal order; doubles up to the rounding of sums (units of 2^-40 each)."""
    rows = actual.to_pylist()
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert sorted(row) == sorted(wanted)
        for name, value in wanted.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
            else:
                assert row[name] == value, name
