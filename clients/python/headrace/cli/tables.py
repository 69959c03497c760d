"""Commands on what comes out: features, stats, negatives, tables, read, health."""

import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer

from headrace.cli.console import (
    FAILED,
    LARGEST,
    AddressOption,
    JsonOption,
    TenantOption,
    answering,
    given,
    moment,
    print_json,
    stdout,
)
from headrace.cli.document import document, write_array
from headrace.cli.export import export, json_rows
from headrace.cli.grid import show_rows
from headrace.cli.progress import run_bar
from headrace.cli.report import (
    facts_table,
    pace,
    show_features,
    show_statistics,
    show_tables,
    show_warnings,
    versions_table,
)
from headrace.cli.runs import RequestIdOption, asking
from headrace.client import Client
from headrace.connection import DEFAULT_ADDRESS

T = TypeVar("T")

LARGEST_SETTING = 2**32 - 1
LARGEST_SEED = 2**64 - 1

ROWS_SHOWN = 20
"""Rows printed for people unless --limit says otherwise."""

AsOfOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="ISO8601", help="Count what is before it. Default: everything."),
]
InteractionsVersionOption: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, max=LARGEST, help="Version of the interactions to read. Default: the newest."),
]
ItemsVersionOption: TypeAlias = Annotated[
    int | None, typer.Option(min=0, max=LARGEST, help="Version of the items to read. Default: the newest.")
]

KnownAtOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="ISO8601", help="Read what was committed by then. Default: all."),
]
WindowsOption: TypeAlias = Annotated[
    list[int] | None,
    typer.Option(
        "--window",
        min=1,
        metavar="DAYS",
        help="Count the last days; repeat it for more. Default: 7 and 30.",
    ),
]

app = typer.Typer()


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


@app.command()
def describe(
    windows: WindowsOption = None, address: AddressOption = DEFAULT_ADDRESS, as_json: JsonOption = False
) -> None:
    """Show what each feature means."""
    with answering(as_json), Client(address) as client:
        found = client.describe_features(windows or ())
    if as_json:
        print_json(found)
    else:
        show_features(found.features)


@app.command()
def features(
    tenant: TenantOption,
    as_of: AsOfOption = None,
    known_at: KnownAtOption = None,
    windows: WindowsOption = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
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
        typer.Option("--max-l-infinity", help="Warn of columns of values that drifted further, 0 to 1."),
    ] = None,
    max_jensen_shannon: Annotated[
        float | None,
        typer.Option("--max-jensen-shannon", help="Warn of columns of numbers that drifted further, 0 to 1."),
    ] = None,
    max_drift: Annotated[
        list[str] | None,
        typer.Option(
            "--max-drift", metavar="COLUMN=NUMBER", help="The same for one column; repeat it for more."
        ),
    ] = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="TABLE=VERSION",
            help="What drift is from; repeat it for more. Default: the version before.",
        ),
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Show the statistics of what was written, and its drift.")
    ] = False,
    request_id: RequestIdOption = "",
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Compute user_features and item_features anew. Ctrl-C ends it, unless it has a request id."""
    with answering(as_json):
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
    with answering(as_json), Client(address) as client, asking(client, tenant, request_id):
        started = time.monotonic()
        with run_bar("features") as show:
            result = client.compute_features(tenant, as_of=as_of, on_progress=show, **options)
        elapsed_s = time.monotonic() - started
        from_versions = limits.get("baseline_versions", {})
        written = [
            client.feature_statistics(
                tenant,
                output.table,
                version=output.version,
                baseline_version=from_versions.get(output.table),
            )
            for output in (result.outputs if stats else ())
        ]
    if as_json:
        told = document(result)
        print_json(told | {"statistics": list(map(document, written))} if stats else told)
        return
    facts = [("as of", result.as_of.ToJsonString()), ("interactions", result.interactions)]
    stdout().print(pace(result.interactions, "interactions", elapsed_s))
    stdout().print(facts_table("Features", facts), versions_table(result.inputs, result.outputs))
    for statistics in written:
        show_statistics(statistics)
    show_warnings(result.warnings)


@app.command("stats")
def feature_stats(
    table: Annotated[str, typer.Argument(help="user_features or item_features.")],
    tenant: TenantOption,
    version: Annotated[int | None, typer.Option(min=0, max=LARGEST, help="Default: the newest.")] = None,
    baseline: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST, help="The version that drift is from. Default: the one before."),
    ] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Show what the columns of features are like, and how far they have drifted."""
    with answering(as_json), Client(address) as client:
        found = client.feature_statistics(tenant, table, version=version, baseline_version=baseline)
    if as_json:
        print_json(found)
    else:
        show_statistics(found)


@app.command()
def negatives(
    tenant: TenantOption,
    ratio: Annotated[
        int | None,
        typer.Option(
            min=1, max=LARGEST_SETTING, help="Negatives for each positive. Default: the server's, 4."
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="popularity (default), uniform, zipf, mixed or exposed.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=4.0,
            help="Exponent of popularity, in mixed and exposed too. Default: 0.75; 0 is uniform.",
        ),
    ] = None,
    zipf_exponent: Annotated[
        float | None,
        typer.Option(min=0.0, max=4.0, help="Exponent of the rank, of zipf. Default: 1; 0 is uniform."),
    ] = None,
    uniform_share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Of uniform in mixed; the rest is popularity. Default: 0.5."),
    ] = None,
    positive_types: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE", help="Makes a positive; repeat it for more. Default: click, purchase, like."
        ),
    ] = None,
    max_interactions_per_user: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SETTING,
            help="Newest positives kept of a user. Default: the server's, 50. 0: no limit.",
        ),
    ] = None,
    min_interactions_per_user: Annotated[
        int | None,
        typer.Option(
            min=0, max=LARGEST_SETTING, help="Distinct items a user needs. Default: the server's, 5. 0: off."
        ),
    ] = None,
    min_interactions_per_item: Annotated[
        int | None,
        typer.Option(
            min=0, max=LARGEST_SETTING, help="Distinct users an item needs. Default: the server's, 5. 0: off."
        ),
    ] = None,
    as_of: AsOfOption = None,
    known_at: KnownAtOption = None,
    interactions_version: InteractionsVersionOption = None,
    items_version: ItemsVersionOption = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Equal seeds give equal tables.")] = 0,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the training set. Default: training_data.")
    ] = None,
    request_id: RequestIdOption = "",
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Make training data: positives, and negatives sampled for them. Ctrl-C as for features."""
    options = given(
        negative_ratio=ratio,
        strategy=strategy,
        alpha=alpha,
        zipf_exponent=zipf_exponent,
        uniform_share=uniform_share,
        positive_interaction_types=positive_types,
        max_interactions_per_user=max_interactions_per_user,
        min_interactions_per_user=min_interactions_per_user,
        min_interactions_per_item=min_interactions_per_item,
        interactions_version=interactions_version,
        items_version=items_version,
        known_at=known_at,
        dataset=dataset,
        seed=seed,
        request_id=request_id,
    )
    with answering(as_json), Client(address) as client, asking(client, tenant, request_id):
        started = time.monotonic()
        with run_bar("negatives") as show:
            result = client.sample_negatives(tenant, as_of=as_of, on_progress=show, **options)
        elapsed_s = time.monotonic() - started
    if as_json:
        print_json(result)
        return
    facts: list[tuple[str, object]] = [
        ("as of", result.as_of.ToJsonString()),
        ("pairs of the source", result.source_pairs),
        ("pairs in the core", result.core_pairs),
        ("users in the core", result.core_users),
        ("items in the core", result.core_items),
        ("positives", result.positives),
        ("positives outside the candidates", result.positives_outside_candidates),
        ("negatives", result.negatives),
        ("negatives that could not be had", result.negatives_short),
        ("candidates", result.candidates),
    ]
    stdout().print(pace(result.output.rows, "rows", elapsed_s))
    stdout().print(facts_table("Negatives", facts), versions_table(result.inputs, [result.output]))


@app.command()
def tables(
    tenant: TenantOption, address: AddressOption = DEFAULT_ADDRESS, as_json: JsonOption = False
) -> None:
    """List the tables of a tenant."""
    with answering(as_json), Client(address) as client:
        found = client.list_tables(tenant)
    if as_json:
        print_json({"tables": [document(table) for table in found]})
    else:
        show_tables(found)


@app.command()
def read(
    table: Annotated[str, typer.Argument(help="As `headrace tables` names it.")],
    tenant: TenantOption,
    version: Annotated[int | None, typer.Option(min=0, max=LARGEST, help="Default: the newest.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME", help="A column to read; repeat it for more. Default: all."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=LARGEST, help="At most this many rows.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", dir_okay=False, help="A .parquet, .csv or .jsonl file.")
    ] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Read rows of a table: into a file, or the first 20 to the screen."""
    options = given(version=version, columns=columns, limit=limit)
    with answering(as_json), Client(address) as client:
        if output is not None:
            rows = export(client.read_batches(tenant, table, **options), output)
            if as_json:
                print_json({"file": str(output), "rows": rows})
            else:
                stdout().print(f"{rows:,} rows of {table} written to {output}", soft_wrap=True)
        elif as_json:
            batches = client.read_batches(tenant, table, **options)
            rows_of_all = (row for batch in batches for row in json_rows(batch))
            write_array(sys.stdout, {"table": table}, "rows", rows_of_all)
        else:
            show_rows(stdout(), client.read_table(tenant, table, **({"limit": ROWS_SHOWN} | options)))


@app.command()
def health(address: AddressOption = DEFAULT_ADDRESS, as_json: JsonOption = False) -> None:
    """Ask how the server is. Exit code 2 if it is unhealthy or cannot be reached."""
    with answering(as_json), Client(address) as client:
        answer = client.health()
    if as_json:
        print_json(answer)
    else:
        facts = [(name, value) for name, value in document(answer).items()]
        stdout().print(facts_table(f"Server at {address}", facts))
    if answer.status == "unhealthy":
        raise typer.Exit(FAILED)
