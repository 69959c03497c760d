"""Options of every command that starts a run."""

from datetime import datetime
from typing import Annotated, TypeAlias

import typer

from headrace.cli.console import LARGEST, moment

SOURCE = "Source"
"""The part of the help that says what a run reads."""

AsOfOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option(
        parser=moment,
        metavar="ISO8601",
        help="Count what is before it. Default: everything.",
        rich_help_panel=SOURCE,
    ),
]
InteractionsVersionOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=LARGEST,
        help="Version of the interactions to read. Default: the newest.",
        rich_help_panel=SOURCE,
    ),
]
ItemsVersionOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0, max=LARGEST, help="Version of the items to read. Default: the newest.", rich_help_panel=SOURCE
    ),
]

KnownAtOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option(
        parser=moment,
        metavar="ISO8601",
        help="Read what was committed by then. Default: all.",
        rich_help_panel=SOURCE,
    ),
]
