"""Commands on runs with a request_id: runs, run show, run cancel; and what Ctrl-C does to one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import typer

from headrace.cli.console import (
    LARGEST,
    AddressOption,
    JsonOption,
    TenantOption,
    answering,
    print_json,
    stderr,
    stdout,
)
from headrace.cli.document import document
from headrace.cli.report import show_run, show_runs
from headrace.client import Client
from headrace.connection import DEFAULT_ADDRESS

RUNS_SHOWN = 20
"""Runs printed for people unless --limit says otherwise."""

RequestIdOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--request-id",
        metavar="UUID",
        help="Start a run that goes on without this command, or follow the one that was started with it.",
    ),
]
RequestId: TypeAlias = Annotated[str, typer.Argument(metavar="UUID", help="The run's request id.")]

app = typer.Typer()
run_app = typer.Typer(no_args_is_help=True, help="Show or cancel a run that has a request id.")
app.add_typer(run_app, name="run")


@app.command()
def runs(
    tenant: TenantOption,
    limit: Annotated[
        int | None, typer.Option(min=1, max=LARGEST, help="At most this many. Default: 20, with --json all.")
    ] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's runs, the newest first."""
    with answering(as_json), Client(address) as client:
        found = list(client.runs(tenant, limit=limit or (0 if as_json else RUNS_SHOWN)))
    if as_json:
        print_json({"runs": [document(run) for run in found]})
    else:
        show_runs(found)


@run_app.command()
def show(
    request_id: RequestId,
    tenant: TenantOption,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Show where a run stands, or what it ended with."""
    with answering(as_json), Client(address) as client:
        found = client.get_run(tenant, request_id)
    if as_json:
        print_json(found)
    else:
        show_run(found)


@run_app.command()
def cancel(
    request_id: RequestId,
    tenant: TenantOption,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Stop a run: nothing of it is or will be visible."""
    with answering(as_json), Client(address) as client:
        client.cancel_run(tenant, request_id)
    if as_json:
        print_json({"request_id": request_id})
    else:
        stdout().print(f"run {request_id} is cancelled")


@contextmanager
def asking(client: Client, tenant: str, request_id: str) -> Iterator[None]:
    """On Ctrl-C asks once whether to cancel a run that has a request id, or to leave it."""
    try:
        yield
    except KeyboardInterrupt:
        if request_id and _is_unwanted():
            client.cancel_run(tenant, request_id)
            stderr().print(f"run {request_id} is cancelled", soft_wrap=True)
        elif request_id:
            stderr().print(
                f"run {request_id} goes on: the same command follows it, "
                f"`headrace run cancel {request_id} --tenant {tenant}` stops it",
                soft_wrap=True,
            )
        raise


def _is_unwanted() -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        return typer.confirm("Cancel the run? It goes on otherwise.", default=False, err=True)
    except typer.Abort:
        return False
