"""Options of every command that starts a run."""

from datetime import datetime
from typing import Annotated, TypeAlias

import typer

from headrace.cli.console import LARGEST, moment

AsOfOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="ISO8601", help="Count what is before it. Default: everything."),
]
InteractionsVersionOption: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, max=LARGEST, help="Version of the interactions to read. Default: the newest."),
]
ItemsVersionOption: TypeAlias = Annotated[
    int | None, typer.Option(min=0, max=LARGEST, help="Version of the items to read. Default: the newest.")
]

KnownAtOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="ISO8601", help="Read what was committed by then. Default: all."),
]
