"""The command line against a real server: what it prints, and its exit codes."""

import gzip
import io
import itertools
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from headrace.cli.app import app
from headrace.cli.progress import transfer_bar
from headrace.errors import UnavailableError
from headrace.transfer import Progress

SAMPLE = ("--users", "300", "--items", "200", "--interactions", "5000", "--seed", "3")

pytestmark = pytest.mark.timeout(300)


class Cli:
    """Runs commands against a server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __call__(self, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(
            app, arguments, env={"HEADRACE_GRPC_ADDRESS": self.address, "COLUMNS": "200"}
        )
        assert result.exit_code == code, result.output
        return result

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What a command prints with --json, which must be one JSON object and nothing else."""
        found: dict[str, Any] = json.loads(self(*arguments, "--json", code=code).stdout)
        return found


@pytest.fixture
def cli(server: Any) -> Cli:
    return Cli(server.address)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dirty sample data, as `headrace generate` writes it."""
    folder = tmp_path_factory.mktemp("sample")
    Cli("")("generate", *SAMPLE, "--dirty", "0.02", "--to", str(folder))
    return folder


@pytest.fixture
def stocked(cli: Cli, folder: Path, tenant: str) -> str:
    """A tenant with items and interactions."""
    cli("upload", str(folder / "items.csv"), "--tenant", tenant, "--type", "items")
    cli("upload", str(folder / "interactions.csv"), "--tenant", tenant, "--type", "interactions")
    return tenant


def expected(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())[name]
    return found


def test_generate_tells_what_it_wrote(tmp_path: Path) -> None:
    made = Cli("").json("generate", *SAMPLE, "--to", str(tmp_path), "--end", "2025-06-30")
    assert made["interactions"]["rows_received"] == 5_000
    assert {Path(path).parent for path in made["files"].values()} == {tmp_path}
    assert (tmp_path / "interactions.csv").read_text().splitlines()[-1].split(",")[3].startswith("2025-06-2")


def test_upload_prints_the_result_with_the_protos_field_names(cli: Cli, folder: Path, tenant: str) -> None:
    counts = expected(folder, "interactions")
    file = str(folder / "interactions.csv")
    result = cli.json("upload", file, "--tenant", tenant, "--type", "interactions")
    names = ("rows_received", "rows_accepted", "rows_rejected", "rows_duplicate")
    assert {name: result[name] for name in names} == {name: counts[name] for name in names}
    assert result["outcome"] == "OUTCOME_COMMITTED"
    assert type(result["version"]) is int
    checks = [
        {k: check[k] for k in ("column", "code", "failing_rows")} for check in result["report"]["checks"]
    ]
    assert sorted(map(str, checks)) == sorted(map(str, counts["checks"]))


def test_counts_of_zero_are_printed(cli: Cli, tenant: str, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("item_id,title\ni1,Chair\n")
    result = cli.json("upload", str(file), "--tenant", tenant, "--type", "items")
    assert result["rows_rejected"] == result["rows_duplicate"] == 0
    assert result["report"]["checks"] == []


def test_the_report_for_people_shows_counts_rules_samples_and_warnings(
    cli: Cli, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        "user_id,item_id,interaction_type,timestamp,colour\n"
        "u1,i1,view,2026-01-01,red\nu1,[bold]i1,refund,2026-01-01,red\n\x1b[31m,i1,view,2026-01-01,red\n"
    )
    text = cli("upload", str(file), "--tenant", tenant, "--type", "interactions").stdout
    for word in (
        "COMMITTED",
        "received",
        "NOT_IN_SET",
        "refund",
        "BAD_TEXT",
        "UNKNOWN_COLUMN",
        "colour",
        "3 rows in",
    ):
        assert word in text
    assert "\x1b" not in text


def test_refused_data_is_exit_code_1(cli: Cli, folder: Path, tenant: str) -> None:
    file = str(folder / "items.csv")
    options = ("--tenant", tenant, "--type", "items", "--policy", "all_or_nothing")
    assert cli.json("upload", file, *options, code=1)["outcome"] == "OUTCOME_REFUSED"
    assert "REFUSED" in cli("upload", file, *options, code=1).stdout


def test_validate_is_exit_code_1_with_rejects_and_0_without(
    cli: Cli, folder: Path, tenant: str, tmp_path: Path
) -> None:
    counts = expected(folder, "items")
    report = cli.json("validate", str(folder / "items.csv"), "--type", "items", code=1)
    assert report["rows_rejected"] == counts["rows_rejected"]
    file = tmp_path / "items.csv"
    file.write_text("item_id,title\ni1,Chair\n")
    assert "received" in cli("validate", str(file), "--type", "items").stdout
    assert cli.json("tables", "--tenant", tenant) == {"tables": []}


def test_a_file_that_is_no_table_of_rows_is_exit_code_1_with_its_reason(
    cli: Cli, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("item_id\ni1\n")
    failed = cli.json("upload", str(file), "--tenant", tenant, "--type", "items", code=1)
    assert failed["error"]["reason"] == "MISSING_COLUMN"
    assert failed["error"]["code"] == "INVALID_ARGUMENT"
    assert failed["error"]["metadata"]["columns"] == "title"
    file.write_text("item_id\ttitle\ni1\tChair\n")
    failed = cli.json("upload", str(file), "--tenant", tenant, "--type", "items", code=1)
    assert "separated by tabs" in failed["error"]["message"]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_a_header_alone_is_an_empty_upload_and_exit_code_0(
    cli: Cli, tenant: str, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    content = b"user_id,item_id,interaction_type,timestamp,rating\n"
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    options = ("--tenant", tenant, "--type", "interactions", "--upload-id", str(uuid.uuid4()))
    done = cli.json("upload", str(file), *options)
    assert (done["outcome"], done["rows_received"]) == ("OUTCOME_EMPTY", 0)
    assert cli.json("upload", str(file), *options) == done
    file.write_bytes(content + b"u1,i1,view,2024-01-01,\n")
    assert "not the same content" in cli.json("upload", str(file), *options, code=2)["error"]["message"]


def test_a_file_of_which_every_row_is_rejected_is_exit_code_1(cli: Cli, tenant: str, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("user_id,item_id,interaction_type,timestamp\nu,i,View,2024-01-01\n")
    done = cli.json("upload", str(file), "--tenant", tenant, "--type", "interactions", code=1)
    assert (done["outcome"], done["rows_rejected"]) == ("OUTCOME_EMPTY", 1)


def test_what_a_message_names_as_its_remedy_is_an_option(cli: Cli, tenant: str, tmp_path: Path) -> None:
    file, where = tmp_path / "x.csv", ("--tenant", tenant)
    file.write_text(
        "user_id,item_id,interaction_type,timestamp,colour\n"
        "u,i,view,2024-01-01,red\nu,j,view,2024-01-02,red\nu,k,buy,2024-01-03,red\nu,l,view,9999-01-01,red\n"
    )
    upload = ("upload", str(file), *where, "--type", "interactions")
    assert cli.json(*upload, "--max-rejects", "1", code=1)["outcome"] == "OUTCOME_REFUSED"
    assert cli.json(*upload, "--max-reject-ratio", "0.4", code=1)["outcome"] == "OUTCOME_REFUSED"
    refused = cli.json(*upload, "--unknown-columns", "reject", code=1)
    assert refused["error"]["reason"] == "UNKNOWN_COLUMN"
    validate = ("validate", str(file), "--type", "interactions")
    assert cli.json(*validate, code=1)["rows_rejected"] == 2
    assert cli.json(*validate, "--max-future-skew", "3000000d", code=1)["rows_rejected"] == 1
    refused = cli.json(*validate, "--unknown-columns", "reject", code=1)
    assert refused["error"]["reason"] == "UNKNOWN_COLUMN"
    done = cli.json(*upload, "--max-future-skew", "3000000d", "--max-rejects", "1")
    assert len(cli.json("rejects", done["upload_id"], *where, "--limit", "1")["rejects"]) == 1

    negatives = ("negatives", *where)
    assert cli.json(*negatives, code=2)["error"]["reason"] == "NO_POSITIVES"
    core = ("--min-interactions-per-user", "0", "--min-interactions-per-item", "0")
    assert cli.json(*negatives, *core, code=2)["error"]["reason"] == "NO_POSITIVES"
    views = (*negatives, *core, "--positive-types", "view", "--positive-types", "like", "--alpha", "0.5")
    assert cli.json(*views)["positives"] == 3
    assert cli.json(*views, "--as-of", "2024-01-02", "--interactions-version", "1")["positives"] == 1
    assert cli.json(*views, "--max-interactions-per-user", "2")["positives"] == 2
    assert cli.json("features", *where, "--interactions-version", "1")["interactions"] == 3
    rows = cli.json("read", "interactions", *where, "--column", "item_id", "--column", "user_id")["rows"]
    assert [list(row) for row in rows] == [["item_id", "user_id"]] * 3


@pytest.mark.parametrize("name", ["x.pq", "x"])
def test_parquet_and_json_lines_under_other_names_are_recognised(
    cli: Cli, tenant: str, tmp_path: Path, name: str
) -> None:
    rows = [{"item_id": "i1", "title": "Chair"}, {"item_id": "i2", "title": "Desk"}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    (tmp_path / "reviews.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for file in (name, "reviews.json"):
        done = cli.json("upload", str(tmp_path / file), "--tenant", tenant, "--type", "items")
        assert done["rows_accepted"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("tables",),
        ("upload", "no-such-file.csv", "--tenant", "t", "--type", "items"),
        ("upload", __file__, "--tenant", "t", "--type", "gadgets"),
        ("upload", __file__, "--tenant", "no spaces", "--type", "items"),
        ("upload", __file__, "--tenant", "t", "--type", "items", "--format", "xml"),
        ("upload", __file__, "--tenant", "t", "--type", "items", "--max-future-skew", "soon"),
        ("upload", __file__, "--tenant", "t", "--type", "items", "--max-future-skew", "9" * 30 + "d"),
        ("upload", __file__, "--tenant", "t", "--type", "items", "--max-reject-ratio", "2"),
        ("features", "--tenant", "t", "--as-of", "yesterday"),
        ("read", "interactions", "--tenant", "nobody"),
        ("read", "interactions", "--tenant", "nobody", "-o", "rows.xlsx"),
        ("generate", "--interactions", "3", "--dirty", "0.1"),
        ("generate", "--dirty", "2"),
        ("schema", "gadgets"),
        ("health", "--address", "127.0.0.1:1"),
    ],
    ids=" ".join,
)
def test_usage_and_transport_errors_are_exit_code_2(
    cli: Cli, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = cli(*arguments, code=2)
    assert "Traceback" not in failed.output
    assert failed.output.strip()


def test_nothing_but_results_on_stdout_and_no_progress_without_a_terminal(cli: Cli, stocked: str) -> None:
    done = cli("features", "--tenant", stocked, "--json")
    assert json.loads(done.stdout)
    assert done.stderr == ""


def test_features_and_negatives_print_what_they_wrote(cli: Cli, stocked: str) -> None:
    features = cli.json("features", "--tenant", stocked)
    assert [output["table"] for output in features["outputs"]] == ["user_features", "item_features"]
    assert "user_features" in cli("features", "--tenant", stocked, "--as-of", "2025-12-01").stdout
    options = (
        "--tenant",
        stocked,
        "--ratio",
        "2",
        "--strategy",
        "uniform",
        "--seed",
        "9",
        "--dataset",
        "small",
    )
    negatives = cli.json("negatives", *options)
    assert negatives["negatives"] <= 2 * negatives["positives"]
    assert negatives["output"]["table"] == "small"
    assert "positives" in cli("negatives", *options).stdout
    divided = cli("negatives", *options, "--split-fraction", "0.8", "--split-fraction", "0.9").stdout
    assert all(name in divided for name in ("train", "valid", "test"))
    assert "SPLIT_LEAKS" in cli("negatives", *options, "--leave-last-out", "--eval-ratio", "9").stdout
    both = ("--leave-last-out", "--split-at", "2026-01-01")
    assert "Give one of" in cli("negatives", *options, *both, code=2).stderr
    wide = ("--with-features", "point-in-time", "--feature", "item_price", "--history", "9")
    cli("negatives", *options, *wide, "--history-timestamps")
    (row,) = cli.json("read", "small", "--tenant", stocked, "--limit", "1")["rows"]
    assert list(row)[-3:] == ["item_price", "history", "history_timestamps"]
    cli("negatives", *options, "--available-only", "--same-category-share", "1")
    catalog = cli.json("read", "items", "--tenant", stocked, "--limit", "9999")["rows"]
    category_of = {item["item_id"]: item["category"] for item in catalog}
    drawn = cli.json("read", "small", "--tenant", stocked, "--limit", "999")["rows"]
    groups = itertools.groupby(drawn, key=lambda row: (row["user_id"], row["group_id"]))
    categories = [[category_of.get(row["item_id"]) for row in group] for _, group in groups]
    alike = [set(rest) == {first} for first, *rest in categories if first and rest]
    assert alike.count(True) > 0.9 * len(alike) > 100
    cli("negatives", *options)
    tables = cli.json("tables", "--tenant", stocked)["tables"]
    rows = {table["name"]: table["rows"] for table in tables}
    assert rows["small"] == negatives["positives"] + negatives["negatives"]
    assert "small" in cli("tables", "--tenant", stocked).stdout


def test_read_writes_parquet_csv_and_json_lines_alike(cli: Cli, stocked: str, tmp_path: Path) -> None:
    cli("features", "--tenant", stocked)
    for table in ("interactions", "user_features"):
        files = [tmp_path / f"{table}.{ending}" for ending in ("parquet", "csv", "jsonl")]
        for file in files:
            cli("read", table, "--tenant", stocked, "-o", str(file))
        typed = pa.parquet.read_table(files[0])
        lines = [json.loads(line) for line in files[2].read_text().splitlines()]
        assert typed.num_rows == pa.csv.read_csv(files[1]).num_rows == len(lines) > 0
        assert list(lines[0]) == typed.column_names
        first = typed.slice(0, 1).to_pylist()[0]
        assert lines[0]["user_id"] == first["user_id"]
        assert cli.json("read", table, "--tenant", stocked, "--limit", "3")["rows"] == lines[:3]
    assert not list(tmp_path.glob("*.part"))


def test_what_read_writes_as_csv_can_be_uploaded(cli: Cli, stocked: str, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    cli("read", "interactions", "--tenant", stocked, "-o", str(file))
    again = cli.json("upload", str(file), "--tenant", f"{stocked}b", "--type", "interactions")
    assert again["rows_rejected"] == 0
    assert again["rows_accepted"] == next(
        table["rows"]
        for table in cli.json("tables", "--tenant", stocked)["tables"]
        if table["name"] == "interactions"
    )


def test_what_read_writes_as_json_lines_can_be_uploaded(cli: Cli, stocked: str, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    cli("read", "interactions", "--tenant", stocked, "-o", str(file))
    upload = ("upload", str(file), "--tenant", f"{stocked}b", "--type", "interactions")
    again = cli.json(*upload)
    assert again["rows_accepted"] == len(file.read_text().splitlines())
    warned = [warning["column"] for warning in again["report"]["warnings"]]
    assert warned[:4] == ["bucket", "ingested_at", "row_number", "upload_id"]
    refused = cli.json(*upload, "--unknown-columns", "reject", code=1)
    assert refused["error"]["reason"] == "UNKNOWN_COLUMN"


def test_bad_json_lines_are_rejects_and_their_exit_codes_those_of_csv(
    cli: Cli, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "x"
    file.write_text('{"item_id": "i", "title": "t"}\n{"item_id": "j", "title": "t", "price": true}\n{"item')
    upload = ("upload", str(file), "--tenant", tenant, "--type", "items")
    assert cli.json("validate", str(file), "--type", "items", code=1)["rows_rejected"] == 2
    done = cli.json(*upload)
    assert (done["rows_accepted"], done["rows_rejected"]) == (1, 2)
    rejects = cli.json("rejects", done["upload_id"], "--tenant", tenant)["rejects"]
    assert [(each["line"], each["code"]) for each in rejects] == [(2, "BAD_TYPE"), (3, "BAD_JSON")]
    assert cli.json(*upload, "--max-rejects", "1", code=1)["outcome"] == "OUTCOME_REFUSED"
    file.write_text("[1]\n" * 3)
    assert cli.json(*upload, "--format", "json-lines", code=1)["rows_accepted"] == 0
    named = cli(*upload, code=2)
    assert "is a JSON array" in named.output


def test_read_shows_rows_of_narrow_and_wide_tables(cli: Cli, stocked: str) -> None:
    cli("features", "--tenant", stocked)
    assert "conversion_rate" in cli("read", "user_features", "--tenant", stocked, "--limit", "2").stdout
    tables = cli.json("tables", "--tenant", stocked)["tables"]
    version = next(table["version"] for table in tables if table["name"] == "items")
    assert "item_id" in cli("read", "items", "--tenant", stocked, "--version", str(version)).stdout


def test_a_failed_read_prints_one_json_object(cli: Cli, tenant: str) -> None:
    for command in (["read", "nothing", "--tenant", tenant], ["rejects", "no-uuid", "--tenant", tenant]):
        result = cli(*command, "--json", code=2)
        assert set(json.loads(result.stdout)) == {"error"}


def test_rejects_lists_the_rows_kept_out(cli: Cli, folder: Path, tenant: str) -> None:
    done = cli.json("upload", str(folder / "items.csv"), "--tenant", tenant, "--type", "items")
    listed = cli.json("rejects", done["upload_id"], "--tenant", tenant)["rejects"]
    assert len(listed) == sum(check["failing_rows"] for check in expected(folder, "items")["checks"])
    assert type(listed[0]["row_number"]) is int
    assert "WRONG_FIELD_COUNT" in cli("rejects", done["upload_id"], "--tenant", tenant).stdout


def test_schema_shows_the_contract(cli: Cli) -> None:
    schema = cli.json("schema", "interactions")
    names = [column["name"] for column in schema["columns"]]
    assert names == ["user_id", "item_id", "interaction_type", "timestamp", "rating"]
    assert "NOT_IN_SET" in cli("schema", "interactions").stdout


def test_health_tells_how_the_server_is(cli: Cli) -> None:
    health = cli.json("health")
    assert health["status"] == "healthy"
    assert health["mode"] == "embedded"
    assert "healthy" in cli("health").stdout


def test_status_tells_where_an_upload_stands_and_it_goes_on_by_its_id(
    cli: Cli, folder: Path, tenant: str
) -> None:
    upload_id = str(uuid.uuid4())
    file, where = str(folder / "items.csv"), ("--tenant", tenant)
    options = (*where, "--type", "items", "--upload-id", upload_id)
    done = cli.json("upload", file, *options)
    assert cli.json("upload", file, *options) == done
    found = cli.json("status", upload_id, *where)
    assert (found["state"], found["result"]) == ("UPLOAD_STATE_DONE", done)
    text = cli("status", upload_id, *where).stdout
    for word in (upload_id, "DONE", "items", "COMMITTED", "received"):
        assert word in text
    assert cli.json("status", str(uuid.uuid4()), *where, code=2)["error"]["reason"] == "UPLOAD_NOT_FOUND"


def test_another_file_under_a_known_id_is_exit_code_2(cli: Cli, tenant: str, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("item_id,title\ni1,Chair\n")
    options = ("--tenant", tenant, "--type", "items", "--upload-id", str(uuid.uuid4()))
    cli("upload", str(file), *options)
    assert cli.json("upload", str(file), *options, "--policy", "all_or_nothing", code=2)["error"]


def test_the_bar_tells_that_an_upload_is_reconnecting(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr("headrace.cli.progress.stderr", lambda: console)
    with transfer_bar("uploading x.csv") as show:
        show(Progress(10, 100, 5, 0, interruption=UnavailableError("gone")))
    assert "reconnecting" in console.file.getvalue()  # type: ignore[attr-defined]
