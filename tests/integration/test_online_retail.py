"""The real slice in tests/data/online_retail, with the counts its README states and the oracle's features."""

from datetime import UTC, timedelta
from typing import Any

import pyarrow.compute as pc
import pytest
from harness.oracle import assert_rows, expected_items, expected_users
from harness.retail import DATA, current_catalog, valid_interactions

from headrace import Client
from headrace.v1 import upload_pb2


@pytest.fixture(scope="module")
def uploaded(server: object) -> tuple[Client, str]:
    client = Client(server.address)  # type: ignore[attr-defined]
    client.upload("retail", "items", DATA / "items.csv")
    return client, "retail"


def test_the_slice_gives_the_counts_of_its_readme(uploaded: tuple[Client, str]) -> None:
    client, tenant = uploaded
    result = client.upload(tenant, "interactions", DATA / "interactions.csv")
    assert result.outcome == upload_pb2.OUTCOME_COMMITTED
    assert (result.rows_received, result.rows_accepted) == (9_999, 6_950)
    failing = {(check.column, check.code): check.failing_rows for check in result.report.checks}
    assert failing[("user_id", "MISSING")] == 2_291
    assert failing[("interaction_type", "NOT_IN_SET")] >= 100
    assert failing[("", "DUPLICATE")] == result.rows_duplicate == 658
    assert result.rows_rejected == 9_999 - 6_950
    returns = [reject for reject in client.list_rejects(tenant, result.upload_id) if reject.value == "return"]
    missing = {
        reject.row_number
        for reject in client.list_rejects(tenant, result.upload_id)
        if (reject.column, reject.code) == ("user_id", "MISSING")
    }
    # The README counts a record once: 100 returns are not among those without a user.
    assert len([reject for reject in returns if reject.row_number not in missing]) == 100

    stored = client.read_table(tenant, "interactions")
    assert stored.num_rows == 6_950
    assert len(pc.unique(stored["user_id"])) == 303
    assert len(pc.unique(stored["item_id"])) == 1_689
    assert str(pc.min(stored["timestamp"]).as_py().date()) == "2010-12-01"
    assert str(pc.max(stored["timestamp"]).as_py().date()) == "2010-12-05"


def test_the_catalog_of_the_slice(uploaded: tuple[Client, str]) -> None:
    client, _ = uploaded
    result = client.upload("retail-items", "items", DATA / "items.csv")
    assert (result.rows_received, result.rows_accepted) == (2_015, 2_001)
    assert [(c.column, c.code, c.failing_rows) for c in result.report.checks] == [("title", "MISSING", 14)]
    items = client.read_table("retail-items", "items")
    # The README counts the file's rows with price 0; some of them lack a title.
    assert pc.sum(pc.equal(items["price"], 0.0)).as_py() <= 15


def test_features_and_training_data_of_the_slice(uploaded: tuple[Client, str]) -> None:
    client, tenant = uploaded
    if "interactions" not in [table.name for table in client.list_tables(tenant)]:
        client.upload(tenant, "interactions", DATA / "interactions.csv")
    features = client.compute_features(tenant)
    assert features.interactions == 6_950
    rows = valid_interactions()
    as_of = max(row[3] for row in rows) + timedelta(microseconds=1)
    users = client.read_table(tenant, "user_features")
    assert users.num_rows == 303
    assert_rows(users, expected_users(rows, as_of))
    assert_rows(client.read_table(tenant, "item_features"), expected_items(rows, as_of, current_catalog()))

    sampled = client.sample_negatives(tenant, seed=3)
    assert (sampled.core_pairs, sampled.core_users, sampled.core_items) == (4_349, 239, 466)
    assert (sampled.positives, sampled.negatives, sampled.negatives_short) == (4_264, 17_056, 0)
    training = client.read_table(tenant, "training_data")
    assert training.num_rows == 4_264 + 17_056
    seen = set(
        zip(
            *(client.read_table(tenant, "interactions")[c].to_pylist() for c in ("user_id", "item_id")),
            strict=True,
        )
    )
    negatives = training.filter(pc.equal(training["label"], 0.0))
    drawn = set(zip(negatives["user_id"].to_pylist(), negatives["item_id"].to_pylist(), strict=True))
    assert not drawn & seen
    _check_splits(client, tenant)
    _check_columns(client, tenant)
    _check_limits(client, tenant)


def _check_columns(client: Client, tenant: str) -> None:
    core: Any = {"min_interactions_per_user": 2, "min_interactions_per_item": 2}
    columns = ("user_total_interactions", "item_category", "item_price")
    client.sample_negatives(tenant, dataset="wide", **core)
    plain = client.read_table(tenant, "wide")
    wider: Any = {"with_features": "snapshot", "feature_columns": columns, "history": 20}
    client.sample_negatives(tenant, dataset="wide", history_timestamps=True, **wider, **core)
    wide = client.read_table(tenant, "wide")
    assert wide.select(plain.column_names).equals(plain)
    assert wide.column_names[len(plain.column_names) :] == [*columns, "history", "history_timestamps"]
    features = client.read_table(tenant, "user_features", columns=["user_id", "total_interactions"])
    totals = dict(zip(*(features[name].to_pylist() for name in features.column_names), strict=True))
    for row in wide.slice(0, 2_000).to_pylist():
        assert row["user_total_interactions"] == totals[row["user_id"]]
        assert all(time < row["timestamp"] for time in row["history_timestamps"])
        assert len(row["history"]) == len(row["history_timestamps"]) <= 20
    by_day: Any = {
        "with_features": "point_in_time",
        "split": "leave_last_out",
        "feature_columns": ["user_recent_items"],
    }
    client.sample_negatives(tenant, dataset="wide", **by_day, **core)
    assert "user_recent_items" in client.read_table(tenant, "wide", limit=1).column_names
    assert client.read_table(tenant, "wide", version=1).equals(plain)


def _check_limits(client: Client, tenant: str) -> None:
    limited = client.sample_negatives(tenant, dataset="limited", available_only=True, negative_ratio=99)
    assert not limited.warnings
    first_of: dict[str, Any] = {}
    events = client.read_table(tenant, "interactions", columns=["item_id", "timestamp"])
    for item, time in zip(*(column.to_pylist() for column in events.columns), strict=True):
        first_of[item] = min(time, first_of.get(item, time))
    rows = client.read_table(tenant, "limited", columns=["item_id", "timestamp", "label"])
    assert all(first_of[row["item_id"]] <= row["timestamp"] for row in rows.to_pylist())
    assert rows.num_rows == limited.positives + limited.negatives
    # The catalog has no categories.
    alike = client.sample_negatives(tenant, dataset="limited", same_category_share=0.5)
    assert [warning.code for warning in alike.warnings] == ["UNKNOWN_CATEGORY"]
    assert alike.negatives == 4 * alike.positives


def _check_splits(client: Client, tenant: str) -> None:
    core: Any = {"min_interactions_per_user": 2, "min_interactions_per_item": 2}
    by_time: Any = {"fractions": [0.4, 0.6]}
    split = client.sample_negatives(tenant, dataset="by_time", split=by_time, eval_negative_ratio=9, **core)
    assert [part.name for part in split.splits] == ["train", "valid", "test"]
    _, valid, test = split.splits
    assert valid.negatives + valid.negatives_short == 9 * valid.positives > 0
    assert not split.warnings
    divided = client.read_table(tenant, "by_time")
    in_order = pc.run_end_encode(divided["split"].combine_chunks())
    assert in_order.values.to_pylist() == ["train", "valid", "test"]
    # Train is what a run as of the first cut makes.
    client.sample_negatives(tenant, dataset="alone", as_of=valid.start.ToDatetime(UTC), **core)
    alone = client.read_table(tenant, "alone").drop_columns("split")
    assert divided.slice(0, alone.num_rows).drop_columns("split").equals(alone)
    starts = {"train": None, "valid": valid.start.ToDatetime(UTC), "test": test.start.ToDatetime(UTC)}
    for name, start in starts.items():
        rows = divided.filter(pc.equal(divided["split"], name))
        assert start is None or pc.min(rows["timestamp"]).as_py() >= start

    by_user = client.sample_negatives(tenant, dataset="by_user", split="leave_last_out", **core)
    assert [warning.code for warning in by_user.warnings] == ["SPLIT_LEAKS"]
    assert by_user.splits[2].positives <= by_user.core_users
