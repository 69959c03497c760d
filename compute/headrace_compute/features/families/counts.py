"""Counts of events, of what they are about, and the mean of ratings."""

from collections.abc import Iterator

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.features.feature import (
    COUNT,
    DOUBLE,
    GRAINS,
    Feature,
    Partial,
    from_units,
    is_type,
    units,
)
from headrace_compute.features.parameters import FeatureParams

TOTAL = Partial("total_interactions", "count")
TYPE_COUNTS = {name: Partial(f"num_{name}s", "count", is_type(name)) for name in INTERACTION_TYPES}

_RATING_SUM = Partial("rating_sum", "sum", f"coalesce({units('rating')}, 0)")
_RATINGS = Partial("ratings", "count", "rating IS NOT NULL")
_PARTNERS = Partial("partners", "partners")


def count_of(partial: Partial) -> str:
    """SQL for a count: items of the catalog that nobody has touched have none."""
    return f"coalesce({partial.name}, 0)"


def features(params: FeatureParams) -> Iterator[Feature]:
    """For users and items."""
    for grain in GRAINS:
        yield Feature(
            "total_interactions", grain, COUNT, f"Events of the {grain}.", count_of(TOTAL), (TOTAL,), "events"
        )
        other = "item" if grain == "user" else "user"
        yield Feature(
            f"unique_{other}s",
            grain,
            COUNT,
            f"Distinct {other}s of its events.",
            count_of(_PARTNERS),
            (_PARTNERS,),
            f"{other}s",
        )
        for name, partial in TYPE_COUNTS.items():
            yield Feature(
                partial.name, grain, COUNT, f"Events of type {name}.", count_of(partial), (partial,), "events"
            )
        yield Feature(
            "avg_rating",
            grain,
            DOUBLE,
            "Mean of the ratings that are not null.",
            f"{from_units('rating_sum')} / nullif(ratings, 0)",
            (_RATING_SUM, _RATINGS),
            null_when="no event has a rating",
        )
