"""How commands are declared: options that belong together are one argument, and help ends with examples."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, TypeAlias, get_type_hints

import typer
from typer.core import TyperCommand

OUTPUT, CONNECTION = "Output", "Connection"
"""Parts of the help that many commands have; they come last."""

EXAMPLES = "Examples:"
"""Begins the last part of a command's docstring: lines of a shell."""


class Command(TyperCommand):
    """A command whose help has its options part by part, and its examples as they are written."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes usage, what the command does, options, and examples."""
        text, _, examples = (self.help or "").partition(EXAMPLES)
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.strip())
        self.format_options(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_heading(EXAMPLES.removesuffix(":"))
        for line in inspect.cleandoc(examples).splitlines():
            formatter.write(f"  {line}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments and options, those of no part first. Names are never cut."""
        parts: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        last: dict[str, list[tuple[str, str]]] = {OUTPUT: [], CONNECTION: []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            is_argument = param.param_type_name == "argument"
            part = getattr(param, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
            if record is not None:
                last.get(part, parts.setdefault(part, [])).append(record)
        for part, records in [*parts.items(), *last.items()]:
            if records:
                with formatter.section(part):
                    formatter.write_dl(records)


Function: TypeAlias = Callable[..., None]


def command(app: typer.Typer, name: str | None = None) -> Callable[[Function], Function]:
    """Declares a function as a command.

    Its docstring is the help. A parameter whose type is a dataclass stands for the options that are
    its fields.
    """

    def declare(function: Function) -> Function:
        app.command(name, cls=Command)(_spread(function))
        return function

    return declare


def _spread(function: Function) -> Function:
    """The function with the fields of its dataclasses as parameters of their own."""
    signature = inspect.signature(function)
    groups = {
        param.name: param.annotation
        for param in signature.parameters.values()
        if inspect.isclass(param.annotation) and is_dataclass(param.annotation)
    }

    @wraps(function)
    def call(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        function(**values)

    flat = [
        each
        for param in signature.parameters.values()
        for each in (_parameters(groups[param.name]) if param.name in groups else [_keyword(param)])
    ]
    call.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    return call


def _keyword(param: inspect.Parameter) -> inspect.Parameter:
    return param.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _parameters(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
