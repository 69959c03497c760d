"""What every command shares: options, where output goes, how errors become exit codes.

Results go to stdout, everything else (progress, errors) to stderr. Exit codes:

0  success; also an upload without any row, and one that kept some of its rows out
1  the data was refused: the upload as a whole, every row of it, or a file that is no table
   of rows; for validate, if any row would be rejected; for verify, if a row differs
2  a usage, transport or server error, or input that cannot be read
130  interrupted; and killed by SIGPIPE when the reader of stdout goes away, as other tools are
"""

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TextIO, TypeAlias

import typer
from google.protobuf.message import Message
from grpc import StatusCode
from rich.console import Console
from rich.text import Text

from headrace.cli.document import document
from headrace.errors import BadDataError, HeadraceError, InvalidArgumentError

DATA_REFUSED = 1
FAILED = 2
INTERRUPTED = 130

LARGEST = 2**63 - 1
"""The largest value of the contract's 64-bit numbers."""

PIPED_WIDTH = 120
"""Columns of output that does not go to a terminal, unless COLUMNS says how many."""

TenantOption: TypeAlias = Annotated[str, typer.Option("--tenant", help="Whose data.")]


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


_PAGED: ContextVar[Console | None] = ContextVar("_PAGED", default=None)


def stdout() -> Console:
    """Where results go."""
    if (console := _PAGED.get()) is not None:
        return console
    is_told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if is_told else PIPED_WIDTH, highlight=False, markup=False, emoji=False)


@contextmanager
def paged() -> Iterator[None]:
    """What is printed to stdout inside goes through the pager ($PAGER), if a person looks at a terminal."""
    console = stdout()
    if not (console.is_terminal and sys.stdin.isatty()):
        yield
        return
    # As git does: no pager for what fits on the screen, colours, and the text stays there.
    os.environ.setdefault("LESS", "FRX")
    with console.pager(styles=True):
        mark = _PAGED.set(console)
        try:
            yield
        finally:
            _PAGED.reset(mark)


def stderr() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def moment(text: str) -> datetime:
    """An option's ISO 8601 date or time; without an offset it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"Unknown time {text!r}; write it in ISO 8601, such as 2026-01-31T12:00:00Z."
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def duration(text: str) -> timedelta:
    """An option's length of time: a whole number and its unit, `s`, `m`, `h` or `d`."""
    found = re.fullmatch(r"(\d+)([smhd])", text, re.ASCII)
    try:
        if found:
            return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        pass
    raise typer.BadParameter(
        f"Unknown length of time {text!r}; write a number and its unit, such as 90s, 30m, 12h or 3d."
    )


def input_of(file: Path) -> Path | BinaryIO:
    """What a file argument names: `-` is stdin. Whoever opens it says what is wrong with it."""
    return sys.stdin.buffer if str(file) == "-" else file


def given(**options: object) -> dict[str, Any]:
    """The options that a caller gave; the SDK has its own defaults for the others, which are None."""
    return {name: value for name, value in options.items() if value is not None}


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
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    except HeadraceError as error:
        _report(as_json, error)
        raise typer.Exit(DATA_REFUSED if isinstance(error, BadDataError) else FAILED) from error
    except typer.BadParameter as error:
        _report(as_json, InvalidArgumentError(error.message, code=StatusCode.INVALID_ARGUMENT))
        raise typer.Exit(FAILED) from error
    except BrokenPipeError:
        raise
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        _report(as_json, HeadraceError(_what(error)))
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as interrupt:
        stderr().print("interrupted")
        raise typer.Exit(INTERRUPTED) from interrupt


def _what(error: Exception) -> str:
    """What to print of an error that is not the SDK's."""
    match error:
        case OSError(filename=file, strerror=reason) if file and reason:
            return f"{os.fsdecode(file)!r} cannot be used: {reason}."
        case OSError(strerror=reason) if reason:
            return f"{reason}."
        case UnicodeEncodeError(object=text):
            return f"{text[:80]!r} is not UTF-8; write it in UTF-8."
        case MemoryError():
            return "There is too little memory for this; ask for less at a time."
    return str(error)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Stands in for `warnings.showwarning`, which would show a line of our code."""
    stderr().print(Text("warning: ", style="yellow").append(plain(message)), soft_wrap=True)


def _report(as_json: bool, error: HeadraceError) -> None:
    message = Text("error: ", style="bold red").append(plain(error.message))
    if error.reason:
        message.append(f" ({error.reason})", style="dim")
    stderr().print(message, soft_wrap=True)
    if as_json:
        facts = {"code": error.code.name, "reason": error.reason, "message": error.message}
        print_json({"error": {**facts, "metadata": error.metadata, "retryable": error.retryable}})
