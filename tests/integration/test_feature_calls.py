"""ComputeFeatures with parameters, at a time in the past, and what the tables say of their columns."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from deltalake import DeltaTable
from google.protobuf import timestamp_pb2
from harness.dialogue import failure_of
from harness.server import Server

from headrace import Client
from headrace.errors import HeadraceError
from headrace.v1 import run_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub


def event(user: str, item: str, kind: str, day: int) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "interaction_type": kind, "timestamp": f"2026-01-{day:02}"}


ROWS = [
    event("ann", "i1", "view", 1),
    event("ann", "i1", "view", 10),
    event("ann", "i1", "purchase", 10),
    event("bob", "i2", "view", 10),
]


@pytest.fixture
def client(server: Server) -> Any:
    with Client(server.address, timeout=60) as connected:
        yield connected


def columns(client: Client, tenant: str, table: str, **options: Any) -> dict[str, list[Any]]:
    return client.read_table(tenant, table, **options).to_pydict()  # type: ignore[no-any-return]


def test_windows_weights_half_life_and_smoothing_are_those_asked_for(client: Client, tenant: str) -> None:
    client.ingest_interactions(tenant, ROWS)
    client.compute_features(
        tenant,
        as_of=datetime(2026, 1, 11, tzinfo=UTC),
        windows=[2, 2, 1],
        weights={"view": 8},
        half_life_days=1,
        smoothing=0,
    )
    users = columns(client, tenant, "user_features")
    assert [name for name in users if name.endswith(("1d", "2d"))] == [
        "total_interactions_1d",
        "num_purchases_1d",
        "total_interactions_2d",
        "num_purchases_2d",
    ]
    ann = users["user_id"].index("ann")
    assert (users["total_interactions_1d"][ann], users["num_purchases_1d"][ann]) == (2, 1)
    items = columns(client, tenant, "item_features")
    second = items["item_id"].index("i2")
    assert items["engagement_score"][second] == 4.0
    assert items["purchase_rate_smoothed"][second] == 0.0
    history = client.list_tables(tenant)
    assert {table.name for table in history} >= {"user_features", "item_features"}


def test_each_run_s_columns_are_its_own_and_older_versions_keep_theirs(
    client: Client, server: Server, tenant: str
) -> None:
    client.ingest_interactions(tenant, ROWS)
    first = client.compute_features(tenant).outputs[0].version
    second = client.compute_features(tenant, windows=[3]).outputs[0].version
    assert "total_interactions_7d" in columns(client, tenant, "user_features", version=first)
    latest = columns(client, tenant, "user_features", version=second)
    assert "total_interactions_3d" in latest
    assert "total_interactions_7d" not in latest
    table = DeltaTable(str(server.data_dir / "features" / tenant / "user_features"))
    assert [field.name for field in table.schema().fields] == list(latest)
    assert table.to_pyarrow_table().num_rows == 2
    commit = table.history(1)[0]
    assert json.loads(commit["headrace.parameters"])["windows"] == [3]


def test_columns_comments_and_the_call_tell_what_features_mean(
    client: Client, server: Server, tenant: str
) -> None:
    client.ingest_interactions(tenant, ROWS)
    client.compute_features(tenant, windows=[5])
    described = client.describe_features([5]).features
    for name in ("user_features", "item_features"):
        table = DeltaTable(str(server.data_dir / "features" / tenant / name))
        comments = {field.name: field.metadata["comment"] for field in table.schema().fields}
        told = {each.name: each for each in described if each.table == name}
        assert list(comments)[1:-1] == list(told)
        assert all(comments[column].startswith(each.meaning) for column, each in told.items())


def test_known_at_reads_what_was_committed_by_then(client: Client, tenant: str) -> None:
    client.ingest_items(tenant, [{"item_id": "i1", "title": "First"}])
    client.ingest_interactions(tenant, ROWS[:1])
    time.sleep(0.01)
    then = datetime.now(UTC)
    time.sleep(0.01)
    client.ingest_items(tenant, [{"item_id": "i1", "title": "Second"}])
    client.ingest_interactions(tenant, ROWS[1:])
    now = client.compute_features(tenant)
    known = client.compute_features(tenant, known_at=then)
    assert (now.interactions, known.interactions) == (4, 1)
    assert [table.version for table in known.inputs] == [1, 1]
    assert columns(client, tenant, "item_features")["title"] == ["First"]
    core: Any = {"min_interactions_per_user": 0, "min_interactions_per_item": 0}
    again = client.sample_negatives(tenant, known_at=then, positive_interaction_types=["view"], **core)
    assert again.source_pairs == 1
    with pytest.raises(HeadraceError, match="committed at") as refused:
        client.compute_features(tenant, known_at=then, interactions_version=2)
    assert refused.value.reason == "INVALID_FIELD"
    named = client.compute_features(tenant, known_at=then, interactions_version=1)
    assert named.interactions == 1


def test_before_anything_was_known_there_are_no_interactions(client: Client, tenant: str) -> None:
    client.ingest_interactions(tenant, ROWS)
    with pytest.raises(HeadraceError, match="known_at") as refused:
        client.compute_features(tenant, known_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert refused.value.reason == "NO_INTERACTIONS"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("windows", {"windows": [0]}),
        ("windows", {"windows": range(1, 10)}),
        ("weights", {"weights": {"stare": 1.0}}),
        ("weights", {"weights": {"view": float("nan")}}),
        ("half_life_days", {"half_life_days": 0.0}),
        ("smoothing", {"smoothing": float("inf")}),
        ("known_at", {"known_at": timestamp_pb2.Timestamp(seconds=1 << 60)}),
    ],
)
def test_senseless_parameters_are_refused(
    stub: PipelineServiceStub, tenant: str, field: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.ComputeFeatures(run_pb2.ComputeFeaturesRequest(tenant_id=tenant, **wrong)))
    code, reason, metadata = failure_of(refused.value)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert metadata["field"] == field
