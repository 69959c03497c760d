"""Exports of training sets: what is written is what the table has, in files that common tools open."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.phoenix import Phoenix
from harness.server import Server
from harness.training import RATIO, lay_dataset, sample_without_valid
from typer.testing import CliRunner, Result

from headrace import Client
from headrace.cli.app import app

PARTS = [("train", 2_000), ("train", 1_777), ("valid", 11), ("test", 7)]


class Exports:
    """Runs `headrace export` for a tenant."""

    def __init__(self, server: Server, tenant: str) -> None:
        self.server = server
        self.tenant = tenant

    def __call__(self, *arguments: str | Path, code: int = 0) -> Result:
        result = CliRunner().invoke(
            app,
            ["export", *map(str, arguments), "--tenant", self.tenant],
            env={"HEADRACE_GRPC_ADDRESS": self.server.address},
        )
        assert result.exit_code == code, result.output
        return result

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(*arguments, "--json").stdout)
        return found


@pytest.fixture
def export(server: Server, tenant: str) -> Exports:
    return Exports(server, tenant)


def pairs(rows: pa.Table) -> list[str]:
    return [f"{row['user_id']} {row['item_id']}" for row in rows.select(["user_id", "item_id"]).to_pylist()]


@pytest.mark.parametrize("shards", [1, 3, 40, 5_000])
def test_shards_are_the_table_cut_between_groups_and_duckdb_and_polars_open_them(
    export: Exports, client: Client, tmp_path: Path, shards: int
) -> None:
    laid = lay_dataset(export.server, export.tenant, "mine", PARTS)
    folder = tmp_path / "out"
    told = export.json("mine", "-o", folder, "--shards", str(shards))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {**told, **manifest} == told
    assert (told["version"], told["rows"]) == (1, 5 * (2_000 + 1_777 + 11 + 7))
    assert list(manifest["splits"]) == ["train", "valid", "test"]
    for split, expected in laid.items():
        files = manifest["splits"][split]["files"]
        groups_there = len(expected) // (1 + RATIO)
        # Of more shards than groups, those that get none are not written.
        shares = [len(expected) * number // shards for number in range(shards + 1)]
        ends = [-(-share // (1 + RATIO)) for share in shares]
        full = [number for number, (first, end) in enumerate(pairwise(ends)) if end > first]
        assert len(full) == min(shards, groups_there)
        assert [file["path"] for file in files] == [
            f"data/{split}-{number:05}-of-{shards:05}.parquet" for number in full
        ]
        tables = [pq.read_table(folder / file["path"]) for file in files]
        assert [table.num_rows for table in tables] == [file["rows"] for file in files]
        assert [(folder / file["path"]).stat().st_size for file in files] == [file["bytes"] for file in files]
        # Whole groups, and as many in each shard, but for one.
        assert all(set(table["label"].to_pylist()[:: 1 + RATIO]) <= {1.0} for table in tables)
        groups = [table.num_rows // (1 + RATIO) for table in tables]
        assert max(groups) - min(groups) <= 1
        assert pairs(pa.concat_tables(tables)) == expected
        columns = client.read_table(export.tenant, "mine", limit=1).column_names
        assert {tuple(table.column_names) for table in tables} == {tuple(columns)}
    everything = sum(map(len, laid.values()))
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT count(*), count(DISTINCT split) FROM '{folder}/data/*.parquet'")
        assert found.fetchall() == [(everything, 3)]
    frame = pl.scan_parquet(folder / "data" / "train-*.parquet").collect()
    assert [f"{user} {item}" for user, item in frame.select("user_id", "item_id").iter_rows()] == laid[
        "train"
    ]
    assert not list(tmp_path.glob("*.part"))
    assert len(list((folder / "data").iterdir())) == sum(
        len(told["files"]) for told in manifest["splits"].values()
    )


def test_a_split_without_rows_is_a_file_without_rows_that_recbole_cannot_take(
    export: Exports, client: Client, tmp_path: Path
) -> None:
    sample_without_valid(client, export.tenant, "mine")
    for ending in ("parquet", "csv"):
        folder = tmp_path / ending
        splits = export.json("mine", "-o", folder, "--format", ending, "--shards", "3")["splits"]
        assert [len(splits[split]["files"]) for split in ("train", "valid", "test")] == [3, 1, 3]
        assert splits["valid"]["files"][0]["rows"] == splits["valid"]["rows"] == 0
        # Hugging Face's datasets cannot load a split without rows.
        assert "valid" not in (folder / "README.md").read_text()
    train, valid = (
        pl.read_parquet(tmp_path / f"parquet/data/{name}-*.parquet") for name in ("train", "valid")
    )
    assert (valid.height, valid.schema) == (0, train.schema)
    headers = [file.read_text().partition("\n")[0] for file in (tmp_path / "csv" / "data").iterdir()]
    assert len(set(headers)) == 1
    refused = export("mine", "-o", tmp_path / "out", "--format", "recbole", code=2)
    told = " ".join(refused.output.split())
    assert "Split valid of the training set has no rows, and RecBole needs some of each" in told
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_splits_is_one_and_csv_has_its_rows(export: Exports, tmp_path: Path) -> None:
    laid = lay_dataset(export.server, export.tenant, "plain", [(None, 30)])
    export("plain", "-o", tmp_path / "out", "--format", "csv", "--shards", "2")
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [file.name for file in files] == [f"all-0000{number}-of-00002.csv" for number in range(2)]
    rows = [row for file in files for row in csv.DictReader(file.read_text().splitlines())]
    assert [f"{row['user_id']} {row['item_id']}" for row in rows] == laid[None]
    assert "path: data/all-*.csv" in (tmp_path / "out" / "README.md").read_text()
    assert "split: train" in (tmp_path / "out" / "README.md").read_text()


def atomic(file: Path) -> list[dict[str, str]]:
    """The rows of an atomic file, as RecBole reads it: tabs, quotes only where they must be."""
    with file.open(encoding="utf-8", newline="") as text:
        header = text.readline().rstrip("\n").split("\t")
        return [dict(zip(header, row, strict=True)) for row in csv.reader(text, delimiter="\t")]


def test_atomic_files_have_the_positives_by_split_and_whom_and_what_they_name(
    export: Exports, client: Client, tmp_path: Path
) -> None:
    laid = lay_dataset(export.server, export.tenant, "mine", PARTS)
    catalog: list[dict[str, object]] = [
        {"item_id": "i0", "title": "An old title", "category": "Old"},
        {"item_id": "i1", "title": 'A "quoted" title', "price": 2.5},
        {"item_id": "not in the dataset", "title": "x"},
    ]
    client.ingest_items(export.tenant, catalog)
    client.ingest_items(export.tenant, [{"item_id": "i0", "title": "A new\xa0title", "brand": "B"}])
    told = export.json("mine", "-o", tmp_path / "out", "--format", "recbole")
    home = tmp_path / "out" / "mine"
    positives = Counter[str]()
    for split, expected in laid.items():
        rows = atomic(home / f"mine.{split}.inter")
        assert list(rows[0]) == ["user_id:token", "item_id:token", "timestamp:float"]
        found = [f"{row['user_id:token']} {row['item_id:token']}" for row in rows]
        assert found == expected[:: 1 + RATIO]
        assert [float(row["timestamp:float"]) for row in rows][:3] == [0.0, 1e-6, 2e-6]
        positives.update(row["user_id:token"] for row in rows)
        assert told["interactions"][split] == len(rows)
    users = atomic(home / "mine.user")
    assert {row["user_id:token"]: int(row["positives:float"]) for row in users} == positives
    items = {row.pop("item_id:token"): row for row in atomic(home / "mine.item")}
    assert set(items) == {row.split()[1] for rows in laid.values() for row in rows}
    assert (told["users"], told["items"]) == (len(users), len(items))
    blank = {"title:token_seq": "", "category:token": "", "brand:token": "", "price:float": ""}
    assert items["i0"] == {**blank, "title:token_seq": "A\x1fnew\x1ftitle", "brand:token": "B"}
    assert items["i1"] == {**blank, "title:token_seq": 'A\x1f"quoted"\x1ftitle', "price:float": "2.5"}
    assert items["i2"] == blank
    config = (home / "mine.yaml").read_text()
    assert "benchmark_filename: [train, valid, test]\n" in config
    assert f"data_path: {tmp_path / 'out'}\n" in config


def test_integers_of_ids_stand_beside_what_recbole_loads(
    export: Exports, client: Client, tmp_path: Path
) -> None:
    client.ingest_interactions(
        export.tenant,
        [
            {"user_id": f"u{u}", "item_id": f"i{i}", "interaction_type": "click", "timestamp": "2026-01-01"}
            for u in range(9)
            for i in range(u, u + 5)
        ],
    )
    client.sample_negatives(export.tenant, dataset="mine", min_interactions_per_item=0, with_indices=True)
    export("mine", "-o", tmp_path / "out", "--format", "recbole")
    home = tmp_path / "out" / "mine"
    config = (home / "mine.yaml").read_text()
    for entity, ending in (("user", ".user"), ("item", ".item")):
        known = client.read_table(export.tenant, f"{entity}_vocabulary").to_pylist()
        rows = atomic(home / f"mine{ending}")
        index = f"{entity}_index"
        assert {row[f"{entity}_id:token"]: int(row[f"{index}:token"]) for row in rows} == {
            row[f"{entity}_id"]: row[index] for row in known
        }
        assert index not in config
    assert list(atomic(home / "mine.inter")[0]) == ["user_id:token", "item_id:token", "timestamp:float"]


def test_what_recbole_cannot_read_is_refused_and_nothing_is_left(
    export: Exports, client: Client, tmp_path: Path
) -> None:
    lay_dataset(export.server, export.tenant, "two", [("train", 2), ("test", 1)])
    refused = export("two", "-o", tmp_path / "out", "--format", "recbole", code=2)
    assert "has the splits train, test; RecBole takes train, valid and test, or none" in refused.output
    client.ingest_interactions(
        export.tenant,
        [
            {"user_id": user, "item_id": "NA", "interaction_type": "click", "timestamp": "2026-01-01"}
            for user in ("u1", "u2")
        ],
    )
    client.ingest_items(export.tenant, [{"item_id": name, "title": name} for name in ("NA", "b")])
    client.sample_negatives(
        export.tenant, dataset="odd", min_interactions_per_user=0, min_interactions_per_item=0
    )
    refused = export("odd", "-o", tmp_path / "out", "--format", "recbole", code=2)
    assert "There is the item_id 'NA', which RecBole reads as a missing value" in refused.output
    refused = export("items", "-o", tmp_path / "out", "--format", "recbole", code=2)
    assert "RecBole takes training sets alone" in refused.output
    refused = export("odd", "-o", tmp_path / "out", "--format", "recbole", "--shards", "2", code=2)
    assert "leave --shards out" in refused.output
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(export: Exports, tmp_path: Path) -> None:
    lay_dataset(export.server, export.tenant, "mine", [("train", 2)])
    for name in ("out", "other.part"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "precious").touch()
    assert "is there already" in export("mine", "-o", tmp_path / "out", code=2).output
    assert (
        "another export is under way, or was killed"
        in export("mine", "-o", tmp_path / "other", code=2).output
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["other.part", "out", "precious"]
    assert "TABLE_NOT_FOUND" in export("nothing", "-o", tmp_path / "new", code=2).output


def test_read_takes_one_split(export: Exports, tmp_path: Path) -> None:
    laid = lay_dataset(export.server, export.tenant, "mine", PARTS)
    file = tmp_path / "test.parquet"
    options = ["--tenant", export.tenant, "--address", export.server.address]
    done = CliRunner().invoke(app, ["read", "mine", "--split", "test", "-o", str(file), *options])
    assert done.exit_code == 0, done.output
    assert pairs(pq.read_table(file)) == laid["test"]


@pytest.mark.parametrize("command", [("export", "out"), ("read", "out.csv")], ids=" ".join)
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130), (signal.SIGHUP, -signal.SIGHUP)],
)
def test_a_command_that_is_ended_amid_its_writing_leaves_nothing(
    phoenix: Phoenix, tenant: str, tmp_path: Path, command: tuple[str, str], number: int, status: int
) -> None:
    lay_dataset(phoenix.server, tenant, "mine", [("train", 60_000)])
    writing = _begun(phoenix.address, tenant, tmp_path, *command)
    try:
        while not any(tmp_path.iterdir()):
            assert writing.poll() is None
            time.sleep(0.001)
        phoenix.server.process.send_signal(signal.SIGSTOP)  # It gets no further.
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        writing.send_signal(number)
        assert writing.wait(60) == status
    finally:
        phoenix.server.process.send_signal(signal.SIGCONT)
        writing.kill()
    assert not list(tmp_path.iterdir())


def test_an_export_whose_reader_goes_away_is_whole(phoenix: Phoenix, tenant: str, tmp_path: Path) -> None:
    lay_dataset(phoenix.server, tenant, "mine", [("train", 60_000)])
    writing = _begun(phoenix.address, tenant, tmp_path, "export", "out")
    assert writing.stdout
    writing.stdout.close()
    assert writing.wait(60) == -signal.SIGPIPE
    (folder,) = tmp_path.iterdir()
    told = json.loads((folder / "manifest.json").read_text())
    assert (folder.name, told["rows"]) == ("out", 300_000)


def _begun(address: str, tenant: str, folder: Path, command: str, output: str) -> "subprocess.Popen[bytes]":
    # Tests may run below nohup, which what they start would go by.
    heeding = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    run = [sys.executable, "-c", f"{heeding}; from headrace.cli import main; main()"]
    options = ["-o", str(folder / output), "--tenant", tenant, "--address", address]
    return subprocess.Popen(
        [*run, command, "mine", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
