"""Counts within windows: the last days before as_of."""

from collections.abc import Iterator

from headrace_compute.features.families.counts import count_of
from headrace_compute.features.feature import COUNT, GRAINS, Feature, Grain, Partial, is_type
from headrace_compute.features.parameters import DAY_US, FeatureParams

TYPES = ("purchase",)
"""Interaction types that have windows of their own."""


def features(params: FeatureParams) -> Iterator[Feature]:
    """For users and items, for each window."""
    for grain in GRAINS:
        for days in params.windows:
            inside = f"time_us >= $as_of_us - {days * DAY_US}"
            total = Partial(f"total_interactions_{days}d", "count", inside)
            yield _count(grain, total, f"Events in the {days} days before as_of.")
            for name in TYPES:
                partial = Partial(f"num_{name}s_{days}d", "count", f"{inside} AND {is_type(name)}")
                yield _count(grain, partial, f"Events of type {name} in the {days} days before as_of.")


def _count(grain: Grain, partial: Partial, meaning: str) -> Feature:
    return Feature(partial.name, grain, COUNT, meaning, count_of(partial), (partial,), "events")
