"""Checking parts before they are committed: Delta itself takes missing files and lying statistics."""

from collections.abc import Sequence

from headrace_compute.model import Part, StoreConfig
from headrace_compute.storage.parts import verify_part
from headrace_compute.storage.store import open_store


def verify_parts(config: StoreConfig, parts: Sequence[Part]) -> None:
    """Reads parts back and compares size, rows and checksum with what was written.

    Raises:
        PartLostError: A part is missing or is not what was written.
    """
    store = open_store(config)
    for part in parts:
        verify_part(store, part)
