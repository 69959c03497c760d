"""Records: the entries of a session log, as objects that are created once.

A record is `{"format_version": N, "kind": ..., "body": {...}}` under the number that
follows the last one. A server reads its own format version and the one before:

1  as version 0.1 wrote it
2  block and finish bodies have `crc32c`, null where it is not known; kinds abort and alive
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace_compute.errors import HeadraceError, StoreUnavailableError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyMissingError, ObjectStore, open_store

FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)

LISTINGS = 10
"""Times a session is listed again because records were swept while it was read."""

Record = Mapping[str, Any]


class SessionFormatError(HeadraceError):
    """A record was written by a newer version of Headrace."""


@dataclass(frozen=True)
class Newest:
    """The newest record of a session; its kind tells the session's state."""

    seq: int
    kind: str
    key: str


def session_prefix(config: StoreConfig, tenant: str, upload_id: str) -> str:
    """Key prefix of a session's records."""
    return f"{config.raw}/_headrace/uploads/{tenant}/{upload_id}/"


def make(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it will be read."""
    # Through JSON and back, so that what is compared is what is stored.
    record = {"format_version": FORMAT_VERSION, "kind": kind, "body": body}
    return dict(json.loads(json.dumps(record)))


def create(store: ObjectStore, prefix: str, seq: int, record: Record) -> None:
    """Writes a record, durably.

    Raises:
        KeyExistsError: the number is taken, perhaps by this very record.
    """
    store.create(f"{prefix}{seq:08d}", json.dumps(record, separators=(",", ":")).encode())


def read(store: ObjectStore, key: str) -> dict[str, Any]:
    """Reads a record.

    Raises:
        KeyMissingError: it is not there.
        SessionFormatError: a newer server wrote it.
    """
    record: dict[str, Any] = json.loads(store.get(key))
    version = record.get("format_version")
    if version not in READABLE_VERSIONS:
        raise SessionFormatError(
            f"An upload record has format version {version}; this server reads "
            f"{', '.join(map(str, READABLE_VERSIONS))}; use a newer server."
        )
    return record


def read_all(config: StoreConfig, tenant: str, upload_id: str) -> list[tuple[int, Record]]:
    """Every record of a session with its number, in order; empty if there is no session."""
    store, prefix = open_store(config), session_prefix(config, tenant, upload_id)
    for _ in range(LISTINGS):
        try:
            return [(seq, read(store, key)) for seq, key in numbered(store, prefix)]
        except KeyMissingError:
            continue  # Swept after it was listed.
    raise StoreUnavailableError("The records of the upload cannot be read; try again in a moment.")


def read_newest(config: StoreConfig, tenant: str, upload_id: str) -> Newest | None:
    """The newest record of a session, without reading the others; None if there is no session."""
    store = open_store(config)
    found = list(numbered(store, session_prefix(config, tenant, upload_id)))
    if not found:
        return None
    seq, key = found[-1]  # Never swept: only block and alive records are, and not while they are last.
    return Newest(seq, read(store, key)["kind"], key)


def numbered(store: ObjectStore, prefix: str) -> Iterator[tuple[int, str]]:
    """Numbers and keys of a session's records, in order."""
    for key in store.list(prefix):
        if (name := key[len(prefix) :]).isdigit():
            yield int(name), key
