"""The registry: what is declared once is everywhere, and no column has changed a bit since its release."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from harness.features import at, catalog_of, compute, many_rows

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.features.document import document
from headrace_compute.features.feature import GRAINS, Grain
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import families, features_of, partials_of, schema_of
from headrace_compute.model import StoreConfig

DOCS = Path(__file__).parents[2] / "docs"

GOLDEN = {
    "user": {
        "user_id": "fb9a026879228908",
        "total_interactions": "79c9123476cecb89",
        "unique_items": "eac16ca933aa8887",
        "avg_rating": "a6888bb85daf4769",
        "first_interaction": "410c82df3b51eef0",
        "last_interaction": "c7706786d365c8cd",
        "days_active": "7997f1c136fb0225",
        "interactions_per_day": "f865d43a8b3ec4d6",
        "num_views": "eea3b8368563e59b",
        "num_clicks": "7e9f73fc4510ed6a",
        "num_purchases": "4b8b4abd1fa99625",
        "num_likes": "af73f87691018320",
        "num_add_to_carts": "93c04ef81235d786",
        "conversion_rate": "5a520ef09a264050",
        "recent_items": "8e5a29a25f26bc55",
        "days_since_last_interaction": "23e7d56570ee7a84",
        "bucket": "01862c11a61ac23e",
    },
    "item": {
        "item_id": "f087a9e393f0808e",
        "total_interactions": "bb643b371089a309",
        "unique_users": "ac6e9051b372d9e7",
        "avg_rating": "5719dca9190e9536",
        "num_views": "141c4fbb24370f13",
        "num_clicks": "c486fd223889e2d5",
        "num_purchases": "2f134b8d77f09cfd",
        "num_likes": "d916d2738ac350aa",
        "num_add_to_carts": "8a5cc3b473a1a15a",
        "popularity_score": "fbffc6e98f54fc02",
        "engagement_score": "69db4d886170726a",
        "purchase_rate": "3d0e739531b8c413",
        "click_through_rate": "5db3b45e50c4206a",
        "first_interaction": "10e55e56027b1d05",
        "last_interaction": "a2f6fec961abeeb2",
        "title": "4312aa666a0f0e3f",
        "category": "edb0930efcc2d40b",
        "price": "86c86ef56c98e331",
        "brand": "f0592a229d61ff24",
        "bucket": "948b801a6bff3ee5",
    },
}
"""What the hand-written queries of the first release made of `many_rows`: a hash of each column's values."""


@pytest.mark.parametrize("grain", GRAINS)
def test_columns_of_the_first_release_have_its_values_to_the_bit(tmp_path: Path, grain: Grain) -> None:
    catalog = catalog_of(i3="Three", none="Nobody's")
    users, items, _ = compute(StoreConfig(str(tmp_path)), [many_rows()], at("2024-03-01"), catalog=catalog)
    table = users if grain == "user" else items
    found = {name: _hash(table[name]) for name in GOLDEN[grain]}
    assert found == GOLDEN[grain]


def _hash(column: pa.ChunkedArray) -> str:
    return hashlib.sha256("\n".join(map(repr, column.to_pylist())).encode()).hexdigest()[:16]


@pytest.mark.parametrize("grain", GRAINS)
def test_every_feature_is_declared_once_and_says_what_it_is(grain: Grain) -> None:
    features = features_of(grain, FeatureParams(windows=(1, 7, 365)))
    names = [feature.name for feature in features]
    assert len(set(names)) == len(names)
    for feature in features:
        assert feature.meaning.endswith(".")
        assert feature.null_when == feature.null_when.rstrip(".")
    schema = schema_of(grain, FeatureParams(windows=(1, 7, 365)))
    assert schema.names == [f"{grain}_id", *names, "bucket"]
    assert all(field.metadata[b"comment"] for field in schema)


def test_partials_of_one_name_are_one() -> None:
    for grain in GRAINS:
        features = features_of(grain, FeatureParams())
        by_name = {partial.name: partial for feature in features for partial in feature.partials}
        assert all(by_name[each.name] == each for feature in features for each in feature.partials)
        if grain == "item":
            assert all(partial.merged for partial in partials_of(features))


def test_what_all_items_have_together_is_counted_and_only_sums_know_as_of() -> None:
    """What features at many cut times rest on."""
    for grain in GRAINS:
        features = features_of(grain, FeatureParams())
        for partial in partials_of(features):
            assert partial.operation == "sum" or "$as_of_us" not in partial.of
            assert partial.operation == "count" or not partial.days
        for feature in features:
            for overall in feature.overalls:
                assert overall.of in feature.partials
                assert overall.of.operation == "count"
                assert not overall.of.days


def test_each_interaction_type_has_its_count() -> None:
    for grain in GRAINS:
        names = {feature.name for feature in features_of(grain, FeatureParams())}
        assert {f"num_{name}s" for name in INTERACTION_TYPES} <= names


def test_every_family_has_features() -> None:
    assert all(families(FeatureParams()).values())


def test_the_document_of_features_is_fresh() -> None:
    assert (DOCS / "features.md").read_text() == document()
