"""The command line, `headrace`. `console.py` lists the exit codes."""

import logging
import signal
from typing import Annotated

import typer

from headrace import __version__
from headrace.cli import data, features, negatives, runs, tables, verify
from headrace.cli.export import command as export

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Words of the contract, such as json_lines, are also taken with dashes.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
)
app.add_typer(data.app)
app.add_typer(features.app)
app.add_typer(negatives.app)
app.add_typer(tables.app)
app.add_typer(export.app)
app.add_typer(runs.app)
app.add_typer(verify.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headrace {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Stream interactions and items in; get features and training data out."""


def main() -> None:
    """Runs the command line."""
    # A reader that goes away, as in `| head`, ends us as it ends other tools: at once, without a word.
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # gRPC logs a traceback for an answer that it cannot decode; the error that we print says more.
    logging.getLogger("grpc").addHandler(logging.NullHandler())
    app()


__all__ = ["app", "main"]
