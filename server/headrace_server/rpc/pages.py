"""Pages: rows in messages small enough for every client."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from headrace_compute.pages import paged

Row = TypeVar("Row")
Page = TypeVar("Page", bound=Message)


def pages(rows: Sequence[Row], encode: Callable[[Sequence[Row]], Page], max_rows: int) -> list[Page]:
    """Rows in order, as messages of at most PAGE_BYTES and `max_rows` rows each.

    Raises:
        RowTooLargeError: A row is larger than a page may be.
    """
    found: list[Page] = []
    for start in range(0, len(rows), max_rows):
        count = min(max_rows, len(rows) - start)
        found += paged(start, count, lambda first, count: encode(rows[first : first + count]), _size_bytes)
    return found


def consumed(items: list[Row]) -> Iterator[Row]:
    """The items of a list, none of which is kept while a client takes the rest."""
    items.reverse()
    while items:
        yield items.pop()


def _size_bytes(page: Message) -> int:
    return page.ByteSize()
