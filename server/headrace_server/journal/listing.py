"""A listing: an index of all journals, by names in whose order the newest comes first.

A page costs as much as its entries, however many there are.
"""

import re
from dataclasses import dataclass
from itertools import islice

from headrace_compute.objects.store import open_store
from headrace_server.journal.index import Index

_LATEST_US = 10**16 - 1
_NAME = re.compile(r"[0-9]{16}-[0-9a-f-]{32,36}")


@dataclass(frozen=True)
class Listing(Index):
    """The entries of a listing; all methods block."""

    def page(self, tenant: str, after: str, count: int) -> list[str]:
        """The first names behind another one, or behind none; at most `count`."""
        folder = self.key(tenant, "")
        keys = open_store(self.config).list(folder, f"{folder}{after}" if after else "")
        return [key.removeprefix(folder) for key in islice(keys, count)]


def name_of(started_us: int, entry: str) -> str:
    """The name of what began then, in microseconds since the epoch, and has that id."""
    return f"{_LATEST_US - started_us:016d}-{entry}"


def id_of(name: str) -> str:
    """The id of what has that name."""
    return name.partition("-")[2]


def is_name(name: str) -> bool:
    """Whether anything may have that name."""
    return _NAME.fullmatch(name) is not None
