"""Lineage: what the commit of a derived version says of its making, read back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from headrace_compute.delta import tables
from headrace_compute.errors import NotDerivableError
from headrace_compute.model import Snapshot, StoreConfig

T = TypeVar("T")


class _UnknownError(Exception):
    """A parameter that the code does not know, or a value of one."""


@dataclass(frozen=True)
class Lineage:
    """What a version was derived from.

    Attributes:
        table, version: Of what.
        items_version: None if the tenant had no items.
        parameters: Of the run, by name.
        code_version: Of the Headrace that wrote it.
    """

    table: str
    version: int
    interactions_version: int
    items_version: int | None
    as_of_us: int
    parameters: Mapping[str, Any]
    code_version: str

    def params(self, kind: type[T]) -> T:
        """The parameters as a kind of run has them; those younger than the version have their defaults.

        Raises:
            NotDerivableError: One is not known.
        """
        try:
            return _restored(kind, self.parameters, "")
        except _UnknownError as error:
            raise self.not_derivable(str(error)) from None

    def not_derivable(self, parameter: str) -> NotDerivableError:
        """The error for a parameter that is not known."""
        return NotDerivableError(
            f"Version {self.version} of {self.table} was written by Headrace {self.code_version} with the "
            f"parameter {parameter[:80]}, which this server does not know; verify it with that version.",
            {**self._facts(), "code_version": self.code_version, "parameter": parameter[:80]},
        )

    def other_code(self, own_version: str) -> NotDerivableError:
        """The error for rows that differ and were written by another version of the code."""
        return NotDerivableError(
            f"Version {self.version} of {self.table} was written by Headrace {self.code_version}, and "
            f"{own_version} derives other rows of the same lineage; verify it with {self.code_version}.",
            {**self._facts(), "code_version": self.code_version},
        )

    def _facts(self) -> dict[str, str]:
        return {"table": self.table, "version": str(self.version)}


def read_lineage(config: StoreConfig, snapshot: Snapshot) -> Lineage:
    """Reads what a version was derived from: what its newest commit says that changed rows. Blocks.

    Raises:
        NotDerivableError: That was not a run's.
    """
    table, found = tables.table_name(snapshot.table_key), tables.origin(config, snapshot)
    try:
        items = found["headrace.items_version"]
        return Lineage(
            table=table,
            version=snapshot.version,
            interactions_version=int(found["headrace.interactions_version"]),
            items_version=int(items) if items else None,
            as_of_us=int(found["headrace.as_of_us"]),
            parameters=dict(json.loads(found["headrace.parameters"])),
            code_version=found["headrace.code_version"],
        )
    except (KeyError, ValueError, TypeError):
        raise NotDerivableError(
            f"Version {snapshot.version} of {table} was not written by a run of Headrace, or its commit has "
            "lost what it was derived from; make the table anew to have a version that can be verified.",
            {"table": table, "version": str(snapshot.version)},
        ) from None


def _restored(kind: type[T], found: Mapping[str, Any], path: str) -> T:
    """A dataclass from what `asdict` and JSON made of it."""
    hints = get_type_hints(kind)
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # kinds are dataclasses
    if unknown := sorted(found.keys() - names):
        raise _UnknownError(f"{path}{unknown[0]}")
    return kind(**{name: _value(hints[name], value, f"{path}{name}") for name, value in found.items()})


def _value(hint: Any, value: Any, path: str) -> Any:
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise _UnknownError(f"{path} = {value}")
    for option in (hint, *get_args(hint)):
        if is_dataclass(option) and isinstance(option, type) and isinstance(value, dict):
            return _restored(option, value, f"{path}.")
    return tuple(value) if isinstance(value, list) else value
