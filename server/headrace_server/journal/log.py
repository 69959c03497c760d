"""A journal: the durable record of something under way, and its only source of truth.

It is a list of objects `{prefix}{seq:08d}` that are created once. A record is `{"format_version": N, "kind":
..., "body": {...}}` under the number that follows the last one: whoever creates the next number has written
it, everyone else re-reads. What the records amount to is for others to say. All methods block: call them in
a thread.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace_compute.errors import HeadraceError, StoreUnavailableError
from headrace_compute.objects.store import KeyExistsError, KeyMissingError, ObjectStore

LISTINGS = 10
"""Times a journal is listed again because records were swept while it was read."""

SWEEP_SECONDS = 0.05
"""Before a journal is listed again, and as much longer each time: sweeping goes on record by record."""

Record = Mapping[str, Any]

T = TypeVar("T")


class JournalFormatError(HeadraceError):
    """A record was written by a newer version of Headrace."""


class NumberTakenError(Exception):
    """Another record has the number.

    Attributes:
        found: The record; None if it has been swept since.
    """

    def __init__(self, found: Record | None) -> None:
        super().__init__("another record has the number")
        self.found = found


@dataclass(frozen=True)
class Newest:
    """The newest record of a journal."""

    seq: int
    kind: str
    key: str


@dataclass(frozen=True)
class Journal:
    """The records below a prefix.

    Attributes:
        prefix: Of their keys, with a slash at its end.
        what: Whose journal it is, as a message names it.
        versions: Format versions that can be read; the last one is written.
    """

    store: ObjectStore
    prefix: str
    what: str
    versions: tuple[int, ...]

    def key(self, seq: int) -> str:
        """Where a record lies."""
        return f"{self.prefix}{seq:08d}"

    def record(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A record as it will be read."""
        # Through JSON and back, so that what is compared is what is stored.
        record = {"format_version": self.versions[-1], "kind": kind, "body": body}
        return dict(json.loads(json.dumps(record)))

    def append(self, seq: int, record: Record) -> None:
        """Writes a record, durably; again is no error.

        Raises:
            NumberTakenError: Another one has its number.
        """
        try:
            self.store.create(self.key(seq), json.dumps(record, separators=(",", ":")).encode())
        except KeyExistsError:
            found = self.find(seq)
            # If they are equal, the create succeeded and its answer was lost: the record is ours.
            if found != record:
                raise NumberTakenError(found) from None

    def find(self, seq: int) -> dict[str, Any] | None:
        """The record that has a number; None if none has."""
        try:
            return self._read(self.key(seq))
        except KeyMissingError:
            return None

    def read_all(self) -> list[tuple[int, Record]]:
        """Every record with its number, in order; empty if there is no journal."""
        return self._listed(lambda records: [(seq, self._read(key)) for seq, key in records])

    def newest(self) -> Newest | None:
        """The newest record, without reading the others; None if there is no journal."""

        def last(records: Iterator[tuple[int, str]]) -> Newest | None:
            found = list(records)
            if not found:
                return None
            seq, key = found[-1]
            return Newest(seq, self._read(key)["kind"], key)

        return self._listed(last)

    def ends(self, is_enough: Callable[[Record], bool]) -> tuple[Record, list[Record]] | None:
        """The first record, and those from the newest back to one that is enough, without reading the others.

        None if there is no journal.
        """

        def read(records: Iterator[tuple[int, str]]) -> tuple[Record, list[Record]] | None:
            keys = [key for _, key in records]
            if not keys:
                return None
            newest: list[Record] = []
            for key in reversed(keys[1:]):
                newest.append(self._read(key))
                if is_enough(newest[-1]):
                    break
            return self._read(keys[0]), newest

        return self._listed(read)

    def _listed(self, read: Callable[[Iterator[tuple[int, str]]], T]) -> T:
        """What is read of the records, listed again if one of them is swept meanwhile."""
        for listing in range(1, LISTINGS + 1):
            try:
                return read(self.numbered())
            except KeyMissingError:
                time.sleep(listing * SWEEP_SECONDS)
        raise StoreUnavailableError(f"The records of the {self.what} cannot be read; try again in a moment.")

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Numbers and keys of the records, in order."""
        for key in self.store.list(self.prefix):
            if (name := key[len(self.prefix) :]).isdigit():
                yield int(name), key

    def _read(self, key: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.store.get(key))
        version = record.get("format_version")
        if version not in self.versions:
            raise JournalFormatError(
                f"A record of the {self.what} has format version {version}; this server reads "
                f"{', '.join(map(str, self.versions))}; use a newer server."
            )
        return record
