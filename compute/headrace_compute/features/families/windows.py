"""Counts within windows: the last days before as_of."""

from collections.abc import Iterator

from headrace_compute.features.families.counts import count_of
from headrace_compute.features.feature import COUNT, GRAINS, Feature, Grain, Partial, is_type
from headrace_compute.features.parameters import FeatureParams

TYPES = ("purchase",)
"""Interaction types that have windows of their own."""


def features(params: FeatureParams) -> Iterator[Feature]:
    """For users and items, for each window."""
    for grain in GRAINS:
        for days in params.windows:
            total = Partial(f"total_interactions_{days}d", "count", days=days)
            yield _count(grain, total, f"Events in the {days} days before as_of.")
            for name in TYPES:
                partial = Partial(f"num_{name}s_{days}d", "count", is_type(name), days=days)
                yield _count(grain, partial, f"Events of type {name} in the {days} days before as_of.")


def _count(grain: Grain, partial: Partial, meaning: str) -> Feature:
    return Feature(partial.name, grain, COUNT, meaning, count_of(partial), (partial,), "events")
