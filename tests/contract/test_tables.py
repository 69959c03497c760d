"""Versions of tables: what was committed is what anybody reads, lists and follows."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from headrace_compute.delta import tables
from headrace_compute.delta.tables import (
    SCHEMAS,
    commit,
    dataset_key,
    interactions_key,
    log_entries,
    open_table,
    rejects_key,
    table_key,
    tenants,
    user_features_key,
)
from headrace_compute.errors import (
    InvalidFieldError,
    TableNotFoundError,
    VersionNotFoundError,
)
from headrace_compute.model import Part, Snapshot, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part
from headrace_server.listing import NewestVersions

pytest_plugins = ["brokers.fixtures"]

KEY = "raw-data/acme/interactions"
SCHEMA = SCHEMAS["interactions"]


def delta(config: StoreConfig, key: str = KEY, version: int | None = None) -> DeltaTable:
    """A table as any program opens it."""
    store = open_store(config)
    return DeltaTable(store.uri(key), version=version, storage_options=store.storage_options())


def polars(config: StoreConfig, key: str = KEY) -> pl.LazyFrame:
    """A table as Polars reads it."""
    store = open_store(config)
    # Polars has the same names for the store, but wants other types where it is to be patient.
    options = {name: value for name, value in store.storage_options().items() if name.startswith("AWS_")}
    return pl.scan_delta(store.uri(key), storage_options=options)


def events(users: list[str], start_us: int = 0) -> pa.Table:
    """Interactions of some users, one second apart."""
    rows = [
        {
            "user_id": user,
            "item_id": "i1",
            "interaction_type": "view",
            "timestamp": start_us + number * 1_000_000,
            "rating": None,
            "upload_id": "u",
            "row_number": number,
            "ingested_at": 0,
            "bucket": number % 1024,
        }
        for number, user in enumerate(users)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def stored(config: StoreConfig, name: str, table: pa.Table, key: str = KEY) -> Part:
    return write_part(
        open_store(config), f"{key}/{name}.parquet", table, stats=("timestamp", "bucket", "rating")
    )


def append(config: StoreConfig, transaction: str, users: list[str]) -> int:
    """Commits some users' interactions under a transaction, as an upload does."""
    parts = [stored(config, transaction, events(users))]
    return commit(
        config,
        KEY,
        kind="interactions",
        schema=SCHEMA,
        parts=parts,
        transaction=transaction,
        metadata={"headrace.upload_id": transaction},
    )


def users_of(config: StoreConfig, version: int | None = None) -> list[str]:
    return sorted(delta(config, version=version).to_pyarrow_table()["user_id"].to_pylist())


def overwrite(config: StoreConfig, key: str, run: str, table: pa.Table) -> int:
    parts = [write_part(open_store(config), f"{key}/{run}.parquet", table)] if table.num_rows else []
    return commit(
        config,
        key,
        kind="user_features",
        schema=table.schema,
        parts=parts,
        mode="overwrite",
        transaction=run,
        metadata={"headrace.as_of": run},
    )


def test_overwriting_replaces_rows_and_columns_and_old_versions_stay_readable(config: StoreConfig) -> None:
    key = user_features_key(config, "acme")
    first = pa.table(
        {"user_id": ["a", "b"], "recent_items": [["x", "y"], None], "bucket": pa.array([1, 2], pa.int16())}
    )
    second = pa.table({"user_id": ["c"], "bucket": pa.array([3], pa.int16()), "score": [0.5]})
    assert overwrite(config, key, "r1", first) == 1
    assert overwrite(config, key, "r2", second) == 2
    assert overwrite(config, key, "r3", second.slice(0, 0)) == 3
    for version, table in ((1, first), (2, second), (3, second.slice(0, 0))):
        assert delta(config, key, version).to_pyarrow_table().to_pylist() == table.to_pylist()
        snapshot = open_table(config, key, version)
        assert (snapshot.version, snapshot.rows) == (version, table.num_rows)
        assert snapshot.metadata == {"headrace.as_of": f"r{version}"}
        assert snapshot.kind == "user_features"
    assert [entry.data_change for entry in log_entries(config, key, 0)] == [True, True, True]


def test_polars_reads_what_was_committed_with_its_types(config: StoreConfig) -> None:
    append(config, "t", ["ann", "bob"])
    frame = polars(config).collect()
    assert frame.sort("row_number").to_dicts() == events(["ann", "bob"]).to_pylist()
    assert frame.schema["bucket"] == pl.Int16
    assert frame.schema["timestamp"] == pl.Datetime("us", "UTC")


def test_statistics_in_the_log_are_exact_to_the_microsecond(config: StoreConfig) -> None:
    start = int(datetime(2023, 11, 14, 22, 13, 20, 123456, UTC).timestamp() * 1_000_000)
    part = stored(config, "p", events(["a", "b", "c"], start))
    commit(config, KEY, kind="interactions", schema=SCHEMA, parts=[part], transaction="t", metadata={})
    log = open_store(config).get(f"{KEY}/_delta_log/{1:020d}.json").decode()
    stats = next(
        json.loads(line["add"]["stats"]) for line in map(json.loads, log.splitlines()) if "add" in line
    )
    assert stats == {
        "numRecords": 3,
        "minValues": {"timestamp": "2023-11-14T22:13:20.123456Z", "bucket": 0},
        "maxValues": {"timestamp": "2023-11-14T22:13:22.123456Z", "bucket": 2},
        "nullCount": {"timestamp": 0, "bucket": 0, "rating": 3},
    }
    scan = polars(config)
    last = datetime(2023, 11, 14, 22, 13, 22, 123456, UTC)
    assert scan.filter(pl.col("timestamp") >= last).collect().height == 1
    assert scan.filter(pl.col("timestamp") > last).collect().height == 0


def test_rejects_carry_whether_they_were_published(config: StoreConfig) -> None:
    key = rejects_key(config, "acme")
    stored_columns = SCHEMAS["rejects"].remove(SCHEMAS["rejects"].get_field_index("published"))
    for upload, published in (("u1", "true"), ("u2", "false")):
        rows = pa.Table.from_pylist(
            [{"upload_id": upload, "row_number": 7, "code": "MISSING"}], stored_columns
        )
        for _ in range(2):
            version = commit(
                config,
                key,
                kind="rejects",
                schema=SCHEMAS["rejects"],
                parts=[write_part(open_store(config), f"{key}/{upload}/0.parquet", rows)],
                transaction=upload,
                metadata={},
                partition={"published": published},
            )
    assert version == 2
    expected = {("u1", True), ("u2", False)}
    by_polars = polars(config, key).select("upload_id", "published").collect().rows()
    by_arrow = delta(config, key).to_pyarrow_table().to_pylist()
    assert set(by_polars) == {(row["upload_id"], row["published"]) for row in by_arrow} == expected
    files = open_table(config, key).files
    ours = {
        (read_part(open_store(config), file.key)["upload_id"][0].as_py(), file.partition["published"])
        for file in files
    }
    assert ours == expected


@pytest.mark.parametrize("name", ["a b", "50%", "ü=ö", "a#b?c", "a+b"])
def test_part_names_may_have_any_characters(config: StoreConfig, name: str) -> None:
    part = stored(config, name, events(["a"]))
    commit(config, KEY, kind="interactions", schema=SCHEMA, parts=[part], transaction="t", metadata={})
    assert [file.key for file in open_table(config, KEY).files] == [part.key]
    assert users_of(config) == ["a"]


def test_what_does_not_exist_is_named(config: StoreConfig) -> None:
    with pytest.raises(TableNotFoundError) as missing:
        open_table(config, KEY)
    assert missing.value.attributes == {"table": "interactions"}
    append(config, "t", ["a"])
    for version in (0, 2, -1):
        with pytest.raises(VersionNotFoundError) as caught:
            open_table(config, KEY, version)
        assert caught.value.attributes == {"table": "interactions", "version": str(version), "newest": "1"}


def test_the_log_is_followed_version_by_version(config: StoreConfig) -> None:
    append(config, "t1", ["a", "b"])
    append(config, "t2", ["c"])
    delta(config).optimize.compact()
    entries = list(log_entries(config, KEY, 0))
    assert [entry.version for entry in entries] == [1, 2, 3]
    assert [entry.rows_added for entry in entries] == [2, 1, 3]
    assert [entry.data_change for entry in entries] == [True, True, False]
    assert {entry.kind for entry in entries} == {"interactions"}
    assert entries[0].metadata == {"headrace.upload_id": "t1"}
    assert entries[0].committed_us <= entries[1].committed_us
    assert [entry.version for entry in log_entries(config, KEY, 2)] == [3]
    assert list(log_entries(config, KEY, 3)) == []


def test_the_log_is_never_cleaned_up_behind_the_relay(config: StoreConfig) -> None:
    append(config, "t", ["a"])
    properties = delta(config).metadata().configuration
    assert properties["delta.enableExpiredLogCleanup"] == "false"
    assert properties["headrace.kind"] == "interactions"


def test_tables_and_tenants_are_listed_by_name(config: StoreConfig) -> None:
    assert tenants(config) == []
    append(config, "t", ["a"])
    overwrite(config, user_features_key(config, "acme"), "r", pa.table({"user_id": ["a"]}))
    dataset = dataset_key(config, "zeta", "training_data")
    part = write_part(open_store(config), f"{dataset}/p", pa.table({"user_id": ["a"]}))
    commit(
        config,
        dataset,
        kind="training_data",
        schema=pa.schema({"user_id": pa.string()}),
        parts=[part],
        transaction="x",
        metadata={},
    )
    lists = NewestVersions(config)
    assert [table.name for table in lists.page("acme", "", 9).tables] == ["interactions", "user_features"]
    (table,) = lists.page("zeta", "", 9).tables
    assert (table.name, table.kind, table.version, table.rows) == ("training_data", "training_data", 1, 1)
    assert tenants(config) == ["acme", "zeta"]


def test_a_list_tells_the_newest_versions_and_opens_what_is_new_alone(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, opened = NewestVersions(config), list[str]()

    def listed() -> list[tuple[str, int, int]]:
        return [(table.name, table.version, table.rows) for table in lists.page("acme", "", 9).tables]

    def noting(config: StoreConfig, key: str, version: int | None = None) -> Snapshot:
        opened.append(key)
        return open_table(config, key, version)

    monkeypatch.setattr(tables, "open_table", noting)
    rejects = rejects_key(config, "acme")
    append(config, "t", ["a"])
    overwrite(config, rejects, "r", pa.table({"user_id": ["a"]}))
    for _ in range(2):
        assert listed() == [("interactions", 1, 1), ("rejects", 1, 1)]
    append(config, "u", ["b", "c"])
    assert listed() == [("interactions", 2, 3), ("rejects", 1, 1)]
    assert opened.count(rejects) == 1
    # Somebody takes the table away, and another one of as many versions has its place.
    open_store(config).delete_all(KEY)
    assert listed() == [("rejects", 1, 1)]
    append(config, "v", ["a", "b"])
    append(config, "w", ["c", "d"])
    assert listed() == [("interactions", 2, 4), ("rejects", 1, 1)]
    for each in (1, 2):
        open_store(config).delete(f"{KEY}/_delta_log/{each:020}.json")
    assert listed() == [("rejects", 1, 1)]


def test_names_lead_to_the_keys_of_the_design(config: StoreConfig) -> None:
    keys: dict[str, Callable[[], str]] = {
        "raw-data/acme/interactions": lambda: interactions_key(config, "acme"),
        "processed-data/acme/rejects": lambda: table_key(config, "acme", "rejects"),
        "features/acme/item_features": lambda: table_key(config, "acme", "item_features"),
        "training-data/acme/datasets/my-set": lambda: table_key(config, "acme", "my-set"),
    }
    for key, named in keys.items():
        assert named() == key
    for name in ("items", "", "../x", "a/b", "-a", "a" * 64, "a\n"):
        with pytest.raises(InvalidFieldError) as caught:
            dataset_key(config, "acme", name)
        assert caught.value.attributes == {"field": "dataset"}
