"""Versions are verified over a real channel: equal, different, and not to be derived."""

import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from harness.server import Server
from typer.testing import CliRunner

from headrace import Client
from headrace.aio import AsyncClient
from headrace.cli.app import app
from headrace.errors import (
    InputGoneError,
    InvalidArgumentError,
    NotDerivableError,
    PartLostError,
    TableNotFoundError,
    VersionNotFoundError,
)

TENANT = "verified"
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixed": {"strategy": "mixed", "uniform_share": 0.3, "seed": 2**63 + 5},
    "exposed": {"strategy": "exposed", "max_interactions_per_user": 3, "negative_ratio": 7},
    "limited": {"strategy": "mixed", "available_only": True, "same_category_share": 0.4},
    "columns": {"with_features": "point_in_time", "history": 5, "with_indices": True},
    "splits": {
        "split": {"fractions": [0.6, 0.8]},
        "eval_negative_ratio": 9,
        "strategy": "zipf",
        "positive_interaction_types": ["purchase", "like"],
    },
}
TABLES = (*OPTIONS, "columns_users", "columns_items", "user_features", "item_features")


def events(seed: int, count: int) -> list[dict[str, Any]]:
    some = random.Random(seed)
    return [
        {
            "user_id": f"u{some.randrange(60)}",
            "item_id": f"i{int(some.paretovariate(0.8)) % 50}",
            "interaction_type": some.choice(["view", "view", "click", "like", "purchase"]),
            "timestamp": f"2026-01-{some.randrange(1, 29):02}T{some.randrange(24):02}:30:00",
            "rating": some.choice([None, None, 1.5, 4.0]),
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def made(server: Server) -> Server:
    """A server whose tenant has each kind of table, in two versions of which the first reads less."""
    with Client(server.address) as client:
        client.ingest_items(
            TENANT,
            [{"item_id": f"i{n}", "title": f"Thing {n}", "category": f"kind {n % 4}"} for n in range(45)],
        )
        for seed in (1, 2):
            client.ingest_interactions(TENANT, events(seed, 800))
            client.compute_features(TENANT, windows=[3], weights={"view": 0.25}, half_life_days=2.5)
            for dataset, options in OPTIONS.items():
                given = {"min_interactions_per_user": 2, "min_interactions_per_item": 2, **options}
                client.sample_negatives(TENANT, dataset=dataset, **given)
    return server


def folder(server: Server, table: str) -> Path:
    area = "features" if table.endswith("features") else "training-data"
    below = (table,) if area == "features" else ("datasets", table)
    return server.data_dir.joinpath(area, TENANT, *below)


def parts(server: Server, table: str, version: int) -> list[Path]:
    return sorted(Path(file) for file in DeltaTable(folder(server, table), version=version).file_uris())


def invoke(server: Server, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--tenant", TENANT, "--address", server.address])


def times(server: Server, table: str) -> dict[Path, int]:
    """When each file of a table was written."""
    return {file: file.stat().st_mtime_ns for file in folder(server, table).rglob("*") if file.is_file()}


@contextmanager
def changed(file: Path, change: Callable[[Path], Any]) -> Iterator[None]:
    """A file that is not what it was."""
    kept = file.read_bytes()
    try:
        change(file)
        yield
    finally:
        file.write_bytes(kept)


def raise_one_probability(file: Path) -> dict[str, Any]:
    """Changes the last bit of the first probability in a part; returns the row as it was."""
    rows = pq.read_table(file)
    probs = rows["sampling_prob"].to_pylist()
    number = next(number for number, prob in enumerate(probs) if prob is not None)
    row: dict[str, Any] = rows.slice(number, 1).to_pylist()[0]
    bits = pa.array([probs[number]]).view(pa.int64()).to_pylist()[0] ^ 1
    probs[number] = pa.array([bits]).view(pa.float64()).to_pylist()[0]
    place = rows.column_names.index("sampling_prob")
    pq.write_table(rows.set_column(place, "sampling_prob", pa.array(probs)), file)
    return {**row, "altered": probs[number]}


def edit_commit(**facts: str) -> Callable[[Path], None]:
    """Changes what a commit says of itself."""

    def edit(file: Path) -> None:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            if "commitInfo" in line:
                line["commitInfo"] |= facts
        file.write_text("\n".join(map(json.dumps, lines)))

    return edit


def entry(server: Server, table: str, version: int) -> Path:
    return folder(server, table) / "_delta_log" / f"{version:020}.json"


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("version", [1, None])
def test_a_version_is_equal_to_what_its_lineage_gives(
    made: Server, client: Client, table: str, version: int | None
) -> None:
    before = times(made, table)
    found = client.verify(TENANT, table, version=version)
    assert not found.HasField("difference")
    assert (found.version.table, found.version.version) == (table, version or 2)
    assert found.version.rows == client.read_table(TENANT, table, version=version or 2).num_rows > 0
    assert [each.table for each in found.inputs] == ["interactions", "items"]
    assert [each.version for each in found.inputs] == [version or 2, 1]
    assert times(made, table) == before


@pytest.mark.slow
def test_all_versions_are_equal_on_another_number_of_workers(
    made: Server, own_server: Callable[..., Server], tmp_path: Path
) -> None:
    """22 of 22: the same files, before a server whose stages go to three workers."""
    shutil.copytree(made.data_dir, tmp_path / "data")
    other = own_server(tmp_path / "data", HEADRACE_WORKERS="3")
    with Client(other.address) as client:
        assert client.health().workers_wanted == 3
        for table, version in itertools.product(TABLES, (1, 2)):
            assert not client.verify(TENANT, table, version=version).HasField("difference"), (table, version)


async def test_the_async_client_is_told_the_same(made: Server) -> None:
    async with AsyncClient(made.address) as client:
        found = await client.verify(TENANT, "splits")
        assert found == await client.verify(TENANT, "splits", version=2, timeout=300)
    assert not found.HasField("difference")


def test_one_altered_bit_is_found_with_its_row_and_its_value(made: Server, client: Client) -> None:
    file, told = parts(made, "splits", 2)[-1], dict[str, Any]()
    with changed(file, lambda file: told.update(raise_one_probability(file))):
        difference = client.verify(TENANT, "splits").difference
        command = invoke(made, "verify", "splits@2")
    assert (difference.bucket, difference.split) == (told["bucket"], told["split"])
    assert (difference.stored, difference.derived) == (True, True)
    assert difference.key["user_id"] == json.dumps(told["user_id"])
    assert difference.key["item_id"] == json.dumps(told["item_id"])
    (value,) = difference.values
    assert (value.column, float(value.stored)) == ("sampling_prob", told["altered"])
    assert float(value.derived) == told["sampling_prob"] != told["altered"]
    assert command.exit_code == 1
    assert f"bucket {told['bucket']}, split {told['split']}, row {difference.row}" in command.output
    assert not client.verify(TENANT, "splits").HasField("difference")


def test_the_command_line_tells_what_it_has_verified(made: Server) -> None:
    told = invoke(made, "verify", "user_features@1")
    assert told.exit_code == 0, told.output
    assert "EQUAL  user_features@1" in told.output
    as_json = json.loads(invoke(made, "verify", "plain", "--json").output)
    assert (as_json["version"]["version"], as_json.get("difference")) == (2, None)
    for wrong in ("plain@", "plain@x", "plain@-1"):
        assert "names no version" in invoke(made, "verify", wrong).output
    assert invoke(made, "verify", "plain@3").exit_code == 2


def test_a_compacted_table_is_equal_if_its_rows_are(made: Server, client: Client) -> None:
    shutil.copytree(folder(made, "mixed"), folder(made, "compacted"))
    table = DeltaTable(folder(made, "compacted"))
    assert len(parts(made, "compacted", 2)) > 1
    table.optimize.compact()
    assert len(parts(made, "compacted", 3)) == 1
    found = client.verify(TENANT, "compacted")
    assert (found.version.version, found.HasField("difference")) == (3, False)
    file = parts(made, "compacted", 3)[0]
    with changed(file, raise_one_probability):
        assert client.verify(TENANT, "compacted").difference.values[0].column == "sampling_prob"
        assert not client.verify(TENANT, "compacted", version=2).HasField("difference")


def test_rows_that_no_run_wrote_have_no_lineage(made: Server, client: Client) -> None:
    shutil.copytree(folder(made, "plain"), folder(made, "foreign"))
    rows = DeltaTable(folder(made, "foreign")).to_pyarrow_table()
    write_deltalake(folder(made, "foreign"), rows.slice(0, 1), mode="append")
    with pytest.raises(NotDerivableError, match="not written by a run") as caught:
        client.verify(TENANT, "foreign")
    assert caught.value.metadata == {"table": "foreign", "version": "3"}
    assert not client.verify(TENANT, "foreign", version=2).HasField("difference")


def test_what_this_code_cannot_derive_says_so(made: Server, client: Client) -> None:
    log, file = entry(made, "plain", 2), parts(made, "plain", 2)[0]
    (info,) = (
        json.loads(line)["commitInfo"] for line in log.read_text().splitlines() if "commitInfo" in line
    )
    parameters = json.loads(info["headrace.parameters"])
    for name, given in (
        ("decay", {**parameters, "decay": 1}),
        ("strategy = bandit", {**parameters, "strategy": "bandit"}),
        ("split.weeks", {**parameters, "split": {"kind": "temporal", "weeks": 3}}),
        ("split.kind = weekly", {**parameters, "split": {"kind": "weekly"}}),
    ):
        facts = {"headrace.parameters": json.dumps(given), "headrace.code_version": "9.8.7"}
        with changed(log, edit_commit(**facts)):
            with pytest.raises(NotDerivableError, match=r"9\.8\.7") as caught:
                client.verify(TENANT, "plain")
            assert caught.value.metadata["parameter"] == name
            assert caught.value.metadata["code_version"] == "9.8.7"
    del parameters["zipf_exponent"]  # An older version had it not, and what it made is the default's.
    facts = {"headrace.parameters": json.dumps(parameters), "headrace.code_version": "0.0.1"}
    with changed(log, edit_commit(**facts)):
        assert client.verify(TENANT, "plain").code_version == "0.0.1"
        with changed(file, raise_one_probability), pytest.raises(NotDerivableError) as caught:
            client.verify(TENANT, "plain")
        assert caught.value.metadata == {"table": "plain", "version": "2", "code_version": "0.0.1"}


@pytest.mark.parametrize("table", ["plain", "item_features"])
def test_a_lineage_that_gives_no_rows_is_a_difference(made: Server, client: Client, table: str) -> None:
    log = entry(made, table, 2)
    with changed(log, edit_commit(**{"headrace.as_of_us": "1"})):
        difference = client.verify(TENANT, table).difference
        told = invoke(made, "verify", table)
    rows = client.read_table(TENANT, table, limit=1).to_pylist()[0]
    assert (difference.bucket, difference.row) == (rows["bucket"], 0)
    assert (difference.stored, difference.derived) == (True, False)
    assert difference.key["item_id"] == json.dumps(rows["item_id"])
    assert {value.column for value in difference.values} <= rows.keys()
    assert (told.exit_code, "should not be there" in " ".join(told.output.split())) == (1, True)


def test_an_input_that_is_gone_is_named(made: Server, client: Client) -> None:
    raw = made.data_dir / "raw-data" / TENANT / "interactions"
    for file in (sorted(raw.glob("*.parquet"))[0], raw / "_delta_log" / f"{2:020}.json"):
        with changed(file, lambda file: file.unlink()):
            for table in ("plain", "item_features"):
                with pytest.raises(InputGoneError, match="cannot be derived again") as caught:
                    client.verify(TENANT, table)
                is_part = file.suffix == ".parquet"
                part = {"part": f"raw-data/{TENANT}/interactions/{file.name}"} if is_part else {}
                assert caught.value.metadata == {"table": "interactions", "version": "2", **part}
    assert not client.verify(TENANT, "plain").HasField("difference")


def test_a_part_of_the_version_that_is_gone_or_damaged_is_named(made: Server, client: Client) -> None:
    file = parts(made, "user_features", 2)[0]
    changes: list[Callable[[Path], object]] = [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        lambda file: file.write_bytes(file.read_bytes()[:50] + file.read_bytes()[150:]),
    ]
    calls: list[Callable[[], object]] = [
        lambda: client.verify(TENANT, "user_features"),
        lambda: client.read_table(TENANT, "user_features"),
        lambda: client.read_table(TENANT, "user_features", version=2, columns=["user_id"]),
    ]
    again = r"make the table anew .* interactions_version = 2, items_version = 1, as_of = 2026-01-"
    for change, call in itertools.product(changes, calls):
        with changed(file, change), pytest.raises(PartLostError, match=again) as caught:
            call()
        assert caught.value.metadata == {"part": f"features/{TENANT}/user_features/{file.name}"}


def test_a_lost_part_of_an_upload_can_only_be_sent_anew(made: Server, client: Client) -> None:
    file = min((made.data_dir / "raw-data" / TENANT / "interactions").glob("*.parquet"))
    for change in (lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-20])):
        with changed(file, change):
            for call in (client.compute_features, partial(client.read_table, table="interactions")):
                with pytest.raises(PartLostError, match="Upload its rows anew"):
                    call(TENANT)


def test_a_loader_is_told_of_a_lost_part_at_once(made: Server, client: Client) -> None:
    data = client.training_data(TENANT, "plain", shuffle_seed=3)
    file = parts(made, "plain", 2)[-1]
    cut = changed(file, lambda file: file.write_bytes(file.read_bytes()[:-20]))
    with cut, pytest.raises(PartLostError, match="make the table anew"):
        list(data)
    assert sum(batch.num_rows for batch in data) == data.rows


def test_only_versions_that_runs_write_are_verified(made: Server, client: Client) -> None:
    for table in ("interactions", "items", "feature_statistics", ""):
        with pytest.raises(InvalidArgumentError) as caught:
            client.verify(TENANT, table)
        assert caught.value.metadata == {"field": "table"}
    with pytest.raises(VersionNotFoundError):
        client.verify(TENANT, "plain", version=9)
    with pytest.raises(TableNotFoundError):
        client.verify(TENANT, "nothing")
    with pytest.raises(InvalidArgumentError):
        client.verify("no tenant", "plain")
