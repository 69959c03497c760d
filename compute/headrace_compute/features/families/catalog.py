"""What the current catalog says of an item."""

from collections.abc import Iterator

from headrace_compute.features.feature import Feature
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.inputs.catalog import CATALOG_SCHEMA


def features(params: FeatureParams) -> Iterator[Feature]:
    """For items."""
    for column in CATALOG_SCHEMA:
        if column.name not in ("item_id", "bucket"):
            yield Feature(
                column.name,
                "item",
                column.type,
                f"The {column.name} in the current catalog.",
                f"catalog.{column.name}",
                null_when="the catalog lacks the item, or has none for it",
            )
