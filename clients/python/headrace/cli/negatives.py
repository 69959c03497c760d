"""The command that makes training data."""

import time
from datetime import datetime
from typing import Annotated, Literal

import typer

from headrace.cli.command import command
from headrace.cli.console import (
    TenantOption,
    answering,
    given,
    moment,
    print_json,
    stdout,
)
from headrace.cli.output import Output
from headrace.cli.progress import run_bar
from headrace.cli.report import facts_table, negatives_versions, pace, show_splits, show_warnings
from headrace.cli.run_options import AsOfOption, InteractionsVersionOption, ItemsVersionOption, KnownAtOption
from headrace.cli.runs import RequestIdOption, asking
from headrace.cli.server import Server
from headrace.options import TemporalSplit

LARGEST_SETTING = 2**32 - 1
MAX_RATIO = 1_000
LARGEST_SEED = 2**64 - 1

POSITIVES, DRAWS, SPLITS, COLUMNS = "Positives", "Negatives", "Splits", "More columns"
"""Parts of the help."""

app = typer.Typer(rich_markup_mode=None)


@command(app)
def negatives(
    tenant: TenantOption,
    server: Server,
    output: Output,
    ratio: Annotated[
        int | None,
        typer.Option(
            "--negative-ratio",
            "--ratio",
            min=1,
            max=MAX_RATIO,
            help="Negatives for each positive. Default: the server's, 4.",
            rich_help_panel=DRAWS,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="popularity (default), uniform, zipf, mixed or exposed.", rich_help_panel=DRAWS),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=4.0,
            help="Exponent of popularity, in mixed and exposed too. Default: 0.75; 0 is uniform.",
            rich_help_panel=DRAWS,
        ),
    ] = None,
    zipf_exponent: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=4.0,
            help="Exponent of the rank, of zipf. Default: 1; 0 is uniform.",
            rich_help_panel=DRAWS,
        ),
    ] = None,
    uniform_share: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Of uniform in mixed; the rest is popularity. Default: 0.5.",
            rich_help_panel=DRAWS,
        ),
    ] = None,
    available_only: Annotated[
        bool | None,
        typer.Option(
            "--available-only",
            help="Draw only items that had an event, of anyone, by the positive's time: none of its future.",
            rich_help_panel=DRAWS,
        ),
    ] = None,
    same_category_share: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of draws that are from the positive's own category: harder negatives. Default: 0.",
            rich_help_panel=DRAWS,
        ),
    ] = None,
    positive_types: Annotated[
        list[str] | None,
        typer.Option(
            "--positive-interaction-types",
            "--positive-types",
            metavar="TYPE",
            help="Makes a positive; repeat it for more. Default: click, purchase, like.",
            rich_help_panel=POSITIVES,
        ),
    ] = None,
    max_interactions_per_user: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SETTING,
            help="Newest positives kept of a user. Default: the server's, 50. 0: no limit.",
            rich_help_panel=POSITIVES,
        ),
    ] = None,
    min_interactions_per_user: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SETTING,
            help="Distinct items a user needs. Default: the server's, 5. 0: off.",
            rich_help_panel=POSITIVES,
        ),
    ] = None,
    min_interactions_per_item: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SETTING,
            help="Distinct users an item needs. Default: the server's, 5. 0: off.",
            rich_help_panel=POSITIVES,
        ),
    ] = None,
    split_at: Annotated[
        list[datetime] | None,
        typer.Option(
            parser=moment,
            metavar="ISO8601",
            help="Split by time: test begins then; given twice, valid and test. Train sees nothing of it.",
            rich_help_panel=SPLITS,
        ),
    ] = None,
    split_fraction: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE",
            help="The same, behind this share of the positives; twice for valid and test, as 0.8 and 0.9.",
            rich_help_panel=SPLITS,
        ),
    ] = None,
    leave_last_out: Annotated[
        bool,
        typer.Option(
            "--leave-last-out",
            help="Split by user: the last positive is test, the one before it valid. Leaks across users.",
            rich_help_panel=SPLITS,
        ),
    ] = False,
    eval_ratio: Annotated[
        int | None,
        typer.Option(
            "--eval-negative-ratio",
            "--eval-ratio",
            min=1,
            max=MAX_RATIO,
            help="The ratio of valid and test. Default: that of train.",
            rich_help_panel=SPLITS,
        ),
    ] = None,
    with_features: Annotated[
        str | None,
        typer.Option(
            help="Add features to each row: snapshot (of one instant) or point-in-time (of its day).",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    feature_columns: Annotated[
        list[str] | None,
        typer.Option(
            "--feature-columns",
            "--feature",
            metavar="COLUMN",
            help="Only these, such as user_total_interactions; repeat it for more. `describe` lists them.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    history: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1000,
            help="Add a list of the user's last so many events before.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    history_types: Annotated[
        list[str] | None,
        typer.Option(
            "--history-interaction-types",
            "--history-types",
            metavar="TYPE",
            help="Events of it; repeat it for more. Default: the positive types.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    history_timestamps: Annotated[
        bool | None,
        typer.Option(
            "--history-timestamps", help="Add the times of these events too.", rich_help_panel=COLUMNS
        ),
    ] = None,
    with_indices: Annotated[
        bool | None,
        typer.Option(
            "--with-indices",
            help="Add integers that ids keep for good, and tables of users and items.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    as_of: AsOfOption = None,
    known_at: KnownAtOption = None,
    interactions_version: InteractionsVersionOption = None,
    items_version: ItemsVersionOption = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SEED, help="Equal seeds give equal tables.", rich_help_panel=DRAWS),
    ] = 0,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the training set. Default: training_data.")
    ] = None,
    request_id: RequestIdOption = "",
) -> None:
    """Make training data: positives, and negatives sampled for them. Ctrl-C as for features.

    Examples:
      headrace negatives --tenant acme --seed 7
      headrace negatives --tenant acme --strategy mixed --negative-ratio 10 --split-fraction 0.8
      headrace negatives --tenant acme --with-features point-in-time --history 50 --with-indices
    """
    split = _split(split_at, split_fraction, leave_last_out)
    options = given(
        negative_ratio=ratio,
        strategy=strategy,
        alpha=alpha,
        zipf_exponent=zipf_exponent,
        uniform_share=uniform_share,
        available_only=available_only,
        same_category_share=same_category_share,
        positive_interaction_types=positive_types,
        max_interactions_per_user=max_interactions_per_user,
        min_interactions_per_user=min_interactions_per_user,
        min_interactions_per_item=min_interactions_per_item,
        split=split,
        eval_negative_ratio=eval_ratio,
        with_features=with_features and with_features.replace("-", "_"),
        feature_columns=feature_columns,
        history=history,
        history_interaction_types=history_types,
        history_timestamps=history_timestamps,
        with_indices=with_indices,
        interactions_version=interactions_version,
        items_version=items_version,
        known_at=known_at,
        dataset=dataset,
        seed=seed,
        request_id=request_id,
    )
    with answering(output.is_json), server.client() as client, asking(client, tenant, request_id):
        started = time.monotonic()
        with run_bar("negatives") as show:
            result = client.sample_negatives(tenant, as_of=as_of, on_progress=show, **options)
        elapsed_s = time.monotonic() - started
    if output.is_json:
        print_json(result)
        return
    facts = [
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
    stdout().print(facts_table("Negatives", facts), negatives_versions(result))
    show_splits(result.splits)
    show_warnings(result.warnings)


def _split(
    cuts: list[datetime] | None, fractions: list[float] | None, leave_last_out: bool
) -> TemporalSplit | Literal["leave_last_out"] | None:
    """The split that options ask for."""
    if sum(map(bool, (cuts, fractions, leave_last_out))) > 1:
        raise typer.BadParameter("Give one of --split-at, --split-fraction and --leave-last-out.")
    if leave_last_out:
        return "leave_last_out"
    if cuts:
        return {"cuts": cuts}
    return {"fractions": fractions} if fractions else None
