"""The command line, `headrace`. Exit codes: 0 success, 1 data refused, 2 anything else that failed."""

import typer

from headrace.cli import data, tables

app = typer.Typer(
    name="headrace",
    help="Stream interactions and items in; get features and training data out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app)
app.add_typer(tables.app)


def main() -> None:
    """Runs the command line."""
    app()


__all__ = ["app", "main"]
