"""Checking parts before they are committed: Delta itself accepts missing files and wrong statistics."""

from collections.abc import Sequence

from headrace_compute.model import Part, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import verify_part


def verify_parts(config: StoreConfig, parts: Sequence[Part]) -> None:
    """Reads parts back and compares size, rows and checksum with what was written.

    Raises:
        PartLostError: A part is missing or is not what was written.
    """
    store = open_store(config)
    for part in parts:
        verify_part(store, part)
