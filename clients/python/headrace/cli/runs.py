"""Commands on runs with a request_id: runs, run show, run cancel; and what Ctrl-C does to one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from headrace.cli.command import command
from headrace.cli.console import LARGEST, TenantOption, answering, print_json, stderr, stdout
from headrace.cli.output import ListOutput, Output
from headrace.cli.report import show_run, show_runs
from headrace.cli.server import Server
from headrace.v1 import run_pb2

if TYPE_CHECKING:
    from headrace.client import Client

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
RequestId: TypeAlias = Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The run's request id.")]

app = typer.Typer(rich_markup_mode=None)
run_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show or cancel a run that has a request id."
)
app.add_typer(run_app, name="run")


@command(app)
def runs(
    tenant: TenantOption,
    server: Server,
    output: ListOutput,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST, help="At most this many. Default: 20, for programs all."),
    ] = None,
) -> None:
    """List a tenant's runs, the newest first.

    Examples:
      headrace runs --tenant acme --limit 5
      headrace runs --tenant acme --json | jq '.runs[] | select(.state == "RUN_STATE_RUNNING")'
    """
    with answering(output.is_json), server.client() as client:
        wanted = limit or (RUNS_SHOWN if output.is_for_people else 0)
        output.write({}, "runs", run_pb2.Run, client.runs(tenant, limit=wanted), show_runs)


@command(run_app)
def show(request_id: RequestId, tenant: TenantOption, server: Server, output: Output) -> None:
    """Show where a run stands, or what it ended with.

    Examples:
      headrace run show 6f1c0a52-6f0a-4f57-9a53-0d1f0e8a7c11 --tenant acme
    """
    with answering(output.is_json), server.client() as client:
        found = client.get_run(tenant, request_id)
    if output.is_json:
        print_json(found)
    else:
        show_run(found)


@command(run_app)
def cancel(request_id: RequestId, tenant: TenantOption, server: Server, output: Output) -> None:
    """Stop a run: nothing of it is or will be visible.

    Examples:
      headrace run cancel 6f1c0a52-6f0a-4f57-9a53-0d1f0e8a7c11 --tenant acme
    """
    with answering(output.is_json), server.client() as client:
        client.cancel_run(tenant, request_id)
    if output.is_json:
        print_json({"request_id": request_id})
    else:
        stdout().print(f"run {request_id} is cancelled")


@contextmanager
def asking(client: "Client", tenant: str, request_id: str) -> Iterator[None]:
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
