"""The command that exports a training set to a folder."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headrace.cli.command import command
from headrace.cli.console import LARGEST, TenantOption, answering, print_json, stdout
from headrace.cli.output import Output
from headrace.cli.progress import rows_bar
from headrace.cli.server import Server

MOST_SHARDS = 100_000
"""What the numbers in names of files have places for."""

app = typer.Typer(rich_markup_mode=None)


@command(app, "export")
def export_dataset(
    dataset: Annotated[str, typer.Argument(help="A training set, as `headrace tables` names it.")],
    tenant: TenantOption,
    to: Annotated[
        Path,
        typer.Option(
            "--to", "-o", metavar="DIR", help="A folder that is not there yet. It comes whole or not."
        ),
    ],
    server: Server,
    output: Output,
    format: Annotated[
        Literal["parquet", "recbole", "csv"],
        typer.Option(
            help="parquet, csv: shards and a manifest, for DuckDB, Polars, Ray Data, Hugging Face datasets; "
            "recbole: atomic files, and a configuration to train with."
        ),
    ] = "parquet",
    shards: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_SHARDS, help="Files of each split, at most. Default: one for each million rows."
        ),
    ] = None,
    version: Annotated[int | None, typer.Option(min=0, max=LARGEST, help="Default: the newest.")] = None,
) -> None:
    """Export a training set, split by split, to files that trainers read.

    Examples:
      headrace export training_data --tenant acme -o out/
      headrace export training_data --tenant acme -o rec/ --format recbole --version 3
    """
    with answering(output.is_json), server.client() as client:
        # They take pyarrow, without which the help is told all the same.
        from headrace.cli.export.dataset import Dataset
        from headrace.cli.export.folder import whole
        from headrace.cli.export.recbole import write_recbole
        from headrace.cli.export.shards import write_shards

        if format == "recbole" and shards is not None:
            raise typer.BadParameter("RecBole reads one file for each split; leave --shards out.")
        found = Dataset(client, tenant, dataset, version)
        with whole(to) as folder, rows_bar("export", found.rows) as show:
            found.show = show
            written: dict[str, Any] = (
                write_recbole(found, folder, to)
                if format == "recbole"
                else write_shards(found, folder, format, shards)
            )
    told = {"folder": str(to), "format": format, "version": found.version, "rows": found.rows}
    if output.is_json:
        print_json({**written, **told})
    else:
        line = f"{found.rows:,} rows of {dataset}, version {found.version}, exported to {to}"
        stdout().print(line, soft_wrap=True)
