"""Lineage: what the commit of a derived version says of its making, read back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from headrace_compute.delta import tables
from headrace_compute.errors import (
    InputGoneError,
    NotDerivableError,
    PartLostError,
    TableNotFoundError,
    VersionNotFoundError,
)
from headrace_compute.model import Snapshot, StoreConfig
from headrace_compute.report import iso_time
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.vocabulary import Entity

T = TypeVar("T")


class _UnknownError(Exception):
    """A parameter that the code does not know, or a value of one."""


@dataclass(frozen=True)
class Lineage:
    """What a version was derived from.

    Attributes:
        table, version: Of what.
        items_version: None if the tenant had no items.
        vocabularies: Versions of the vocabularies that its ids have their indices from, by table, if any.
        parameters: Of the run, by name.
        code_version: Of the Headrace that wrote it.
    """

    table: str
    version: int
    interactions_version: int
    items_version: int | None
    as_of_us: int
    vocabularies: Mapping[str, int]
    parameters: Mapping[str, Any]
    code_version: str

    @property
    def inputs(self) -> dict[str, int]:
        """The version of each table that it was derived from."""
        items = {} if self.items_version is None else {"items": self.items_version}
        return {"interactions": self.interactions_version, **items, **self.vocabularies}

    def open_input(self, config: StoreConfig, tenant: str, name: str, version: int) -> Snapshot:
        """Opens a version that it was derived from. Blocks.

        Raises:
            InputGoneError: The log lacks it.
        """
        try:
            return tables.open_table(config, tables.table_key(config, tenant, name), version)
        except (TableNotFoundError, VersionNotFoundError):
            raise self.gone(name, version) from None

    def open_vocabulary(self, config: StoreConfig, tenant: str, entity: Entity) -> Snapshot:
        """Opens the vocabulary that its ids have their indices from. Blocks.

        Raises:
            NotDerivableError: The commit does not name it.
            InputGoneError: The log lacks it.
        """
        name = f"{entity}_vocabulary"
        if name not in self.vocabularies:
            raise self.unknown()
        return self.open_input(config, tenant, name, self.vocabularies[name])

    def gone(self, name: str, version: int, part: str = "") -> InputGoneError:
        """The error for a version of a table that is gone, or has lost a part."""
        facts = {"table": name, "version": str(version), **({"part": part} if part else {})}
        return InputGoneError(
            f"Version {self.version} of {self.table} cannot be derived again: version {version} of {name}, "
            f"which it was made from, {f'has lost the part {part}' if part else 'is gone'}.",
            facts,
        )

    def lost(self, part: str) -> PartLostError:
        """The error for a part of the version itself that is gone or damaged: it can be made again."""
        inputs = f"interactions_version = {self.interactions_version}"
        if self.items_version is not None:
            inputs += f", items_version = {self.items_version}"
        return PartLostError(
            f"Version {self.version} of {self.table} has lost rows: its part {part} is gone or damaged; "
            f"make the table anew to have them again, with {inputs}, as_of = {iso_time(self.as_of_us)} and "
            "the parameters that the version's commit names.",
            {"part": part},
        )

    def unknown(self) -> NotDerivableError:
        """The error for a commit that does not say what its rows were made from."""
        return NotDerivableError(
            f"Version {self.version} of {self.table} was not written by a run of Headrace, or its commit has "
            "lost what it was derived from; make the table anew to have a version that can be verified.",
            self._facts(),
        )

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
    found = tables.origin(config, snapshot)
    nothing = Lineage(tables.table_name(snapshot.table_key), snapshot.version, 0, None, 0, {}, {}, "")
    try:
        items = found["headrace.items_version"]
        return replace(
            nothing,
            interactions_version=int(found["headrace.interactions_version"]),
            items_version=int(items) if items else None,
            as_of_us=int(found["headrace.as_of_us"]),
            vocabularies={
                name: int(found[key])
                for name in ("user_vocabulary", "item_vocabulary")
                if (key := f"headrace.{name}_version") in found
            },
            parameters=dict(json.loads(found["headrace.parameters"])),
            code_version=found["headrace.code_version"],
        )
    except (KeyError, ValueError, TypeError):
        raise nothing.unknown() from None


def lost(config: StoreConfig, snapshot: Snapshot, error: PartLostError) -> PartLostError:
    """What it means that a version has lost a part: one that a run made can be made again. Blocks."""
    try:
        return read_lineage(config, snapshot).lost(error.attributes["part"])
    except NotDerivableError:
        return error


def split_rows(config: StoreConfig, snapshot: Snapshot) -> dict[str, int]:
    """Rows of each split of a training set, in the order of the splits, also of those without any. Blocks.

    Empty without splits, and where another tool has put rows of several splits into one file.
    """
    if snapshot.kind != "training_data" or any(file.rows and not file.split for file in snapshot.files):
        return {}
    try:
        split = read_lineage(config, snapshot).params(SamplingParams).split
    except NotDerivableError:
        split = None
    return {**dict.fromkeys(split.names if split else (), 0), **snapshot.split_rows}


def _restored(kind: type[T], found: Mapping[str, Any], path: str) -> T:
    """A dataclass from what `asdict` and JSON made of it."""
    hints = get_type_hints(kind)
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # kinds are dataclasses
    if unknown := sorted(found.keys() - names):
        raise _UnknownError(f"{path}{unknown[0]}")
    return kind(**{name: _value(hints[name], value, f"{path}{name}") for name, value in found.items()})


def _value(hint: Any, value: Any, path: str) -> Any:
    options = (hint, *get_args(hint))
    if value is not None:
        for option in options:
            if get_origin(option) is Literal and value not in get_args(option):
                raise _UnknownError(f"{path} = {value}")
    for option in options:
        if is_dataclass(option) and isinstance(option, type) and isinstance(value, dict):
            return _restored(option, value, f"{path}.")
    return tuple(value) if isinstance(value, list) else value
