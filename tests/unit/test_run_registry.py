"""What a run leaves when it ends: its commits, or nothing."""

import asyncio
from pathlib import Path

import pyarrow as pa
import pytest

from headrace_compute.delta import tables
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part
from headrace_compute.statistics.sketch import sketch_table
from headrace_compute.statistics.summary import statistics_of, to_json
from headrace_server import dead
from headrace_server.runs import registry
from headrace_server.runs.registry import RunEntry, entry_of, transaction

ROWS = pa.table({"user_id": ["u"], "bucket": pa.array([3], pa.int16())})


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(root=str(tmp_path))


@pytest.fixture
def run(config: StoreConfig) -> RunEntry:
    """A run that has written a part for each of its two tables."""
    keys = tables.user_features_key(config, "t"), tables.item_features_key(config, "t")
    entered = entry_of("t", "a" * 32, {keys[0]: "user_features", keys[1]: "item_features"})
    registry.add(config, entered)
    for key in keys:
        write_part(open_store(config), f"{entered.part_prefix(key)}0.parquet", ROWS)
        write_part(open_store(config), f"{key}/{'b' * 32}-0.parquet", ROWS)
    return entered


def _commit(config: StoreConfig, run: RunEntry, key: str, **metadata: str) -> None:
    part = write_part(open_store(config), f"{run.part_prefix(key)}0.parquet", ROWS)
    tables.commit(
        config,
        key,
        kind=run.outputs[key],
        schema=ROWS.schema,
        parts=[part],
        mode="overwrite",
        transaction=transaction(run.run_id, run.outputs[key]),
        metadata=metadata,
    )


def _parts(config: StoreConfig, run: RunEntry) -> list[str]:
    return [name for key in run.outputs for name in open_store(config).children(key) if name[0] != "_"]


def test_a_run_without_commit_leaves_nothing_and_others_keep_theirs(
    config: StoreConfig, run: RunEntry
) -> None:
    assert [registry.read(config, key) for key in registry.entries(config)] == [run]
    assert registry.clear(config, run) == 2
    assert _parts(config, run) == ["b" * 32 + "-0.parquet"] * 2
    assert list(registry.entries(config)) == []
    assert registry.clear(config, run) == 0


def test_what_a_run_committed_stays_though_later_versions_do_not_name_it(
    config: StoreConfig, run: RunEntry
) -> None:
    users = next(iter(run.outputs))
    _commit(config, run, users)
    later = entry_of("t", "c" * 32, run.outputs)
    _commit(config, later, users)
    assert registry.clear(config, run) == 1
    assert [file.rows for file in tables.open_table(config, users, 1).files] == [1]
    assert open_store(config).exists(f"{run.part_prefix(users)}0.parquet")


def test_statistics_of_what_a_dead_run_committed_are_recorded_once(
    config: StoreConfig, run: RunEntry
) -> None:
    users, table_key = next(iter(run.outputs)), tables.feature_statistics_key(config, "t")
    described = to_json(statistics_of(sketch_table(ROWS, "user_id", 7), 7))
    _commit(config, run, users, **{tables.STATISTICS: described})
    for parts in (1, 0):
        assert registry.clear(config, run) == parts
        snapshot = tables.open_table(config, table_key)
        assert (snapshot.version, len(snapshot.files)) == (1, 1)
    rows = read_part(open_store(config), snapshot.files[0].key).to_pylist()
    assert [(row["table"], row["version"], row["column"], row["count"]) for row in rows] == [
        ("user_features", 1, "user_id", 1),
        ("user_features", 1, "bucket", 1),
    ]
    assert tables.STATISTICS not in tables.open_table(config, users).metadata
    later = entry_of("t", "c" * 32, run.outputs)
    _commit(config, later, users, **{tables.STATISTICS: described})
    registry.clear(config, later)
    assert [file.rows for file in tables.open_table(config, table_key).files] == [2, 2]


def test_a_young_run_may_live_elsewhere_and_an_old_one_is_dead(config: StoreConfig, run: RunEntry) -> None:
    asyncio.run(dead.sweep(config, dead.LEFT_SECONDS))
    assert len(_parts(config, run)) == 4
    asyncio.run(dead.clear_dead(config))
    assert len(_parts(config, run)) == 2
    assert list(registry.entries(config)) == []
