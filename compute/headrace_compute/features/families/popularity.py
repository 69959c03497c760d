"""How much is going on about an item."""

from collections.abc import Iterator

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.features.families.counts import TOTAL
from headrace_compute.features.feature import DOUBLE, Feature, Overall, Partial, from_units, is_type, units
from headrace_compute.features.parameters import FeatureParams

_WEIGHT = " ".join(f"WHEN {is_type(name)} THEN $weight_{name}" for name in INTERACTION_TYPES)
_DECAYED = f"CASE {_WEIGHT} ELSE 0 END * pow(2.0, (time_us - $as_of_us) / $half_life_us)"
_ENGAGEMENT = Partial("engagement_sum", "sum", units(f"({_DECAYED})"))
_MOST = Overall("most_interactions", "max", TOTAL)


def features(params: FeatureParams) -> Iterator[Feature]:
    """For items."""
    yield Feature(
        "popularity_score",
        "item",
        DOUBLE,
        "ln(1 + n) / ln(1 + max n), n = total_interactions; 0 to 1.",
        f"coalesce(ln(1 + total_interactions) / ln(1 + nullif({_MOST.name}, 0)), 0)",
        (TOTAL,),
        overalls=(_MOST,),
    )
    yield Feature(
        "engagement_score",
        "item",
        DOUBLE,
        "Sum of weight(type) * 2^(-age / half-life) over its events, age = as_of - timestamp.",
        f"coalesce({from_units('engagement_sum')}, 0)",
        (_ENGAGEMENT,),
    )
