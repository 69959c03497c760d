"""When things happened, and which items were last."""

from collections.abc import Iterator

import pyarrow as pa

from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.features.feature import DOUBLE, GRAINS, Feature, Partial
from headrace_compute.features.parameters import DAY_US, FeatureParams

RECENT_ITEMS = 50

FIRST = Partial("first_us", "min", "time_us")
LAST = Partial("last_us", "max", "time_us")
_RECENT = Partial("recent", "newest", width=RECENT_ITEMS)


def features(params: FeatureParams) -> Iterator[Feature]:
    """For users and items; the list is the users'."""
    for grain in GRAINS:
        never = "it has no events" if grain == "item" else ""
        oldest, newest = "Time of its oldest event.", "Time of its newest event."
        yield Feature("first_interaction", grain, TIMESTAMP, oldest, "first_us", (FIRST,), null_when=never)
        yield Feature("last_interaction", grain, TIMESTAMP, newest, "last_us", (LAST,), null_when=never)
        yield Feature(
            "days_since_last_interaction",
            grain,
            DOUBLE,
            "From its newest event to as_of, with a fraction.",
            f"($as_of_us - last_us) / {DAY_US}",
            (LAST,),
            "days",
            never,
        )
    yield Feature(
        "recent_items",
        "user",
        pa.list_(pa.string()),
        f"The {RECENT_ITEMS} distinct items of its newest events, newest first, equal times by item_id.",
        "recent",
        (_RECENT,),
        names_items=True,
    )
