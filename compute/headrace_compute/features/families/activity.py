"""On which days, at which hours and on which weekdays a user is active; of UTC."""

from collections.abc import Iterator

import pyarrow as pa

from headrace_compute.features.families.counts import TOTAL
from headrace_compute.features.feature import COUNT, DOUBLE, Feature, Partial
from headrace_compute.features.parameters import FeatureParams

_DAYS = Partial("days_active", "days")
_HOURS = Partial("hours", "histogram", "hour", 24)
_WEEKDAYS = Partial("weekdays", "histogram", "weekday", 7)


def features(params: FeatureParams) -> Iterator[Feature]:
    """For users."""
    yield Feature(
        "days_active", "user", COUNT, "Distinct UTC dates of its events.", "days_active", (_DAYS,), "days"
    )
    yield Feature(
        "interactions_per_day",
        "user",
        DOUBLE,
        "Events by days_active.",
        "total_interactions / nullif(days_active, 0)",
        (TOTAL, _DAYS),
        "events a day",
    )
    counts = pa.list_(COUNT)
    hours = "Events in each hour of the UTC day, 24 counts from midnight."
    yield Feature("hourly_activity", "user", counts, hours, "hours", (_HOURS,), "events")
    weekdays = "Events on each weekday of UTC, 7 counts, Monday first."
    yield Feature("weekday_activity", "user", counts, weekdays, "weekdays", (_WEEKDAYS,), "events")
