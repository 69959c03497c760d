"""How many shards a sampling run has."""

from typing import Any

import pytest

from headrace_compute.model import BUCKETS
from headrace_compute.training.parameters import SNAPSHOT, SamplingParams
from headrace_compute.training.plan import sampling_plan


@pytest.mark.parametrize(
    ("rows", "more", "shards"),
    [
        (10_000_000, {}, 10),
        (10_000_000, {"negative_ratio": 7}, 16),
        (10_000_000, {"negative_ratio": 1, "eval_negative_ratio": 99}, 200),
        (100_000, {"negative_ratio": 999}, 20),
        (10_000_000, {"history": 150}, 40),
        (10_000_000, {"with_features": SNAPSHOT, "feature_columns": ("user_avg_rating", "item_price")}, 12),
        (10_000_000, {"negative_ratio": 1000, "history": 1000}, BUCKETS),
        (1, {}, 2),
    ],
)
def test_the_more_is_made_of_an_event_the_more_shards_there_are(rows: int, more: Any, shards: int) -> None:
    plan = sampling_plan(rows, SamplingParams(**more))
    assert len(plan) == shards
    assert (plan[0].first, plan[-1].last) == (0, BUCKETS)
