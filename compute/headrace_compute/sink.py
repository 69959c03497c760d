"""What becomes of the rows that a run makes: parts, for those that write a table.

Stages make rows and know nothing more of them, so that a version can be derived again without writing it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pyarrow as pa

from headrace_compute.model import Part, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part


class Written(Protocol):
    """What became of some rows."""

    @property
    def size_bytes(self) -> int:
        """Bytes that they take in the store."""


W = TypeVar("W", bound=Written)
W_co = TypeVar("W_co", bound=Written, covariant=True)


class Output(Protocol[W_co]):
    """Takes the rows of one stage, in the order of the table."""

    def write(self, name: str, rows: pa.Table, *, stats: Sequence[str]) -> None:
        """Takes some rows.

        Args:
            name: What no other rows of the run are called by.
            stats: Columns whose bounds tell where rows are.
        """

    def close(self) -> tuple[W_co, ...]:
        """What became of them; there are no more."""


class Sink(Protocol[W_co]):
    """Where the rows of one table of a run go. Picklable: stages open it, each for itself."""

    def open(self, config: StoreConfig) -> Output[W_co]:
        """An output for the rows of a stage."""


class NoSink:
    """Lets go of rows that come with others and are not wanted."""

    def open(self, config: StoreConfig) -> "NoSink":
        """An output that takes all."""
        return self

    def write(self, name: str, rows: pa.Table, *, stats: Sequence[str]) -> None:
        """Takes some rows."""

    def close(self) -> tuple[()]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class PartSink:
    """Makes parts of rows.

    Attributes:
        prefix: What their keys begin with; a name and `.parquet` follow. Of one attempt at a run alone.
    """

    prefix: str

    def open(self, config: StoreConfig) -> "PartOutput":
        """Begins to write; equal rows under an equal name may be written again."""
        return PartOutput(config, self.prefix)


class PartOutput:
    """Writes a part for each table of rows that it takes."""

    def __init__(self, config: StoreConfig, prefix: str) -> None:
        self._store = open_store(config)
        self._prefix = prefix
        self._parts: list[Part] = []

    def write(self, name: str, rows: pa.Table, *, stats: Sequence[str]) -> None:
        """Writes rows as one part."""
        key = f"{self._prefix}{name}.parquet"
        self._parts.append(write_part(self._store, key, rows, stats=stats))

    def close(self) -> tuple[Part, ...]:
        """The parts, in the order of their rows."""
        return tuple(self._parts)
