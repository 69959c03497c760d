"""Arrow's PyCapsule interface: what tables and frames of any library have, without pyarrow."""

from typing import Any, Protocol, TypeAlias


class ArrowStream(Protocol):
    """Rows in batches: tables and readers of pyarrow, frames of pandas and polars, relations of DuckDB."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Exports the data."""


class ArrowBatch(Protocol):
    """One batch of rows."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """Exports the data."""


ArrowData: TypeAlias = ArrowStream | ArrowBatch
"""A table, all at once or batch by batch."""
