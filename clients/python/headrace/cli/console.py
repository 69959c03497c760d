"""What every command shares: options, where output goes, how errors become exit codes.

Results go to stdout, everything else (progress, errors) to stderr. Exit codes:
0 success, 1 the data was refused, 2 a usage, transport or server error.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import typer
from google.protobuf.message import Message
from rich.console import Console
from rich.text import Text

from headrace.cli.document import document
from headrace.errors import BadDataError, HeadraceError

DATA_REFUSED = 1
FAILED = 2
INTERRUPTED = 130

PIPED_WIDTH = 120
"""Columns of output that does not go to a terminal."""

AddressOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--address", envvar="HEADRACE_GRPC_ADDRESS", metavar="HOST:PORT", help="Where the server is."
    ),
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, with the proto files' field names.")
]
TenantOption: TypeAlias = Annotated[str, typer.Option("--tenant", help="Whose data.")]


def stdout() -> Console:
    """Where results go."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def stderr() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False)


def moment(text: str) -> datetime:
    """An option's ISO 8601 date or time; without an offset it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no ISO 8601 time, such as 2026-01-31T12:00:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def plain(value: object) -> Text:
    """A value as it may be shown: no markup, and control characters only as escapes."""
    text = str(value)
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def print_json(content: Message | dict[str, Any]) -> None:
    """Prints one JSON object."""
    fields = document(content) if isinstance(content, Message) else content
    sys.stdout.write(json.dumps(fields, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """Turns what goes wrong inside into a message and an exit code.

    Args:
        as_json: Whether stdout gets `{"error": {...}}` as well.
    """
    try:
        yield
    except HeadraceError as error:
        _report(as_json, error)
        raise typer.Exit(DATA_REFUSED if isinstance(error, BadDataError) else FAILED) from error
    except BrokenPipeError:
        raise
    except (OSError, ValueError, OverflowError) as error:
        _report(as_json, HeadraceError(str(error)))
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as interrupt:
        stderr().print("interrupted")
        raise typer.Exit(INTERRUPTED) from interrupt


def _report(as_json: bool, error: HeadraceError) -> None:
    message = Text("error: ", style="bold red").append(plain(error.message))
    if error.reason:
        message.append(f" ({error.reason})", style="dim")
    stderr().print(message, soft_wrap=True)
    if as_json:
        facts = {"code": error.code.name, "reason": error.reason, "message": error.message}
        print_json({"error": {**facts, "metadata": error.metadata, "retryable": error.retryable}})
