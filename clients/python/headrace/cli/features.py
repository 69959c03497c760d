"""Commands on features: describe, features, stats."""

import time
from collections.abc import Callable
from typing import Annotated, TypeAlias, TypeVar

import typer

from headrace.cli.command import command
from headrace.cli.console import (
    LARGEST,
    TenantOption,
    answering,
    given,
    print_json,
    stdout,
)
from headrace.cli.document import document
from headrace.cli.output import ListOutput, Output
from headrace.cli.progress import run_bar
from headrace.cli.report import (
    facts_table,
    pace,
    show_features,
    show_statistics,
    show_warnings,
    versions_table,
)
from headrace.cli.run_options import AsOfOption, InteractionsVersionOption, ItemsVersionOption, KnownAtOption
from headrace.cli.runs import RequestIdOption, asking
from headrace.cli.server import Server
from headrace.v1 import feature_pb2, statistics_pb2

T = TypeVar("T")

DRIFT = "Drift"
"""A part of the help."""

WindowsOption: TypeAlias = Annotated[
    list[int] | None,
    typer.Option(
        "--windows",
        "--window",
        min=1,
        metavar="DAYS",
        help="Count the last days; repeat it for more. Default: 7 and 30.",
    ),
]

app = typer.Typer(rich_markup_mode=None)


def _pair(text: str, value: Callable[[str], T], what: str, form: str) -> tuple[str, T]:
    """The two sides of an option such as `purchase=4`.

    Args:
        value: Makes the right side what it stands for.
        what: What the option is, as a message names it.
        form: How it is written, with an example.
    """
    name, _, right = text.partition("=")
    try:
        return name, value(right)
    except ValueError as error:
        raise typer.BadParameter(f"Unknown {what} {text!r}; write {form}.") from error


def _weight(text: str) -> tuple[str, float]:
    """An option's interaction type and its weight."""
    return _pair(text, float, "weight", "TYPE=NUMBER, as purchase=4")


def _limit(text: str) -> tuple[str, float]:
    """An option's column and its limit."""
    return _pair(text, float, "limit", "COLUMN=NUMBER, as user_features.avg_rating=0.1")


def _baseline(text: str) -> tuple[str, int]:
    """An option's table and its version."""
    return _pair(text, int, "baseline", "TABLE=VERSION, as user_features=3")


@command(app)
def describe(server: Server, output: ListOutput, windows: WindowsOption = None) -> None:
    """Show what each feature means.

    Examples:
      headrace describe --windows 7 --windows 28
      headrace describe --output csv > features.csv
    """
    with answering(output.is_json), server.client() as client:
        found = client.describe_features(windows or ())
        output.write({}, "features", feature_pb2.Feature, found.features, show_features)


@command(app)
def features(
    tenant: TenantOption,
    server: Server,
    output: Output,
    as_of: AsOfOption = None,
    known_at: KnownAtOption = None,
    windows: WindowsOption = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "--weight",
            metavar="TYPE=NUMBER",
            help="Weight of an interaction type in engagement_score; repeat it for more.",
        ),
    ] = None,
    half_life_days: Annotated[
        float | None,
        typer.Option(help="Days after which an event adds half to engagement_score. Default: 30."),
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Views that the tenant's own rate stands for in smoothed rates. Default: 10.",
        ),
    ] = None,
    interactions_version: InteractionsVersionOption = None,
    items_version: ItemsVersionOption = None,
    max_l_infinity: Annotated[
        float | None,
        typer.Option(
            "--max-l-infinity",
            rich_help_panel=DRIFT,
            help="Warn of columns of values that drifted further, 0 to 1.",
        ),
    ] = None,
    max_jensen_shannon: Annotated[
        float | None,
        typer.Option(
            "--max-jensen-shannon",
            rich_help_panel=DRIFT,
            help="Warn of columns of numbers that drifted further, 0 to 1.",
        ),
    ] = None,
    max_drift: Annotated[
        list[str] | None,
        typer.Option(
            "--max-drift",
            metavar="COLUMN=NUMBER",
            help="The same for one column; repeat it for more.",
            rich_help_panel=DRIFT,
        ),
    ] = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="TABLE=VERSION",
            help="What drift is from; repeat it for more. Default: the version before.",
            rich_help_panel=DRIFT,
        ),
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Show the statistics of what was written, and its drift.")
    ] = False,
    request_id: RequestIdOption = "",
) -> None:
    """Compute user_features and item_features anew. Ctrl-C ends it, unless it has a request id.

    Examples:
      headrace features --tenant acme
      headrace features --tenant acme --as-of 2026-01-31 --windows 7 --weights purchase=8
      headrace features --tenant acme --max-l-infinity 0.3 --baseline user_features=3 --stats
    """
    with answering(output.is_json):
        limits = given(
            l_infinity=max_l_infinity,
            jensen_shannon=max_jensen_shannon,
            columns=dict(map(_limit, max_drift)) if max_drift else None,
            baseline_versions=dict(map(_baseline, baselines)) if baselines else None,
        )
        options = given(
            interactions_version=interactions_version,
            items_version=items_version,
            known_at=known_at,
            windows=windows,
            weights=dict(map(_weight, weights)) if weights else None,
            half_life_days=half_life_days,
            smoothing=smoothing,
            drift_limits=limits or None,
            request_id=request_id,
        )
    with answering(output.is_json), server.client() as client, asking(client, tenant, request_id):
        started = time.monotonic()
        with run_bar("features") as show:
            result = client.compute_features(tenant, as_of=as_of, on_progress=show, **options)
        elapsed_s = time.monotonic() - started
        from_versions = limits.get("baseline_versions", {})
        written = [
            client.feature_statistics(
                tenant,
                made.table,
                version=made.version,
                baseline_version=from_versions.get(made.table),
            )
            for made in (result.outputs if stats else ())
        ]
    if output.is_json:
        told = document(result)
        print_json(told | {"statistics": list(map(document, written))} if stats else told)
        return
    facts = [("as of", result.as_of.ToJsonString()), ("interactions", result.interactions)]
    stdout().print(pace(result.interactions, "interactions", elapsed_s))
    stdout().print(facts_table("Features", facts), versions_table(result.inputs, result.outputs))
    for statistics in written:
        show_statistics(statistics)
    show_warnings(result.warnings)


@command(app, "stats")
def feature_stats(
    table: Annotated[str, typer.Argument(help="user_features or item_features.")],
    tenant: TenantOption,
    server: Server,
    output: ListOutput,
    version: Annotated[int | None, typer.Option(min=0, max=LARGEST, help="Default: the newest.")] = None,
    baseline: Annotated[
        int | None,
        typer.Option(
            "--baseline-version",
            "--baseline",
            min=0,
            max=LARGEST,
            help="The version that drift is from. Default: the one before.",
        ),
    ] = None,
) -> None:
    """Show what the columns of features are like, and how far they have drifted.

    CSV and Arrow have the statistics of the columns; JSON has the drift too.

    Examples:
      headrace stats user_features --tenant acme --baseline 3
      headrace stats item_features --tenant acme --json | jq .drift
    """
    with answering(output.is_json), server.client() as client:
        found = client.feature_statistics(tenant, table, version=version, baseline_version=baseline)
        if output.is_json:
            print_json(found)
            return
        columns = statistics_pb2.ColumnStatistics
        output.write({}, "columns", columns, found.columns, lambda _: show_statistics(found))
