"""Cursors: how far each table's events have come, one small object a table.

A cursor is written after its events are acknowledged, so it may lag behind what
was published and never leads. Whoever starts from an older one publishes some
events again, under the same ids.
"""

import json
from dataclasses import asdict, dataclass

from headrace_compute.errors import StoreUnavailableError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyMissingError, open_store

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Cursor:
    """A place in the history of a table.

    Attributes:
        version: Newest version whose events are all published; 0 before the first.
        groups: Row groups of the next version whose rows are published, counted
            through the version's files in the order of their keys.
    """

    version: int = 0
    groups: int = 0


class Cursors:
    """The cursors of one sink. Its methods block: call them in a thread.

    Args:
        sink: Names the sink: each has cursors of its own, so that one which is
            attached later hears everything.
    """

    def __init__(self, config: StoreConfig, sink: str) -> None:
        self._store = open_store(config)
        self._prefix = f"{config.raw}/_headrace/relay/{sink}/cursors"

    def load(self, tenant: str, table: str) -> Cursor:
        """The cursor of a table; that of its beginning if there is none.

        Raises:
            StoreUnavailableError: The store cannot be read, or a newer Headrace wrote the cursor.
        """
        try:
            body = json.loads(self._store.get(self._key(tenant, table)))
        except KeyMissingError:
            return Cursor()
        if (version := body.pop("format_version")) != FORMAT_VERSION:
            raise StoreUnavailableError(
                f"The relay's cursor of {tenant}/{table} has format version {version}; this server reads "
                f"{FORMAT_VERSION}; use a newer server."
            )
        return Cursor(**body)

    def save(self, tenant: str, table: str, cursor: Cursor) -> None:
        """Replaces the cursor of a table."""
        body = {"format_version": FORMAT_VERSION, **asdict(cursor)}
        self._store.put(self._key(tenant, table), json.dumps(body).encode())

    def _key(self, tenant: str, table: str) -> str:
        return f"{self._prefix}/{tenant}/{table}.json"
