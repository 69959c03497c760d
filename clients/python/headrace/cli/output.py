"""What results are printed as: tables for people, or JSON, CSV and Arrow for programs."""

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, TypeAlias, TypeVar

import typer

from headrace.cli.command import OUTPUT
from headrace.cli.console import paged
from headrace.cli.document import document, write_array

if TYPE_CHECKING:
    import pyarrow as pa
    from google.protobuf.message import Message

BATCH_ROWS = 10_000
"""Rows of an Arrow batch."""

JsonOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--json",
        help="The same as --output json: one object, with the proto files' field names.",
        rich_help_panel=OUTPUT,
    ),
]

Shown = TypeVar("Shown", bound="Message")


@dataclass(frozen=True)
class Output:
    """How one result is printed."""

    output: Annotated[
        Literal["table", "json"],
        typer.Option(case_sensitive=False, help="How to print.", rich_help_panel=OUTPUT),
    ] = "table"
    as_json: JsonOption = False

    @property
    def is_json(self) -> bool:
        """Whether stdout gets one JSON object."""
        return self.as_json or self.output == "json"


@dataclass(frozen=True)
class ListOutput:
    """How rows are printed."""

    output: Annotated[
        Literal["table", "json", "csv", "arrow"],
        typer.Option(
            case_sensitive=False,
            help="How to print; arrow is an IPC stream.",
            rich_help_panel=OUTPUT,
        ),
    ] = "table"
    as_json: JsonOption = False

    @property
    def format(self) -> Literal["table", "json", "csv", "arrow"]:
        """The format that was asked for."""
        return "json" if self.as_json else self.output

    @property
    def is_json(self) -> bool:
        """Whether stdout gets one JSON object."""
        return self.format == "json"

    @property
    def is_for_people(self) -> bool:
        """Whether somebody reads it, who wants the first ones."""
        return self.format == "table"

    def write(
        self,
        head: dict[str, Any],
        key: str,
        kind: type[Shown],
        elements: Iterable[Shown],
        show: Callable[[Sequence[Shown]], None],
    ) -> None:
        """Prints a list of messages; only a table of them is held in memory.

        Args:
            head: What the JSON object has before them.
            key: What it calls them.
            kind: What they are: its fields are the columns of CSV and Arrow.
            elements: The messages.
            show: Prints them for people.
        """
        match self.format:
            case "table":
                found = list(elements)
                with paged():
                    show(found)
            case "json":
                write_array(sys.stdout, head, key, map(document, elements))
            case "csv":
                _write_csv(list(kind.DESCRIPTOR.fields_by_name), map(document, elements))
            case "arrow":
                _write_arrow(kind, map(document, elements))


def binary_stdout() -> BinaryIO:
    """Where bytes go.

    Raises:
        BadParameter: It is a terminal.
    """
    if sys.stdout.isatty():
        raise typer.BadParameter("Arrow is binary; redirect it to a file or a program, or ask for a table.")
    return sys.stdout.buffer


def _begun(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The same rows, the first of which is there: what fails at once fails before anything is written."""
    pending = iter(rows)
    return itertools.chain(list(itertools.islice(pending, 1)), pending)


def _write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Values as they are, lists and objects as JSON, absent ones as nothing."""
    rows = _begun(rows)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | dict) else str(value)


def _write_arrow(kind: "type[Message]", rows: Iterable[Mapping[str, Any]]) -> None:
    """Values as they are, moments as timestamps, lists and other objects as JSON, absent ones as null."""
    from headrace.arrow import pa

    rows, out = _begun(rows), binary_stdout()
    schema = _schema(kind)
    with pa.ipc.new_stream(out, schema) as stream:
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            values = [
                {field.name: _value(field.type, row.get(field.name)) for field in schema} for row in batch
            ]
            stream.write_batch(pa.RecordBatch.from_pylist(values, schema))


def _schema(kind: "type[Message]") -> "pa.Schema":
    from headrace.arrow import pa

    plain: dict[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    empty = kind()
    types = {}
    for field in kind.DESCRIPTOR.fields:
        of = field.message_type
        is_moment = of is not None and of.full_name == "google.protobuf.Timestamp"
        types[field.name] = plain.get(type(getattr(empty, field.name)), pa.string())
        if field.enum_type is not None:
            types[field.name] = pa.string()
        elif is_moment:
            types[field.name] = pa.timestamp("us", "UTC")
    return pa.schema(types)


def _value(kind: "pa.DataType", value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return datetime.fromisoformat(value) if value is not None and str(kind).startswith("timestamp") else value
