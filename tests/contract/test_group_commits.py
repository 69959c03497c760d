"""Commits of small groups: once each, by many writers, and tables that stay healthy under them."""

import threading
import uuid

import pyarrow as pa
import pytest
from contract.test_table_commits import KEY, SCHEMA, events
from deltalake import DeltaTable

from headrace_compute.delta import compaction, tables
from headrace_compute.delta import maintenance as upkeep
from headrace_compute.delta.appender import Addition, LogAppender, RequestsTakenError
from headrace_compute.delta.receipts import Group, Receipt
from headrace_compute.delta.tables import log_entries, open_table
from headrace_compute.errors import StoreFullError, StoreUnavailableError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part

pytest_plugins = ["brokers.fixtures"]

STATS = ("timestamp", "bucket", "rating")


def addition(config: StoreConfig, users: list[str], *requests: str) -> Addition:
    """One group: a part with some users' events, and the requests it decides."""
    group_id = str(uuid.uuid4())
    part = write_part(open_store(config), f"{KEY}/{group_id}.parquet", events(users), stats=STATS)
    receipts = tuple(Receipt(request, "digest", [users]) for request in requests)
    return Addition([(part, {})], Group(group_id, 1, receipts), frozenset(requests))


def appender_of(config: StoreConfig) -> LogAppender:
    return LogAppender(config, KEY, "interactions", SCHEMA)


def rows_of(config: StoreConfig, version: int | None = None) -> list[str]:
    """Users of all rows, read as the server reads them."""
    store = open_store(config)
    tables = [read_part(store, file.key) for file in open_table(config, KEY, version).files]
    users: list[str] = sorted(pa.concat_tables(tables)["user_id"].to_pylist())
    return users


def fill(config: StoreConfig, commits: int, first: int = 0) -> list[str]:
    """As many commits of one row."""
    appender = appender_of(config)
    users = [f"u{number:04d}" for number in range(first, first + commits)]
    for user in users:
        appender.append(addition(config, [user]))
    return users


def test_a_receipt_is_found_by_whoever_asks(config: StoreConfig) -> None:
    request = str(uuid.uuid4())
    assert appender_of(config).find(request, 0) is None
    assert appender_of(config).append(addition(config, ["ann"], request)) == 1
    found = appender_of(config).find(request, 0)
    assert found is not None
    assert (found.version, found.receipt) == (1, Receipt(request, "digest", [["ann"]]))


def test_a_commit_whose_answer_was_lost_is_found(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    appender, store = appender_of(config), open_store(config)
    appender.append(addition(config, ["ann"]))
    real = type(store).create

    def land_and_raise(self: object, key: str, data: bytes) -> None:
        real(self, key, data)  # type: ignore[arg-type]
        if key.endswith(".json"):
            raise StoreUnavailableError("no answer")

    once = addition(config, ["bob"])
    monkeypatch.setattr(type(store), "create", land_and_raise)
    assert appender.append(once) == 2
    assert rows_of(config) == ["ann", "bob"]


def test_a_request_that_another_writer_has_decided_is_not_committed_again(config: StoreConfig) -> None:
    request = str(uuid.uuid4())
    first, second = appender_of(config), appender_of(config)
    second.append(addition(config, ["zoe"]))
    first.append(addition(config, ["ann"], request))
    with pytest.raises(RequestsTakenError) as caught:
        second.append(addition(config, ["ann"], request))
    assert caught.value.ids == {request}
    assert rows_of(config) == ["ann", "zoe"]


def test_writers_that_race_lose_and_double_nothing(config: StoreConfig) -> None:
    requests = [str(uuid.uuid4()) for _ in range(30)]
    taken: list[str] = []

    def write() -> None:
        appender = appender_of(config)
        for number, request in enumerate(requests):
            try:
                appender.append(addition(config, [f"u{number:02d}"], request))
            except RequestsTakenError as error:
                taken.extend(error.ids)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert rows_of(config) == [f"u{number:02d}" for number in range(30)]
    assert sorted(taken) == sorted(requests)


def test_compaction_merges_small_files_and_changes_no_row(config: StoreConfig) -> None:
    users = fill(config, 40)
    version = upkeep.compact(config, KEY, str(uuid.uuid4()), "1")
    assert version == 41
    snapshot = open_table(config, KEY)
    assert (len(snapshot.files), snapshot.rows) == (1, 40)
    assert rows_of(config) == users
    assert rows_of(config, 40) == users
    (file,) = snapshot.files
    buckets = read_part(open_store(config), file.key)["bucket"].to_pylist()
    assert buckets == sorted(buckets)
    assert upkeep.compact(config, KEY, str(uuid.uuid4()), "1") is None


def test_compaction_of_rejects_keeps_published_ones_apart(config: StoreConfig) -> None:
    key, schema = "processed-data/acme/rejects", tables.SCHEMAS["rejects"]
    store, appender = open_store(config), LogAppender(config, key, "rejects", schema, ("published",))
    rows: dict[str, list[int]] = {"true": [], "false": []}
    for number in range(40):
        published = "false" if number % 4 == 0 else "true"
        part = write_part(
            store,
            f"{key}/published={published}/{uuid.uuid4()}.parquet",
            pa.Table.from_pylist(
                [{"upload_id": "u", "row_number": number}], schema=schema.remove(len(schema) - 1)
            ),
        )
        if number % 3:
            appender.append(Addition([(part, {"published": published})], Group(str(uuid.uuid4()), 1)))
        else:  # As an upload's finish does, by deltalake, which spells what it writes its own way.
            tables.commit(
                config,
                key,
                kind="rejects",
                schema=schema,
                parts=[part],
                transaction=str(uuid.uuid4()),
                metadata={},
                partition={"published": published},
            )
        rows[published].append(number)
    assert upkeep.compact(config, key, str(uuid.uuid4()), "1") == 41
    snapshot = open_table(config, key)
    found: dict[str, list[int]] = {"true": [], "false": []}
    for file in snapshot.files:
        found[str(file.partition["published"]).lower()] += read_part(store, file.key)[
            "row_number"
        ].to_pylist()
    assert {value: sorted(numbers) for value, numbers in found.items()} == rows
    assert len(snapshot.files) == 1 + len(rows["false"])  # Ten files of a partition are too few to merge.
    everybody = DeltaTable(snapshot.uri, storage_options=store.storage_options()).to_pyarrow_table()
    assert sorted(everybody["row_number"].to_pylist()) == list(range(40))


def test_a_merged_part_lies_in_no_upload_s_folder(config: StoreConfig) -> None:
    for number in range(20):
        upload_id = str(uuid.uuid4())
        key = f"{KEY}/{upload_id}/{upload_id}-000000-a.parquet"
        part = write_part(open_store(config), key, events([f"u{number}"]), stats=STATS)
        appender_of(config).append(Addition([(part, {})], Group(str(uuid.uuid4()), 1)))
    assert upkeep.compact(config, KEY, str(uuid.uuid4()), "1") == 21
    (file,) = open_table(config, KEY).files
    assert file.key.rpartition("/")[0] == KEY


def test_the_relay_is_told_that_compaction_changed_nothing(config: StoreConfig) -> None:
    fill(config, 16)
    upkeep.compact(config, KEY, str(uuid.uuid4()), "1")
    assert [entry.data_change for entry in log_entries(config, KEY, 0)] == [True] * 16 + [False]


def test_compaction_goes_on_beside_appends(config: StoreConfig) -> None:
    users = fill(config, 20)
    snapshot = open_table(config, KEY)
    merges = [
        upkeep.merge_files(open_store(config), snapshot, SCHEMA, files, "m")
        for files in compaction.plan(snapshot)
    ]
    users += fill(config, 3, first=20)
    assert compaction.commit_merges(open_store(config), snapshot, merges, SCHEMA, "1") == 24
    assert rows_of(config) == users
    assert len(open_table(config, KEY).files) == 4


def test_a_file_is_merged_once_though_two_servers_try(config: StoreConfig) -> None:
    users = fill(config, 20)
    snapshot = open_table(config, KEY)
    store = open_store(config)
    (files,) = compaction.plan(snapshot)
    late = [upkeep.merge_files(store, snapshot, SCHEMA, files, "late")]
    assert upkeep.compact(config, KEY, str(uuid.uuid4()), "1") == 21
    with pytest.raises(compaction.MergeConflictError):
        compaction.commit_merges(store, snapshot, late, SCHEMA, "1")
    assert rows_of(config) == users


def test_a_merge_whose_answer_was_lost_is_found(config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    users = fill(config, 20)
    store = open_store(config)
    real = type(store).create

    def land_and_raise(self: object, key: str, data: bytes) -> None:
        real(self, key, data)  # type: ignore[arg-type]
        if key.endswith(".json"):
            raise StoreUnavailableError("no answer")

    monkeypatch.setattr(type(store), "create", land_and_raise)
    assert upkeep.compact(config, KEY, str(uuid.uuid4()), "1") == 21
    assert rows_of(config) == users


@pytest.mark.parametrize("landed", [False, True])
def test_a_merge_that_a_full_store_has_not_committed_leaves_no_parts(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    users = fill(config, 20)
    store = open_store(config)
    real, before = type(store).create, list(store.list(f"{KEY}/"))

    def full(self: object, key: str, data: bytes) -> None:
        if landed or not key.endswith(".json"):
            real(self, key, data)  # type: ignore[arg-type]
        if key.endswith(".json"):
            raise StoreFullError("no room")

    monkeypatch.setattr(type(store), "create", full)
    if landed:
        assert upkeep.compact(config, KEY, str(uuid.uuid4()), "1") == 21
    else:
        with pytest.raises(StoreFullError):
            upkeep.compact(config, KEY, str(uuid.uuid4()), "1")
        assert list(store.list(f"{KEY}/")) == before
    assert rows_of(config) == users


def test_a_checkpoint_sums_up_and_deletes_nothing(config: StoreConfig) -> None:
    users = fill(config, 30)
    upkeep.checkpoint(config, KEY, 30)
    log = list(open_store(config).list(f"{KEY}/_delta_log"))
    assert f"{KEY}/_delta_log/{30:020d}.checkpoint.parquet" in log
    assert len([key for key in log if key.endswith(".json")]) == 31
    assert rows_of(config) == users
