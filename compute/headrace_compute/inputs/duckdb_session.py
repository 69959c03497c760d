"""DuckDB for one call: in memory, bounded, one thread, and cut off from the outside.

DuckDB is loaded by the first call: the server imports stages to name them, and does not need it.
"""

import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from types import MappingProxyType, TracebackType
from typing import Any, Self

import pyarrow as pa

from headrace_compute import cancellation
from headrace_compute.errors import OverloadedError, StoreFullError

MEMORY_LIMIT = "1GiB"
"""What one call may hold before it spills to its temporary directory."""

_LOCKS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)

CHECK_SECONDS = 0.1
"""How often a query that runs is checked for cancellation."""

Parameter = int | float | str

_PARAMETER = re.compile(r"\$(\w+)")


class DuckDBSession:
    """A database with the given Arrow tables; it lives as long as the `with` block.

    It runs on one thread, so rows come in one order and a shard takes one core.
    SQL reads no file, loads no extension and sees no Python variable.

    Args:
        tables: Arrow tables by the names that the queries use.

    Raises:
        OverloadedError: A query needs more memory than MEMORY_LIMIT and cannot spill it.
        StoreFullError: There is no room to spill.
        StageCancelledError: The stage was cancelled; its query is interrupted.
    """

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._tables = tables

    def __enter__(self) -> Self:
        import duckdb

        self._spill = tempfile.TemporaryDirectory(prefix="headrace-duckdb-")
        self._connection = duckdb.connect(
            ":memory:",
            config={"threads": 1, "memory_limit": MEMORY_LIMIT, "temp_directory": self._spill.name},
        )
        for statement in _LOCKS:
            self._connection.execute(statement)
        for name, table in self._tables.items():
            self._connection.register(name, table)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import duckdb

        self._connection.close()
        del self._connection  # a traceback may keep this object; the database must go
        self._spill.cleanup()
        if isinstance(error, duckdb.OutOfMemoryException):
            raise OverloadedError(
                f"A query needs more than {MEMORY_LIMIT} of memory on one worker; use smaller shards."
            ) from error
        if isinstance(error, duckdb.IOException):
            raise StoreFullError("A worker has no room for temporary files; free some and retry.") from error

    def query(self, query: str, parameters: Mapping[str, Parameter] = MappingProxyType({})) -> pa.Table:
        """Runs a query with values for its `$parameters`; values that it does not name are left out."""
        used = {name: parameters[name] for name in _PARAMETER.findall(query)}
        found: pa.Table = self._run(lambda: self._connection.sql(query, params=used).to_arrow_table())
        return found

    def _run(self, statement: Callable[[], Any]) -> Any:
        """Runs a statement on a thread of its own: this one watches for cancellation."""
        with ThreadPoolExecutor(1, "duckdb") as thread:
            running = thread.submit(statement)
            while not wait([running], CHECK_SECONDS).done:
                if cancellation.is_cancelled():
                    self._connection.interrupt()
            cancellation.check()
            return running.result()
