"""Commands on what is stored: tables, read, health."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.console import (
    FAILED,
    LARGEST,
    AddressOption,
    JsonOption,
    TenantOption,
    answering,
    given,
    print_json,
    stdout,
)
from headrace.cli.document import document, write_array
from headrace.cli.export.file import export, json_rows
from headrace.cli.grid import show_rows
from headrace.cli.report import facts_table, show_tables
from headrace.client import Client
from headrace.connection import DEFAULT_ADDRESS

ROWS_SHOWN = 20
"""Rows printed for people unless --limit says otherwise."""

app = typer.Typer()


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
    split: Annotated[
        str | None, typer.Option(help="Only this split of a training set: train, valid or test.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=LARGEST, help="At most this many rows.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", dir_okay=False, help="A .parquet, .csv or .jsonl file.")
    ] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Read rows of a table: into a file, or the first 20 to the screen."""
    options = given(version=version, columns=columns, split=split, limit=limit)
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
