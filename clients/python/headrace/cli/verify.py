"""The command verify: whether a version has the rows that its lineage gives."""

import time
from typing import Annotated

import typer
from rich.text import Text

from headrace.cli.command import command
from headrace.cli.console import (
    DATA_REFUSED,
    TenantOption,
    answering,
    plain,
    print_json,
    stdout,
)
from headrace.cli.output import Output
from headrace.cli.report import versions_table
from headrace.cli.server import Server
from headrace.v1 import verification_pb2

VALUES_SHOWN = 5
"""Values of a row shown that differ; the answer has all."""

app = typer.Typer(rich_markup_mode=None)


@command(app)
def verify(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE[@VERSION]", help="Features or a training set. Default version: the newest."
        ),
    ],
    tenant: TenantOption,
    server: Server,
    output: Output,
) -> None:
    """Derive a table again from what it was made of, and compare. Exit code 1 if a row differs.

    Examples:
      headrace verify training_data --tenant acme
      headrace verify user_features@3 --tenant acme --json
    """
    with answering(output.is_json):
        name, version = _name_and_version(table)
    with answering(output.is_json), server.client() as client:
        started = time.monotonic()
        found = client.verify(tenant, name, version=version)
        elapsed_s = time.monotonic() - started
    if output.is_json:
        print_json(found)
    else:
        _show(found, elapsed_s)
    if found.HasField("difference"):
        raise typer.Exit(DATA_REFUSED)


def _name_and_version(text: str) -> tuple[str, int | None]:
    name, at, version = text.partition("@")
    if not at:
        return name, None
    if not (version.isascii() and version.isdigit()):
        raise typer.BadParameter(
            f"{text!r} names no version; write the table and its number, such as training_data@3."
        )
    return name, int(version)


def _show(found: verification_pb2.VerifyTableResponse, elapsed_s: float) -> None:
    told = f"{found.version.table}@{found.version.version}"
    if found.HasField("difference"):
        stdout().print(
            Text("DIFFERENT  ", "bold red").append(plain(f"{told}: {_difference(found.difference)}"))
        )
    else:
        rows = f"{found.version.rows:,} rows derived again in {elapsed_s:.1f} s"
        stdout().print(
            Text("EQUAL  ", "bold green").append(plain(f"{told}: {rows}, the same to the last bit"))
        )
    stdout().print(versions_table(found.inputs, [found.version]))


def _difference(difference: verification_pb2.RowDifference) -> str:
    split = f", split {difference.split}" if difference.split else ""
    key = ", ".join(f"{name} {text}" for name, text in sorted(difference.key.items()))
    place = f"bucket {difference.bucket}{split}, row {difference.row:,} ({key})"
    if not difference.stored:
        return f"{place} is missing"
    if not difference.derived:
        return f"{place} should not be there"
    values = [
        f"{value.column} is {_shown(value.HasField('stored'), value.stored)} and should be "
        f"{_shown(value.HasField('derived'), value.derived)}"
        for value in difference.values[:VALUES_SHOWN]
    ]
    left = len(difference.values) - len(values)
    return f"{place}: {'; '.join(values)}{f'; {left} more differ' if left else ''}"


def _shown(is_there: bool, text: str) -> str:
    return text if is_there else "null"
