"""The sink of a proof: it writes nothing, and holds the rows of each section against the stored ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import ObjectStore, open_store
from headrace_compute.proof.difference import Difference, first_difference
from headrace_compute.proof.digest import Digest, Section, runs_of
from headrace_compute.proof.stored import ORDERS, StoredSection, read_section


@dataclass(frozen=True)
class Checked:
    """What became of the rows of a stage.

    Attributes:
        sections: Those that had rows.
        difference: The first one found; None if all are as they are stored.
    """

    sections: frozenset[Section]
    difference: Difference | None

    @property
    def size_bytes(self) -> int:
        """Nothing was written."""
        return 0


@dataclass(frozen=True)
class CheckSink:
    """Compares derived rows with the rows of a version.

    Attributes:
        kind: What the table holds.
        stored: What the version has, by section.
    """

    kind: str
    stored: Mapping[Section, StoredSection]

    def open(self, config: StoreConfig) -> "CheckOutput":
        """Begins to compare; rows of a section must not be in two stages."""
        return CheckOutput(open_store(config), self.kind, self.stored)


class CheckOutput:
    """Digests rows, section by section, of which it holds one: should it differ, its rows tell where."""

    def __init__(self, store: ObjectStore, kind: str, stored: Mapping[Section, StoredSection]) -> None:
        self._store = store
        self._kind = kind
        self._stored = stored
        self._digests: dict[Section, Digest] = {}
        self._held: list[pa.Table] = []
        self._difference: Difference | None = None

    def write(self, name: str, rows: pa.Table, *, stats: Sequence[str]) -> None:
        """Takes rows that follow those it has."""
        for run in runs_of(rows):
            if run.section not in self._digests:
                self._settle()
            self._digests[run.section] = self._digests.get(run.section, Digest()).then(run.digest)
            if self._difference is None:
                self._held.append(run.rows)

    def close(self) -> tuple[Checked, ...]:
        """What it found."""
        self._settle()
        return (Checked(frozenset(self._digests), self._difference),)

    def _settle(self) -> None:
        """Compares the section whose rows are held, and lets go of them."""
        held, self._held = self._held, []
        if not held:
            return
        section, digest = next(reversed(self._digests.items()))
        stored = self._stored.get(section)
        if stored is None or stored.digest != digest:
            derived = pa.concat_tables(held)
            self._difference = compare_section(self._store, self._kind, section, stored, derived)


def compare_section(
    store: ObjectStore, kind: str, section: Section, stored: StoredSection | None, derived: pa.Table
) -> Difference:
    """The first difference of a section whose digests differ.

    Args:
        stored: What the version has of it; None if it has nothing.
        derived: The rows that it should have.

    Raises:
        PartLostError: A file of the version is gone.
    """
    rows = (
        derived.schema.empty_table() if stored is None else read_section(store, kind, section, stored.files)
    )
    return first_difference(section, tuple(ORDERS[kind]), rows, derived)


def missing_section(config: StoreConfig, kind: str, section: Section, stored: StoredSection) -> Difference:
    """The difference of a section that the version has, and that is not derived."""
    return compare_section(open_store(config), kind, section, stored, pa.table({}))


def first_of(differences: Iterable[Difference | None]) -> Difference | None:
    """The difference of the first section."""
    found = (difference for difference in differences if difference is not None)
    return min(found, key=lambda difference: difference.section, default=None)
