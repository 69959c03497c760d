"""Statistics of features as calls, command line, table and metrics tell them, and drift between versions."""

import json
import urllib.request
from typing import Any

import pytest
from deltalake import DeltaTable
from google.protobuf import json_format
from harness.server import Server
from typer.testing import CliRunner

from headrace import Client
from headrace.cli.app import app
from headrace.errors import HeadraceError, InvalidArgumentError, VersionNotFoundError
from headrace.v1 import table_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub
from headrace_compute.statistics.sketch import sketch_table
from headrace_compute.statistics.summary import statistics_of

PURCHASES = "user_features.num_purchases"


def event(user: int, item: int, kind: str, day: int, rating: float | None = None) -> dict[str, Any]:
    return {
        "user_id": f"u{user}",
        "item_id": f"i{item}",
        "interaction_type": kind,
        "timestamp": f"2026-01-{day:02}T{user % 24:02}:30:00",
        "rating": rating,
    }


EVENTS = [
    event(n % 30, n % 7, ("view", "click", "purchase")[n % 3], 1 + n % 28, n % 5 + 1.0) for n in range(200)
]
ITEMS = [
    {"item_id": f"i{n}", "title": f"Thing {n}", "category": "ab"[n % 2], "price": n + 0.1} for n in range(9)
]
LATER = [event(n % 30, n % 7, "purchase", 20 + n % 9) for n in range(300)]


@pytest.fixture(scope="module")
def told(server: Server) -> tuple[str, list[Any]]:
    """A tenant and the results of its three runs: the second sees other data, the third the same as that."""
    tenant = "statistics"
    with Client(server.address, timeout=60) as client:
        client.ingest_items(tenant, ITEMS)
        client.ingest_interactions(tenant, EVENTS)
        results = [client.compute_features(tenant, drift_limits={"l_infinity": 0.0, "jensen_shannon": 0.0})]
        client.ingest_interactions(tenant, LATER)
        limits: Any = {"l_infinity": 0.01, "columns": {PURCHASES: 0.25}}
        results.append(client.compute_features(tenant, drift_limits=limits))
        named: Any = {**limits, "baseline_versions": {"user_features": 1}}
        results.append(client.compute_features(tenant, drift_limits=named))
    return tenant, results


def test_the_call_tells_what_the_version_s_rows_are_like(client: Client, told: Any) -> None:
    tenant, results = told
    for table, key in (("user_features", "user_id"), ("item_features", "item_id")):
        found = client.feature_statistics(tenant, table, version=1)
        rows = client.read_table(tenant, table, version=1)
        as_of_us = found.as_of.ToMicroseconds()
        assert (found.version.version, found.version.rows) == (1, rows.num_rows)
        assert as_of_us == results[0].as_of.ToMicroseconds()
        expected = statistics_of(sketch_table(rows, key, as_of_us), as_of_us)
        assert [column.column for column in found.columns] == rows.column_names
        for column, exact in zip(found.columns, expected.columns, strict=True):
            assert (column.count, column.nulls, column.mean) == (exact.count, exact.nulls, exact.mean or 0.0)
            assert tuple(each.value for each in column.quantiles) == exact.quantiles
            assert [(each.value, each.count) for each in column.top_values] == list(exact.top_values)
            assert [(each.lower, each.upper, each.count) for each in column.histogram] == exact.histogram
            assert column.HasField("distinct") is (exact.distinct is not None)
        assert not found.HasField("baseline")
        assert not found.drift


def test_drift_is_from_the_version_before_or_the_one_that_is_named(client: Client, told: Any) -> None:
    tenant, _ = told
    before = client.feature_statistics(tenant, "user_features", version=2)
    drift = {each.column: each for each in before.drift}
    assert before.baseline.version == 1
    assert (drift["hourly_activity"].distance, drift["num_purchases"].distance) == (
        "l_infinity",
        "jensen_shannon",
    )
    assert drift["num_purchases"].value > 0.5
    assert drift["user_id"].value == 0.0
    newest = client.feature_statistics(tenant, "user_features")
    assert (newest.version.version, newest.baseline.version) == (3, 2)
    assert {each.value for each in newest.drift} == {0.0}
    named = client.feature_statistics(tenant, "user_features", baseline_version=1)
    assert (named.baseline.version, named.drift) == (1, before.drift)


def test_runs_warn_of_drift_beyond_their_limits(client: Client, server: Server, told: Any) -> None:
    tenant, (first, second, third) = told
    assert not first.warnings
    drift = [
        (f"{table}.{each.column}", each.distance, each.value)
        for table in ("user_features", "item_features")
        for each in client.feature_statistics(tenant, table, version=2).drift
    ]
    expected = [
        name
        for name, distance, value in drift
        if (distance == "l_infinity" and value > 0.01) or (name == PURCHASES and value > 0.25)
    ]
    assert {"user_features.weekday_activity", PURCHASES} <= set(expected)
    assert {warning.code for warning in second.warnings} == {"DRIFT"}
    assert [warning.column for warning in second.warnings] == expected
    assert "from version 1" in second.warnings[0].message
    assert [warning.column for warning in third.warnings] == [each for each in expected if "user" in each]
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics").read().decode()
    assert 'headrace_drift_warnings_total{table="user_features"}' in metrics
    assert 'headrace_feature_drift_count{distance="l_infinity",table="item_features"}' in metrics


def test_a_table_has_a_row_for_each_version_and_column(
    client: Client, stub: PipelineServiceStub, server: Server, told: Any
) -> None:
    tenant, _ = told
    question = table_pb2.ReadTableRequest(tenant_id=tenant, table="feature_statistics", limit=1)
    (first,) = (row for response in stub.ReadTable(question) for row in response.json.rows)
    assert json_format.MessageToDict(first)["histogram"][0]["count"] > 0
    rows = client.read_table(tenant, "feature_statistics").to_pylist()
    columns = {
        name: client.read_table(tenant, name).column_names for name in ("user_features", "item_features")
    }
    expected = [
        (name, version, column) for version in (1, 2, 3) for name, of in columns.items() for column in of
    ]
    assert sorted((row["table"], row["version"], row["column"]) for row in rows) == sorted(expected)
    told_by_call = {
        column.column: column for column in client.feature_statistics(tenant, "item_features").columns
    }
    price = next(row for row in rows if (row["version"], row["column"]) == (3, "price"))
    assert (price["mean"], price["p50"]) == (
        told_by_call["price"].mean,
        told_by_call["price"].quantiles[3].value,
    )
    table = DeltaTable(str(server.data_dir / "features" / tenant / "feature_statistics"))
    assert all("comment" in field.metadata for field in table.schema().fields)
    log = DeltaTable(str(server.data_dir / "features" / tenant / "user_features")).history(1)[0]
    assert "headrace.statistics" in log


def test_what_there_is_not_is_told_by_name(client: Client, told: Any) -> None:
    tenant, _ = told
    for wrong, message in (
        ({"version": 9}, "no version 9; the newest is 3"),
        ({"baseline_version": 9}, "no version 9 that could be the baseline; the newest is 3"),
    ):
        with pytest.raises(VersionNotFoundError, match=message):
            client.feature_statistics(tenant, "user_features", **wrong)
    with pytest.raises(InvalidArgumentError, match="expected one of user_features, item_features"):
        client.feature_statistics(tenant, "interactions")
    with pytest.raises(VersionNotFoundError, match="version 9 that could be the baseline"):
        client.compute_features(tenant, drift_limits={"baseline_versions": {"item_features": 9}})
    wrong_limits: list[Any] = [
        {"l_infinity": 1.5},
        {"jensen_shannon": float("nan")},
        {"columns": {"user_features.nonsense": 0.1}},
        {"baseline_versions": {"interactions": 1}},
    ]
    for limits in wrong_limits:
        with pytest.raises(InvalidArgumentError, match="drift_limits"):
            client.compute_features(tenant, drift_limits=limits)
    assert client.feature_statistics(tenant, "user_features").version.version == 3


def test_the_command_line_shows_them(server: Server, told: Any) -> None:
    tenant, _ = told

    def cli(*args: str) -> str:
        done = CliRunner().invoke(app, [*args, "--tenant", tenant, "--address", server.address])
        assert done.exit_code == 0, done.output
        return done.stdout

    shown = cli("stats", "item_features", "--version", "2")
    assert "item_features version 2" in shown
    assert "drift from version 1" in shown
    assert "a (5), b (4)" in shown
    found = json.loads(cli("stats", "user_features", "--version", "3", "--baseline", "1", "--json"))
    assert found["baseline"]["version"] == 1
    assert {column["column"] for column in found["columns"]} >= {"user_id", "hourly_activity", "bucket"}
    limits = ("--max-l-infinity", "0.5", "--max-drift", "user_features.weekday_activity=0", "--stats")
    both = json.loads(cli("features", *limits, "--baseline", "user_features=1", "--json"))
    assert [statistics["version"]["table"] for statistics in both["statistics"]] == [
        "user_features",
        "item_features",
    ]
    assert both["statistics"][0]["baseline"]["version"] == 1
    assert [warning["column"] for warning in both["warnings"]] == ["user_features.weekday_activity"]
    assert "drift from version 4" in cli("features", "--stats")
    with Client(server.address) as client, pytest.raises(HeadraceError, match="nothing"):
        client.feature_statistics(tenant, "nothing")
