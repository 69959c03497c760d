"""The interface of object stores: objects under keys, created once, durable at once.

A key is a relative path like `raw-data/acme/items/p-0.parquet`, of which the first
segment is the bucket. The one primitive that orders concurrent writers is `create`,
which exactly one of them wins.
"""

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

Names = list[str]


class ObjectStore(Protocol):
    """What Headrace requires of an object store. Threads may share a store.

    Every method raises StoreFullError when there is no room, StoreUnavailableError when
    the store cannot be reached, within about ten seconds, and StoreDeniedError when it
    refuses its user.
    """

    def create(self, key: str, data: bytes | pa.Buffer) -> None:
        """Writes a new object, durably and whole or not at all.

        If the answer to a first try is lost on the way, the next finds what that one wrote.
        So a writer that may be the only one must compare the content before it treats this as lost.

        Raises:
            KeyExistsError: there is one already, perhaps the caller's own; it is left alone.
        """

    def copy(self, key: str, target: str) -> None:
        """Makes `target` a durable copy of an object that never changes.

        Raises:
            KeyExistsError: there is a target already; it is left alone.
            KeyMissingError: there is nothing to copy.
        """

    def put(self, key: str, data: bytes | pa.Buffer) -> None:
        """Writes an object over whatever is there, durably and whole or not at all."""

    def get(self, key: str) -> bytes:
        """Reads an object.

        Raises:
            KeyMissingError: it is not there.
        """

    def open(self, key: str) -> pa.NativeFile:
        """Opens an object to read ranges of it; the caller closes it.

        Raises:
            KeyMissingError: it is not there.
        """

    def exists(self, key: str) -> bool:
        """Tells whether there is an object under the key."""

    def age_seconds(self, key: str) -> float:
        """How long ago an object was written, by the store's own clock.

        Raises:
            KeyMissingError: it is not there.
        """

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yields the keys below a folder, at any depth, in string order: all, or those behind a key."""

    def children(self, prefix: str) -> Names:
        """Names directly below a folder, objects and folders, in string order."""

    def delete(self, key: str) -> None:
        """Deletes an object if it is there."""

    def delete_all(self, prefix: str) -> None:
        """Deletes every object below a folder."""

    def sync(self, key: str) -> None:
        """Makes an object durable that another library has written.

        Raises:
            KeyMissingError: it is not there.
        """

    def prepare(self) -> None:
        """Makes the store ready at a server's start, and refuses one that would lose data.

        Raises:
            StoreDeniedError: it lacks a bucket or a right, or its creates are not conditional.
        """

    def clear_halves(self, older_than_seconds: float) -> None:
        """Deletes what writers that were killed left half written that long ago; it never had a key."""

    def probe(self) -> None:
        """Asks whether the store serves, as often as every second; answers or raises within a few."""

    def free_bytes(self) -> int | None:
        """Room that is left; None where the store does not tell."""

    def uri(self, key: str) -> str:
        """The URI under which other programs find the object or folder."""

    def storage_options(self) -> dict[str, str]:
        """What deltalake needs beside the URI. Holds credentials: never to be shown."""
