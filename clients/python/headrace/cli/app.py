"""The commands there are. Each is imported when it is run, so that help and completion come at once."""

import logging
import signal
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from headrace import __version__

COMMANDS = {
    "generate": ("data", "Make sample data: items.csv, interactions.csv, and expected.json."),
    "upload": ("data", "Upload a file."),
    "uploads": ("data", "List a tenant's uploads, the newest first."),
    "status": ("data", "Show where an upload stands, or what it ended with."),
    "abort": ("data", "Give an upload up that has not finished."),
    "validate": ("data", "Report on a file and store nothing."),
    "rejects": ("data", "List the rows an upload kept out, and why."),
    "schema": ("data", "Show the data contract of interactions or items."),
    "describe": ("features", "Show what each feature means."),
    "features": ("features", "Compute user_features and item_features anew."),
    "stats": ("features", "Show what the columns of features are like, and how far they have drifted."),
    "negatives": ("negatives", "Make training data: positives, and negatives sampled for them."),
    "tables": ("tables", "List the tables of a tenant."),
    "read": ("tables", "Read rows of a table: into a file, or to the screen."),
    "export": ("export.command", "Export a training set, split by split, to files that trainers read."),
    "verify": ("verify", "Derive a table again from what it was made of, and compare."),
    "runs": ("runs", "List a tenant's runs, the newest first."),
    "run": ("runs", "Show or cancel a run that has a request id."),
    "health": ("tables", "Ask how the server is."),
}
"""The module and the summary of each; a test compares these with the commands themselves."""

EXIT_CODES = """
Exit codes:
  0    success; also an upload without any row, and one that kept some rows out
  1    the data was refused, or every row of it; validate: a row would be
       rejected; verify: a row differs
  2    a usage, transport or server error, or input that cannot be read
  130  interrupted
"""


class Commands(TyperGroup):
    """The commands by their summaries; one that is run is loaded first."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in COMMANDS.items():
            self.add_command(TyperCommand(name, short_help=summary, rich_markup_mode=None), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that arguments name, and what is left of them."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, load(name) if name and known else None, rest

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Lists the exit codes, as they stand above."""
        formatter.write(EXIT_CODES)


def load(name: str) -> Any:
    """A command itself."""
    module, _ = COMMANDS[name]
    group: Any = typer.main.get_group(import_module(f"headrace.cli.{module}").app)
    return group.commands[name]


app = typer.Typer(
    name="headrace",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Words of the contract, such as json_lines, are also taken with dashes.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
)


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


def run() -> None:
    """Runs the command that the process was called with."""
    # A reader that goes away, as in `| head`, ends us as it ends other tools: at once, without a word.
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # gRPC logs a traceback for an answer that it cannot decode; the error that we print says more.
    logging.getLogger("grpc").addHandler(logging.NullHandler())
    app()
