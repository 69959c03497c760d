"""What trainers make of Headrace's data: PyTorch, RecBole, Hugging Face's datasets.

They are large, so they have an environment of their own, `.trainers`, which `make trainers` installs.
"""

import json
import subprocess
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from harness.server import Server
from harness.training import lay_dataset
from typer.testing import CliRunner

from headrace import Client
from headrace.cli.app import app
from headrace.v1 import run_pb2

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".trainers" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PYTHON.exists(), reason="`make trainers` installs the trainers"),
]


def told(script: str, *arguments: str | Path) -> Any:
    """What a script of tests/trainers prints, as JSON."""
    ran = subprocess.run(
        [PYTHON, ROOT / "tests" / "trainers" / script, *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3_000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_pytorch_gets_each_row_once_in_one_order_however_many_workers_and_stops(
    server: Server, tenant: str
) -> None:
    rows = lay_dataset(server, tenant, "mine", [("train", 301), ("valid", 9)])["train"]
    found = told("loads.py", server.address, tenant, "mine")
    runs = list(found["runs"].values())
    assert len(runs) == 3
    assert runs[0] == runs[1] == runs[2]
    for epoch in range(found["epochs"]):
        halves = [batches[len(batches) // 2 * epoch :][: len(batches) // 2] for batches in runs[0]]
        assert Counter(chain.from_iterable(chain.from_iterable(halves))) == Counter(rows)


def test_ranks_of_torch_distributed_share_an_epoch_evenly_and_a_fork_is_refused(
    server: Server, tenant: str
) -> None:
    rows = lay_dataset(server, tenant, "mine", [("train", 101), ("valid", 9)])["train"]
    found = told("ranks.py", server.address, tenant, "mine")
    one, other = found["ranks"]
    assert one["batches"] == other["batches"]
    assert len(one["rows"]) == len(other["rows"]) == len(rows) // 2
    assert len({*one["rows"], *other["rows"]}) == len(rows) // 2 * 2
    assert {*one["rows"], *other["rows"]} <= set(rows)
    assert "multiprocessing_context='spawn'" in found["forked"]


def test_tensors_have_the_types_of_their_columns() -> None:
    assert told("tensors.py") == {
        "name": ["a", None],
        "whole": ["torch.int32", [2], "[1, 2]"],
        "maybe": ["torch.float64", [2], "[0.5, nan]"],
        "flag": ["torch.bool", [2], "[True, False]"],
        "time": ["torch.int64", [2], "[1000000, 1000000]"],
        "history": ["torch.int64", [2, 3], "[[7, 8, 9], [0, 0, 5]]"],
        "empty": ["torch.int64", [2, 0], "[[], []]"],
        "items": [["x"], []],
    }


@pytest.fixture
def exported(server: Server, tenant: str, tmp_path: Path) -> tuple[run_pb2.NegativesResult, Path]:
    """A training set of the generated shop in three splits, and where its exports are, by their format."""
    shop, out = tmp_path / "shop", tmp_path / "exports"
    out.mkdir()
    run = CliRunner().invoke
    made = run(
        app,
        ["generate", "--users", "2000", "--items", "500", "--interactions", "20000", "--to", str(shop)],
    )
    assert made.exit_code == 0, made.output
    with Client(server.address) as client:
        client.upload(tenant, "items", shop / "items.csv")
        client.upload(tenant, "interactions", shop / "interactions.csv")
        result = client.sample_negatives(tenant, split={"fractions": [0.8, 0.9]})
        client.sample_negatives(tenant, split={"fractions": [0.8, 0.9]}, history=5, dataset="sequences")
    for dataset, format in (
        ("training_data", "parquet"),
        ("training_data", "recbole"),
        ("sequences", "recbole"),
    ):
        options = ["--tenant", tenant, "--format", format, "--address", server.address]
        done = run(app, ["export", dataset, *options, "-o", str(out / f"{dataset}-{format}")])
        assert done.exit_code == 0, done.output
    return result, out


def test_recbole_counts_what_we_count_and_trains(
    server: Server, tenant: str, exported: tuple[run_pb2.NegativesResult, Path]
) -> None:
    result, out = exported
    config = out / "training_data-recbole" / "training_data" / "training_data.yaml"
    found = told("trains.py", config, "training_data", "BPR")
    config = out / "sequences-recbole" / "sequences" / "sequences.yaml"
    sequences = told("trains.py", config, "sequences", "SASRec")
    with Client(server.address) as client:
        rows = client.read_table(tenant, "training_data", columns=["user_id", "item_id"])
        histories = client.read_table(tenant, "sequences", columns=["label", "history"])
    of_positives = histories.filter(pc.equal(histories["label"], 1.0))["history"]
    assert sequences["interactions"] == pc.sum(pc.greater(pc.list_value_length(of_positives), 0)).as_py()
    assert 0 < sequences["interactions"] < result.positives
    assert found["interactions"] == result.positives
    assert found["users"] == len(rows["user_id"].unique())
    assert found["items"] == len(rows["item_id"].unique())
    assert {"title", "category", "brand", "price", "positives", "timestamp"} < set(found["fields"])
    assert set(found["test"]) >= {"recall@10", "ndcg@10"}


def test_datasets_and_ray_data_open_the_shards_offline(
    server: Server, tenant: str, exported: tuple[run_pb2.NegativesResult, Path]
) -> None:
    _, out = exported
    found = told("opens.py", out / "training_data-parquet")
    with Client(server.address) as client:
        table = client.read_table(tenant, "training_data")
        for split in ("train", "valid", "test"):
            rows = client.read_table(tenant, "training_data", split=split)
            count, columns, pairs = found["datasets"][split]
            assert (count, columns) == (rows.num_rows, rows.column_names)
            expected = zip(rows["user_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True)
            assert list(map(tuple, pairs)) == sorted(expected)
    assert found["ray"] == [table.num_rows, table.column_names]
