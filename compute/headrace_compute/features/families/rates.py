"""Rates: one count by another, raw and smoothed.

A rate of few events says little. A smoothed one adds to the item's events some of the tenant's own rate: an
empirical Bayes estimate, whose prior is a beta distribution.
"""

from collections.abc import Iterator

from headrace_compute.features.families.counts import TYPE_COUNTS, count_of
from headrace_compute.features.feature import DOUBLE, Feature, Grain, Overall, Partial
from headrace_compute.features.parameters import FeatureParams

_VIEWS, _CLICKS, _PURCHASES = (TYPE_COUNTS[name] for name in ("view", "click", "purchase"))
_ALL = {partial: Overall(f"all_{partial.name}", "sum", partial) for partial in (_VIEWS, _CLICKS, _PURCHASES)}


def features(params: FeatureParams) -> Iterator[Feature]:
    """For users and items; smoothed for items."""
    yield _rate("conversion_rate", "user", _PURCHASES, "Purchases by views; never clamped.")
    yield _rate("purchase_rate", "item", _PURCHASES, "Purchases by views; never clamped.")
    clicks = "Clicks by views, which stand in for impressions; never clamped."
    yield _rate("click_through_rate", "item", _CLICKS, clicks)
    yield _smoothed("purchase_rate_smoothed", _PURCHASES, "purchase_rate")
    yield _smoothed("click_through_rate_smoothed", _CLICKS, "click_through_rate")


def _rate(name: str, grain: Grain, top: Partial, meaning: str) -> Feature:
    return Feature(
        name,
        grain,
        DOUBLE,
        meaning,
        f"{top.name} / nullif({_VIEWS.name}, 0)",
        (top, _VIEWS),
        null_when="it has no views",
    )


def _smoothed(name: str, top: Partial, rate: str) -> Feature:
    tops, bottoms = _ALL[top], _ALL[_VIEWS]
    prior = f"$smoothing * nullif({bottoms.name}, 0) / nullif({tops.name}, 0)"
    own = f"nullif({count_of(_VIEWS)} + {prior}, 0)"
    return Feature(
        name,
        "item",
        DOUBLE,
        f"The item's {rate} drawn to the tenant's: (w + t) / (b + w * B / T), where w is the smoothing, "
        "t and b are the item's top and bottom counts, T and B the tenant's.",
        f"($smoothing + {count_of(top)}) / {own}",
        (top, _VIEWS),
        null_when="T or B is 0, or smoothing and b both are",
        overalls=(tops, bottoms),
    )
