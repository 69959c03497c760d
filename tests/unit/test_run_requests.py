"""What is told of requests for runs and their statistics, and which of them ask for the same."""

from dataclasses import replace
from typing import Any, cast

import pytest

from headrace.v1 import run_pb2, statistics_pb2
from headrace_compute.errors import InvalidFieldError
from headrace_compute.features.feature import TABLES
from headrace_compute.model import Snapshot
from headrace_compute.statistics.drift import ColumnDrift
from headrace_server.runs.features import FEATURES, drift_limits
from headrace_server.runs.inputs import RunRequest
from headrace_server.runs.job import RunKind
from headrace_server.runs.journals import JournaledRun
from headrace_server.runs.keeper import asked_of, asks_for
from headrace_server.runs.negatives import NEGATIVES
from headrace_server.runs.statistics import get_statistics, warning


def _run(kind: RunKind[Any], request: RunRequest) -> JournaledRun:
    asked = asked_of(request)
    return JournaledRun("t", "id", "r", kind.name, asked, asked, True, 0, ("a",))


Features = run_pb2.ComputeFeaturesRequest
Negatives = run_pb2.SampleNegativesRequest


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        (Features(), Features(windows=[30, 7]), Features(windows=[7])),
        (Features(), Features(half_life_days=30, smoothing=10), Features(smoothing=0)),
        (Features(weights={"view": 0.1}), Features(weights={"like": 2}), Features(weights={"like": 3})),
        (
            Features(windows=[3, 7, 3]),
            Features(windows=[7, 3], include_rows=True, omit_progress=True),
            Features(items_version=1),
        ),
        (Negatives(), Negatives(strategy="popularity", alpha=0.75), Negatives(strategy="uniform")),
        (Negatives(), Negatives(dataset="training_data", zipf_exponent=1), Negatives(dataset="other")),
        (
            Negatives(positive_interaction_types=["like", "click", "purchase"]),
            Negatives(uniform_share=0.5, same_category_share=0.0),
            Negatives(positive_interaction_types=["like"]),
        ),
        (Negatives(), Negatives(available_only=False), Negatives(available_only=True)),
        (Negatives(), Negatives(same_category_share=0.0), Negatives(same_category_share=0.1)),
        # What a server's settings say may change.
        (Negatives(), Negatives(seed=0, omit_progress=True), Negatives(negative_ratio=4)),
    ],
)
def test_defaults_that_are_written_out_ask_for_the_same(
    first: RunRequest, same: RunRequest, other: RunRequest
) -> None:
    kind: RunKind[Any] = FEATURES if isinstance(first, Features) else NEGATIVES
    for a, b in ((first, same), (same, first), (first, first)):
        assert asks_for(_run(kind, a), kind, b)
    assert not asks_for(_run(kind, first), kind, other)
    assert not asks_for(_run(kind, other), kind, first)
    assert not asks_for(replace(_run(kind, first), kind="another"), kind, first)
    newer = replace(_run(kind, first), asked={"a_field_of_tomorrow": 1})
    assert not asks_for(newer, kind, first)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("avg_rating", "user_features.avg_rating or item_features.avg_rating"),
        ("user_features.avg_ratin", "user_features.avg_rating"),
        ("user_feature.avg_rating", "user_features.avg_rating or item_features.avg_rating"),
        ("user_features.price", "item_features.price"),
        ("user_features.total_interactions_3d", "user_features.total_interactions_30d"),
        ("", "user_features.avg_rating"),
        ("x" * 5000, "user_features.avg_rating"),
    ],
)
def test_a_column_that_there_is_not_is_told_with_the_ones_near_to_it(name: str, near: str) -> None:
    request = Features(drift_limits=run_pb2.DriftLimits(columns={name: 0.1}))
    with pytest.raises(InvalidFieldError) as caught:
        drift_limits(request)
    assert caught.value.message == (
        f"Field drift_limits.columns names {name[:80]!r}; expected a column such as {near}."
    )


def test_columns_of_the_request_s_windows_may_have_limits() -> None:
    limits = run_pb2.DriftLimits(columns={"item_features.total_interactions_3d": 0.1})
    assert drift_limits(Features(windows=[3], drift_limits=limits)).columns == dict(limits.columns)


@pytest.mark.parametrize("table", ["", "interactions", "training_data", "feature_statistics", "a" * 70_000])
async def test_tables_without_statistics_are_told_which_have_some(table: str) -> None:
    request = statistics_pb2.GetFeatureStatisticsRequest(tenant_id="t", table=table)
    with pytest.raises(InvalidFieldError) as caught:
        await get_statistics(cast(Any, None), request)
    assert caught.value.attributes["field"] == "table"
    assert caught.value.message == (
        f"Field table is {table[:80]!r}; expected one of user_features, item_features."
    )
    assert list(TABLES) == ["user_features", "item_features"]


@pytest.mark.parametrize(
    ("value", "limit", "told"),
    [
        (0.0051241349, 0.00512413, "is 0.005124135, and 0.00512413 is the limit"),
        (0.5, 0.25, "is 0.5, and 0.25 is the limit"),
        (0.1 + 0.2, 0.3, "is 0.30000000000000004, and 0.3 is the limit"),
        (5e-324, 0.0, "is 4.941e-324, and 0 is the limit"),
    ],
)
def test_a_drift_that_is_told_looks_larger_than_its_limit(value: float, limit: float, told: str) -> None:
    snapshot = Snapshot("features/t/user_features", "", "user_features", 2, (), 0, {}, 2)
    drift = ColumnDrift("avg_rating", "jensen_shannon", value)
    assert told in warning(snapshot, replace(snapshot, version=1), drift, limit).message
