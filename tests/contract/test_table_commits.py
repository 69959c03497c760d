"""Commits to Delta tables: exactly once and durable, whatever happens in between."""

import multiprocessing
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from headrace_compute.delta import maintenance, swap
from headrace_compute.delta.commits import VersionMovedError
from headrace_compute.delta.tables import (
    SCHEMAS,
    commit,
    log_entries,
    open_table,
)
from headrace_compute.errors import (
    CommitContendedError,
    StoreFullError,
    StoreUnavailableError,
    TableNotFoundError,
    WrongTableKindError,
)
from headrace_compute.model import Part, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part
from headrace_server.listing import NewestVersions

pytest_plugins = ["brokers.fixtures"]

KEY = "raw-data/acme/interactions"
SCHEMA = SCHEMAS["interactions"]


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


def delta(config: StoreConfig, version: int | None = None) -> DeltaTable:
    """The table as any program opens it."""
    store = open_store(config)
    return DeltaTable(store.uri(KEY), version=version, storage_options=store.storage_options())


def users_of(config: StoreConfig, version: int | None = None) -> list[str]:
    return sorted(delta(config, version).to_pyarrow_table()["user_id"].to_pylist())


def test_the_first_commit_makes_the_table(config: StoreConfig) -> None:
    before = datetime.now(UTC)
    assert append(config, "t1", ["ann", "bob"]) == 1
    snapshot = open_table(config, KEY)
    assert (snapshot.table_key, snapshot.kind, snapshot.version, snapshot.rows) == (KEY, "interactions", 1, 2)
    assert snapshot.uri == open_store(config).uri(KEY)
    assert snapshot.metadata == {"headrace.upload_id": "t1"}
    assert [file.key for file in snapshot.files] == [f"{KEY}/t1.parquet"]
    assert abs(snapshot.committed_us / 1e6 - before.timestamp()) < 60
    assert read_part(open_store(config), snapshot.files[0].key).num_rows == 2


def test_a_transaction_is_committed_once_and_keeps_its_version(config: StoreConfig) -> None:
    assert [append(config, name, [name]) for name in ("a", "b", "c")] == [1, 2, 3]
    assert append(config, "b", ["b"]) == 2
    assert open_table(config, KEY).version == 3
    assert users_of(config) == ["a", "b", "c"]


def test_a_commit_that_must_follow_a_version_follows_no_other_one(config: StoreConfig) -> None:
    def after(base: int, transaction: str) -> int:
        return commit(
            config,
            KEY,
            kind="interactions",
            schema=SCHEMA,
            parts=[stored(config, transaction, events([transaction]))],
            transaction=transaction,
            metadata={},
            base=base,
        )

    assert after(0, "first") == 1
    for base in (0, 2):
        with pytest.raises(VersionMovedError):
            after(base, "second")
    assert after(1, "second") == 2
    # It has followed it: asked again, it is found.
    assert after(1, "second") == 2
    assert users_of(config) == ["first", "second"]


def test_a_transaction_is_found_behind_a_checkpoint(config: StoreConfig) -> None:
    for number in range(1, 42):
        assert append(config, f"t{number}", [f"u{number}"]) == number
        if number % 20 == 0:
            maintenance.checkpoint(config, KEY, number)
    log = f"{KEY}/_delta_log"
    assert [key for key in open_store(config).list(log) if key.endswith(".checkpoint.parquet")] == [
        f"{log}/{20:020d}.checkpoint.parquet",
        f"{log}/{40:020d}.checkpoint.parquet",
    ]
    assert append(config, "t7", ["u7"]) == 7
    snapshot = open_table(config, KEY)
    assert (snapshot.version, snapshot.rows, len(snapshot.files)) == (41, 41, 41)
    assert list(snapshot.files) == sorted(snapshot.files, key=lambda file: file.key)
    assert open_table(config, KEY, 19).rows == 19


def test_a_failing_checkpoint_is_logged_and_leaves_the_table_as_it_is(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: DeltaTable) -> None:
        raise DeltaError("no")

    assert append(config, "t", ["u"]) == 1
    monkeypatch.setattr(DeltaTable, "create_checkpoint", fail)
    maintenance.checkpoint(config, KEY, 1)
    assert "at version 1: no" in caplog.text
    assert users_of(config) == ["u"]


def test_a_commit_that_landed_though_it_raised_is_not_repeated(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(config, "first", ["a"])
    real = DeltaTable.create_write_transaction

    def land_and_raise(self: DeltaTable, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        raise OSError("connection reset")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", land_and_raise)
    assert append(config, "second", ["b"]) == 2
    assert users_of(config) == ["a", "b"]


def test_a_lost_race_is_tried_again_on_top_of_the_winner(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(config, "first", ["a"])
    real = DeltaTable.create_write_transaction
    rivals = iter(["rival1", "rival2"])

    def lose(self: DeltaTable, *args: Any, **options: Any) -> None:
        with monkeypatch.context() as inner:
            inner.setattr(DeltaTable, "create_write_transaction", real)
            if rival := next(rivals, None):
                append(config, rival, [rival])
        real(self, *args, **options)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lose)
    assert append(config, "ours", ["ours"]) == 4
    assert users_of(config) == ["a", "ours", "rival1", "rival2"]


def test_a_race_for_the_same_transaction_has_one_version(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(config, "first", ["a"])
    real = DeltaTable.create_write_transaction

    def another_replica_first(self: DeltaTable, *args: Any, **options: Any) -> None:
        real(delta(config), *args, **options)
        real(self, *args, **options)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", another_replica_first)
    assert append(config, "ours", ["b"]) == 2
    assert users_of(config) == ["a", "b"]


def test_a_race_to_create_the_table_has_one_winner_and_loses_no_rows(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DeltaTable.create

    def another_first(*args: Any, **options: Any) -> DeltaTable:
        with monkeypatch.context() as inner:
            inner.setattr(DeltaTable, "create", real)
            append(config, "rival", ["rival"])
        return real(*args, **options)

    monkeypatch.setattr(DeltaTable, "create", another_first)
    assert append(config, "ours", ["ours"]) == 2
    assert users_of(config) == ["ours", "rival"]


def test_a_crash_after_creating_the_table_leaves_none_to_see_and_heals(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: DeltaTable, *args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as inner:
        inner.setattr(DeltaTable, "create_write_transaction", die)
        with pytest.raises(KeyboardInterrupt):
            append(config, "t", ["a"])
    with pytest.raises(TableNotFoundError):
        open_table(config, KEY)
    assert list(NewestVersions(config).page("acme", "", 9).tables) == []
    assert list(log_entries(config, KEY, 0)) == []
    assert append(config, "t", ["a"]) == 1


def append_many(config: StoreConfig, worker: int, count: int) -> None:
    for number in range(count):
        append(config, f"w{worker}-{number}", [f"w{worker}-{number}"])
        append(config, f"shared-{number}", [f"shared-{number}"])


def test_processes_commit_to_a_new_table_at_once_and_every_transaction_lands_once(
    config: StoreConfig,
) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=append_many, args=(config, worker, 10)) for worker in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    expected = [f"{name}-{number}" for name in ("shared", "w0", "w1") for number in range(10)]
    assert users_of(config) == sorted(expected)
    assert open_table(config, KEY).version == 30


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (CommitFailedError("Failed to commit transaction: 0"), CommitContendedError),
        (OSError("No space left on device (os error 28)"), StoreFullError),
        (DeltaError("Permission denied (os error 13) /srv/secret"), StoreUnavailableError),
    ],
)
def test_a_commit_that_never_succeeds_ends_with_a_typed_error(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[Exception]
) -> None:
    def fail(self: DeltaTable, *args: Any, **options: Any) -> None:
        raise failure

    monkeypatch.setattr(swap, "PAUSE_SECONDS", (0.001, 0.001))
    monkeypatch.setattr(DeltaTable, "create_write_transaction", fail)
    with pytest.raises(expected) as caught:
        append(config, "t", ["a"])
    assert "/srv/secret" not in str(caught.value)


def test_a_version_is_on_disk_before_it_is_acknowledged_and_its_base_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StoreConfig(str(tmp_path))
    happened: list[str] = []
    log = Path(config.root, KEY, "_delta_log")
    real_sync, real_write = os.fsync, DeltaTable.create_write_transaction

    def note_sync(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        real_sync(descriptor)
        known = [log, *log.glob("*.json"), *log.parent.glob("*.parquet")]
        happened.extend(path.name for path in known if path.exists() and path.stat().st_ino == inode)

    def note_write(self: DeltaTable, *args: Any, **options: Any) -> None:
        real_write(self, *args, **options)
        happened.append("write")

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(DeltaTable, "create_write_transaction", note_write)
    append(config, "t", ["a"])
    assert happened == [f"{0:020d}.json", "_delta_log", "write", f"{1:020d}.json", "_delta_log"]
    happened.clear()
    append(config, "t", ["a"])
    assert happened == [f"{1:020d}.json", "_delta_log"]


def test_a_table_of_another_kind_is_not_written(config: StoreConfig) -> None:
    append(config, "t", ["a"])
    with pytest.raises(WrongTableKindError) as caught:
        commit(
            config,
            KEY,
            kind="items",
            schema=SCHEMAS["items"],
            parts=[],
            mode="overwrite",
            transaction="x",
            metadata={},
        )
    assert caught.value.attributes == {"table": "interactions", "kind": "interactions", "expected": "items"}
    assert open_table(config, KEY).version == 1


def test_rows_with_other_columns_are_not_appended(config: StoreConfig) -> None:
    append(config, "t", ["a"])
    wider = SCHEMA.append(pa.field("more", pa.string()))
    with pytest.raises(WrongTableKindError, match="columns"):
        commit(config, KEY, kind="interactions", schema=wider, parts=[], transaction="x", metadata={})


def test_parts_outside_of_the_table_and_foreign_metadata_are_refused(config: StoreConfig) -> None:
    part = stored(config, "p", events(["a"]), key="raw-data/other/interactions")
    with pytest.raises(ValueError, match="outside"):
        commit(config, KEY, kind="interactions", schema=SCHEMA, parts=[part], transaction="x", metadata={})
    with pytest.raises(ValueError, match=r"headrace\."):
        commit(
            config, KEY, kind="interactions", schema=SCHEMA, parts=[], transaction="x", metadata={"a": "b"}
        )
    with pytest.raises(TableNotFoundError):
        open_table(config, KEY)


def test_an_overwrite_does_not_reuse_the_name_of_a_file_it_replaces(config: StoreConfig) -> None:
    append(config, "t", ["a"])
    again = stored(config, "t", events(["a"]))
    with pytest.raises(ValueError, match="already"):
        commit(
            config,
            KEY,
            kind="interactions",
            schema=SCHEMA,
            parts=[again],
            mode="overwrite",
            transaction="x",
            metadata={},
        )
