"""Tables of the command line in the width that there is."""

import uuid

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.app import app
from headrace.cli.console import answering
from headrace.cli.report import show_runs, show_statistics
from headrace.v1 import run_pb2, statistics_pb2

NAMES = ("user_id", "median_hours_between_events", "total_interactions_30d")


def _statistics() -> statistics_pb2.GetFeatureStatisticsResponse:
    found = statistics_pb2.GetFeatureStatisticsResponse()
    for number, name in enumerate(NAMES):
        column = found.columns.add(column=name, measure="elements", nulls=1_234_567, distinct=123_456)
        column.distinct_error = 0.016
        column.mean, column.stddev, column.minimum, column.maximum = 1.234e-5, 2.345e10, -3.456e-10, 4.567e17
        for probability in (0.05, 0.5, 0.95):
            column.quantiles.add(probability=probability, value=-1.2345e-7 * (1 + number))
        found.drift.add(column=name, value=0.123)
        column.top_values.add(value="y" * 40, count=3)
    return found


@pytest.mark.parametrize("width", ["", "100", "160", "300"])
def test_nothing_is_broken_over_lines_or_cut_in_statistics(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    show_statistics(_statistics())
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= int(width or 120)
    cells = {cell.strip() for line in shown.splitlines() for cell in line.split("│")}
    numbers = {"1.234e-05", "2.345e+10", "-3.456e-10", "4.567e+17", "-1.235e-07", "-2.469e-07"}
    assert cells >= {*NAMES, *numbers, "elements", "1,234,567", "≈123,456", "0.123"}


@pytest.mark.parametrize("width", ["", "80", "200"])
def test_runs_are_listed_with_ids_to_copy(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    run = run_pb2.Run(request_id=str(uuid.uuid4()), kind="negatives", state=run_pb2.RUN_STATE_QUEUED)
    show_runs([run])
    shown = capsys.readouterr().out
    assert run.request_id in shown
    assert max(map(len, shown.splitlines())) <= int(width or 120)


def test_a_usage_error_found_late_is_told_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, answering(as_json=True):
        raise typer.BadParameter("Unknown limit.")
    told = capsys.readouterr()
    assert (caught.value.exit_code, told.err) == (2, "error: Unknown limit.\n")
    assert '"code": "INVALID_ARGUMENT"' in told.out


@pytest.mark.parametrize(
    "option",
    [("--max-drift", "avg_rating"), ("--baseline", "user_features=x"), ("--weight", "view=much")],
)
def test_options_of_features_that_cannot_be_read_are_told_as_json_too(option: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["features", "--tenant", "t", "--json", *option])
    assert (done.exit_code, done.stdout[:12]) == (2, '{\n  "error":')
    assert repr(option[1]) in done.stdout


def test_help_of_negatives_names_every_strategy_and_seed() -> None:
    told = " ".join(CliRunner().invoke(app, ["negatives", "--help"]).stdout.split())
    assert "popularity (default), uniform, zipf, mixed or exposed." in told
    assert str(2**64 - 1) in told
