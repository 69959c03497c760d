"""The registry: all features, and the tables they make."""

from collections.abc import Sequence
from types import ModuleType

import pyarrow as pa

from headrace_compute.columns import BUCKET
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.features.families import activity, catalog, counts, popularity, rates, recency, windows
from headrace_compute.features.feature import Feature, Grain, Overall, Partial
from headrace_compute.features.parameters import FeatureParams

FAMILIES: tuple[ModuleType, ...] = (counts, recency, activity, windows, rates, popularity, catalog)
"""In the order of the columns."""

CUT = "cut"
"""Column of a cut time."""

_COMMENT = "comment"
"""Key of a field's metadata that Delta shows as the column's comment."""


def families(params: FeatureParams) -> dict[str, tuple[Feature, ...]]:
    """All features by the names of their families."""
    return {name_of(family): tuple(family.features(params)) for family in FAMILIES}


def name_of(family: ModuleType) -> str:
    """What a family is called."""
    return family.__name__.rpartition(".")[2]


def features_of(grain: Grain, params: FeatureParams) -> tuple[Feature, ...]:
    """The features of one table, in the order of its columns."""
    return tuple(each for family in families(params).values() for each in family if each.grain == grain)


def partials_of(features: Sequence[Feature]) -> tuple[Partial, ...]:
    """What features need, each once."""
    return tuple({partial.name: partial for feature in features for partial in feature.partials}.values())


def overalls_of(features: Sequence[Feature]) -> tuple[Overall, ...]:
    """What features need of all items together, each once."""
    return tuple({each.name: each for feature in features for each in feature.overalls}.values())


def key_of(grain: Grain) -> str:
    """The column that a table has one row for each value of."""
    return f"{grain}_id"


def schema_of(grain: Grain, params: FeatureParams) -> pa.Schema:
    """The columns of user_features or item_features: the id, the features, the bucket."""
    bucket = (
        f"xxh64({key_of(grain)}) mod 1024; a table's rows are in the order of it, then of {key_of(grain)}."
    )
    return pa.schema(
        [
            _field(key_of(grain), pa.string(), f"The {grain}."),
            *_fields(features_of(grain, params)),
            _field(BUCKET, pa.int16(), bucket),
        ]
    )


def cuts_schema_of(grain: Grain, features: Sequence[Feature]) -> pa.Schema:
    """The columns of some features at many cut times: the id, the cut, the features, the bucket."""
    key = key_of(grain)
    return pa.schema(
        [
            _field(key, pa.string(), f"The {grain}."),
            _field(CUT, TIMESTAMP, f"Events of the {grain} before it count."),
            *_fields(features),
            _field(
                BUCKET, pa.int16(), f"xxh64({key}) mod 1024; rows are in the order of it, {key} and {CUT}."
            ),
        ]
    )


def comment_of(feature: Feature) -> str:
    """A column's comment: its meaning, unit, and when it is null."""
    unit = f" In {feature.unit}." if feature.unit else ""
    null = f" Null when {feature.null_when}." if feature.null_when else ""
    return f"{feature.meaning}{unit}{null}"


def field_of(feature: Feature) -> pa.Field:
    """Its column, with its comment."""
    return _field(feature.name, feature.type, comment_of(feature))


def _fields(features: Sequence[Feature]) -> list[pa.Field]:
    return list(map(field_of, features))


def _field(name: str, kind: pa.DataType, comment: str) -> pa.Field:
    return pa.field(name, kind, metadata={_COMMENT: comment})
