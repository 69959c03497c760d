"""Parts that were written, and whose commit never came."""

import asyncio
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from headrace_compute.delta import compaction, drafts, maintenance, tables
from headrace_compute.delta.appender import Addition, LogAppender
from headrace_compute.delta.drafts import Draft
from headrace_compute.delta.receipts import Group
from headrace_compute.errors import StoreUnavailableError
from headrace_compute.model import Part, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part
from headrace_server import dead

ID, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(root=str(tmp_path))


class _Table:
    """A table of items, or of their rejects, in which drafts are written."""

    def __init__(self, config: StoreConfig, *, rejects: bool = False) -> None:
        self.key = (tables.rejects_key if rejects else tables.items_key)(config, "acme")
        kind, self._partition = ("rejects", {"published": "true"}) if rejects else ("items", {})
        schema = tables.SCHEMAS[kind]  # type: ignore[index]
        self._rows = pa.Table.from_pylist([{"upload_id": "u"}], schema).drop_columns(list(self._partition))
        self._folder = f"{self.key}/published=true" if rejects else self.key
        self._store = open_store(config)
        self._appender = LogAppender(config, self.key, kind, schema, tuple(self._partition))  # type: ignore[arg-type]

    def write(self, name: str) -> Part:
        """A part that no version names."""
        return write_part(self._store, f"{self._folder}/{name}.parquet", self._rows)

    def commit(self, part: Part, rejects: Part | None = None) -> None:
        """Names a part, and tells of another one that the rejects' commit is to name."""
        group = Group(id="00000000-0000-0000-0000-000000000000", started_us=0)
        if rejects is not None:
            group = Group(group.id, 0, rejects={"key": rejects.key})
        self._appender.append(Addition([(part, self._partition)], group))

    def names(self) -> set[str]:
        """Names of all parts."""
        return {Path(key).stem for key in self._store.list(self._folder) if "_delta_log" not in key}


def _begin(config: StoreConfig, *at: _Table) -> str:
    versions = {table.key: tables.newest_version(config, table.key, 0) for table in at}
    drafts.begin(config, Draft(ID, versions))
    (entry,) = drafts.entries(config)
    return entry


def test_parts_of_a_draft_go_that_no_commit_names_and_no_others(config: StoreConfig) -> None:
    data, rejects = _Table(config), _Table(config, rejects=True)
    data.commit(data.write("before"))
    entry = _begin(config, data, rejects)
    rejects.commit(rejects.write(f"{ID}-1"))
    pending = rejects.write(f"{ID}-2")
    data.commit(data.write(f"{ID}-1"), pending)
    for table in (data, rejects):
        table.write(f"{ID}-3")
        table.write(f"{OTHER}-1")
    assert drafts.clear(config, entry) == 2
    assert data.names() == {"before", f"{ID}-1", f"{OTHER}-1"}
    assert rejects.names() == {f"{ID}-1", f"{ID}-2", f"{OTHER}-1"}
    assert list(drafts.entries(config)) == []


def test_a_part_stays_that_was_merged_since(config: StoreConfig) -> None:
    data = _Table(config)
    entry = _begin(config, data)
    for number in range(20):
        data.commit(data.write(f"{ID}-{number}"))
    assert maintenance.compact(config, data.key, "merged", "1") is not None
    assert len(tables.open_table(config, data.key).files) < 20
    assert list(drafts.entries(config)) == [entry]  # That of the merge is over.
    assert drafts.clear(config, entry) == 0
    assert {f"{ID}-{number}" for number in range(20)} < data.names()


def test_a_merge_that_was_killed_leaves_a_draft_and_its_commit_is_found(config: StoreConfig) -> None:
    data = _Table(config)
    for number in range(20):
        data.commit(data.write(str(number)))
    drafts.begin(config, Draft("merged", {data.key: 20}))
    data.write("merged-0")
    data.commit(data.write("merged-1"))
    # The stage is tried again, by a worker that finds a newer version.
    drafts.begin(config, Draft("merged", {data.key: 21}))
    asyncio.run(dead.clear_dead(config))
    assert {name for name in data.names() if "merged" in name} == {"merged-1"}


def _kill_a_merge(config: StoreConfig, table: _Table, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Has a merge of the draft `merged` end before its commit; returns the names of its parts."""
    before = table.names()
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(compaction, "commit_merges", lambda *_: sys.exit(1))
        maintenance.compact(config, table.key, "merged", "1")
    return table.names() - before


@pytest.mark.parametrize("rejects", [False, True])
def test_parts_of_a_merge_of_uploads_go_if_it_was_killed(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch, rejects: bool
) -> None:
    data = _Table(config, rejects=rejects)
    for number in range(20):
        data.commit(data.write(f"upload-{number}/{number}"))
    before = data.names()
    assert len(_kill_a_merge(config, data, monkeypatch)) == 1
    asyncio.run(dead.clear_dead(config))
    assert data.names() == before


def test_a_merge_that_is_tried_again_leaves_nothing_of_the_one_that_was_killed(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _Table(config, rejects=True)
    for number in range(20):
        data.commit(data.write(f"upload-{number}/{number}"))
    before = data.names()
    assert len(_kill_a_merge(config, data, monkeypatch)) == 1
    # The worker that tries again finds another file, the first of all.
    data.commit(data.write("upload/first"))
    assert maintenance.compact(config, data.key, "merged", "1") is not None
    (merged,) = tables.open_table(config, data.key).files
    assert data.names() == before | {"first", Path(merged.key).stem}
    assert list(drafts.entries(config)) == []


def test_nothing_is_deleted_where_the_log_has_a_gap(config: StoreConfig) -> None:
    data = _Table(config)
    entry = _begin(config, data)
    for number in range(3):
        data.commit(data.write(f"{ID}-{number}"))
    open_store(config).delete(f"{data.key}/_delta_log/{2:020d}.json")
    with pytest.raises(StoreUnavailableError):
        drafts.clear(config, entry)
    assert len(data.names()) == 3
    assert list(drafts.entries(config)) == [entry]


def test_a_young_draft_may_be_another_server_s(config: StoreConfig) -> None:
    data = _Table(config)
    _begin(config, data)
    data.write(f"{ID}-1")
    asyncio.run(dead.sweep(config, dead.LEFT_SECONDS))
    assert data.names() == {f"{ID}-1"}
    asyncio.run(dead.clear_dead(config))
    assert data.names() == set()
