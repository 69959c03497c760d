"""Commands on what is stored: tables, read, health."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.command import command
from headrace.cli.console import FAILED, LARGEST, TenantOption, answering, given, paged, print_json, stdout
from headrace.cli.document import document, write_array
from headrace.cli.output import ListOutput, Output, binary_stdout
from headrace.cli.report import facts_table, show_tables
from headrace.cli.server import Server
from headrace.v1 import table_pb2

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_SHOWN = 20
"""Rows printed for people unless --limit says otherwise."""

app = typer.Typer(rich_markup_mode=None)


@command(app)
def tables(tenant: TenantOption, server: Server, output: ListOutput) -> None:
    """List the tables of a tenant.

    Examples:
      headrace tables --tenant acme
      headrace tables --tenant acme --json | jq '.tables[] | {name, rows}'
    """
    with answering(output.is_json), server.client() as client:
        output.write({}, "tables", table_pb2.Table, client.list_tables(tenant), show_tables)


@command(app)
def read(
    table: Annotated[str, typer.Argument(help="As `headrace tables` names it.")],
    tenant: TenantOption,
    server: Server,
    output: ListOutput,
    version: Annotated[int | None, typer.Option(min=0, max=LARGEST, help="Default: the newest.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns", "--column", metavar="NAMES", help="Those to read, as item_id,price. Default: all."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only this split of a training set: train, valid or test.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST, help="At most this many rows. Default: 20, for programs all."),
    ] = None,
    offset: Annotated[int | None, typer.Option(min=0, max=LARGEST, help="Rows to skip before these.")] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            "-o",
            metavar="FILE",
            dir_okay=False,
            help="A .parquet, .arrow, .csv or .jsonl file. - is stdout: CSV, or as --output says.",
        ),
    ] = None,
) -> None:
    """Read rows of a table: into a file, or to the screen.

    Examples:
      headrace read items --tenant acme --columns item_id,title --offset 20
      headrace read training_data --tenant acme --split train -o train.parquet
      headrace read interactions --tenant acme --output csv | gzip > interactions.csv.gz
    """
    with answering(output.is_json), server.client() as client:
        options = given(version=version, columns=_names(columns), split=split, limit=limit, offset=offset)
        if to is None and output.is_for_people:
            from headrace.cli.grid import show_rows

            rows = client.read_table(tenant, table, **({"limit": ROWS_SHOWN} | options))
            with paged():
                show_rows(stdout(), rows)
            return
        batches = client.read_batches(tenant, table, **options)
        if to is None or str(to) == "-":
            _print_rows(table, batches, output)
            return
        from headrace.cli.export.file import export

        count = export(batches, to)
        if output.is_json:
            print_json({"file": str(to), "rows": count})
        else:
            stdout().print(f"{count:,} rows of {table} written to {to}", soft_wrap=True)


def _names(columns: list[str] | None) -> list[str] | None:
    """Columns that were given one by one or as lists with commas."""
    return [name.strip() for names in columns for name in names.split(",")] if columns else None


def _print_rows(table: str, batches: "Iterable[pa.RecordBatch]", output: ListOutput) -> None:
    """Prints all rows for a program."""
    from headrace.cli.export.file import json_rows, write_batches

    if output.is_json:
        rows = (row for batch in batches for row in json_rows(batch))
        write_array(sys.stdout, {"table": table}, "rows", rows)
    elif output.format == "arrow":
        write_batches(batches, binary_stdout(), ".arrow")
    else:
        write_batches(batches, sys.stdout.buffer, ".csv")


@command(app)
def health(server: Server, output: Output) -> None:
    """Ask how the server is. Exit code 2 if it is unhealthy or cannot be reached.

    Examples:
      headrace health --address 127.0.0.1:50051
      headrace health --json | jq -r .status
    """
    with answering(output.is_json), server.client() as client:
        answer, where = client.health(), client.address
    if output.is_json:
        print_json(answer)
    else:
        facts = [(name, value) for name, value in document(answer).items()]
        stdout().print(facts_table(f"Server at {where}", facts))
    if answer.status == "unhealthy":
        raise typer.Exit(FAILED)
