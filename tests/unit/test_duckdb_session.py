"""DuckDB sees the tables it is given and nothing else."""

from importlib import resources
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from headrace_compute.errors import OverloadedError, StoreFullError
from headrace_compute.inputs import duckdb_session as module
from headrace_compute.inputs.duckdb_session import DuckDBSession
from headrace_compute.sql import load_query


def test_every_query_file_states_inputs_output_and_grain() -> None:
    files = [file.name for file in resources.files("headrace_compute.sql").iterdir()]
    names = [file.removesuffix(".sql") for file in files if file.endswith(".sql")]
    assert "current_catalog" in names
    for name in names:
        head = "\n".join(line for line in load_query(name).splitlines() if line.startswith("-- "))
        assert all(word in head for word in ("Input:", "Output:", "Grain:")), name


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM '{file}'",
        "COPY (SELECT 1) TO '{file}.out'",
        "ATTACH '{file}.db'",
        "INSTALL httpfs",
        "SET threads = 2",
        "SET enable_external_access = true",
        "SELECT * FROM a_python_variable",
    ],
)
def test_sql_reaches_no_file_setting_or_variable(statement: str, tmp_path: Path) -> None:
    a_python_variable = pa.table({"a": [1]})
    (file := tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(duckdb.Error), DuckDBSession({"given": a_python_variable}) as session:
        session.query(statement.format(file=file))
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_what_does_not_fit_in_memory_is_spilled_and_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMORY_LIMIT", "24MiB")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    counting = "SELECT count(*) AS n FROM (SELECT a FROM t GROUP BY a)"
    with DuckDBSession({"t": pa.table({"a": range(1_000_000)})}) as session:
        assert session.query(counting).to_pylist() == [{"n": 1_000_000}]
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("raised", "typed"),
    [
        (duckdb.OutOfMemoryException("x"), OverloadedError),
        (duckdb.IOException("/secret/path"), StoreFullError),
    ],
)
def test_exhaustion_is_a_typed_retryable_error(raised: duckdb.Error, typed: type[OverloadedError]) -> None:
    with pytest.raises(typed) as caught, DuckDBSession({}):
        raise raised
    assert caught.value.retryable
    assert "secret" not in caught.value.message


def test_query_parameters_are_bound_not_pasted() -> None:
    text = {"text": "'; DROP TABLE x"}
    with DuckDBSession({}) as session:
        assert session.query("SELECT $text AS text", text).to_pylist() == [text]
