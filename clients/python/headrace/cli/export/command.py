"""The command that exports a training set to a folder."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headrace.cli.console import (
    LARGEST,
    AddressOption,
    JsonOption,
    TenantOption,
    answering,
    print_json,
    stdout,
)
from headrace.cli.export.dataset import Dataset
from headrace.cli.export.folder import whole
from headrace.cli.export.recbole import write_recbole
from headrace.cli.export.shards import write_shards
from headrace.cli.progress import rows_bar
from headrace.client import Client
from headrace.connection import DEFAULT_ADDRESS

MOST_SHARDS = 100_000
"""What the numbers in names of files have places for."""

app = typer.Typer()


@app.command("export")
def export_dataset(
    dataset: Annotated[str, typer.Argument(help="A training set, as `headrace tables` names it.")],
    tenant: TenantOption,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR", help="A folder that is not there yet. It comes whole or not."
        ),
    ],
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
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Export a training set, split by split, to files that trainers read."""
    with answering(as_json), Client(address) as client:
        if format == "recbole" and shards is not None:
            raise typer.BadParameter("RecBole reads one file for each split; leave --shards out.")
        found = Dataset(client, tenant, dataset, version)
        with whole(output) as folder, rows_bar("export", found.rows) as show:
            found.show = show
            written: dict[str, Any] = (
                write_recbole(found, folder, output)
                if format == "recbole"
                else write_shards(found, folder, format, shards)
            )
    told = {"folder": str(output), "format": format, "version": found.version, "rows": found.rows}
    if as_json:
        print_json({**written, **told})
    else:
        line = f"{found.rows:,} rows of {dataset}, version {found.version}, exported to {output}"
        stdout().print(line, soft_wrap=True)
