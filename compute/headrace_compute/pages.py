"""Pages: rows as messages that every client takes; how large rows become is known only once encoded."""

from collections.abc import Callable
from typing import TypeVar

from headrace_compute.errors import RowTooLargeError

PAGE_BYTES = 2 << 20
"""Limit on an encoded page. gRPC clients accept 4 MiB by default."""

ROW_BYTES = (4 << 20) - (4 << 10)
"""Limit on a page with one row: what such a client accepts, less the overhead of the message."""

Page = TypeVar("Page")


def paged(
    first: int, count: int, encode: Callable[[int, int], Page], size_bytes: Callable[[Page], int]
) -> list[Page]:
    """Rows in order, in pages of at most PAGE_BYTES; a page that is too large is encoded again in halves.

    Args:
        first, count: The rows. None make an empty page.
        encode: Makes a page of so many rows from a first one on.
        size_bytes: How large a page is.

    Raises:
        RowTooLargeError: One row has more than ROW_BYTES.
    """
    page = encode(first, count)
    size = size_bytes(page)
    if size <= PAGE_BYTES or (count <= 1 and size <= ROW_BYTES):
        return [page]
    if count <= 1:
        raise RowTooLargeError(
            f"A row has {size:,} bytes, and a response takes {ROW_BYTES:,} at most; read fewer columns, "
            "or the table itself.",
            {"size_bytes": str(size), "limit_bytes": str(ROW_BYTES)},
        )
    half = count // 2
    return paged(first, half, encode, size_bytes) + paged(first + half, count - half, encode, size_bytes)
