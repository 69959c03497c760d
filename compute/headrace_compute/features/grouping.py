"""The partials of one shard: what its events come to for each user, and for each item."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from headrace_compute.features.feature import Operation, Partial
from headrace_compute.features.queries import values_query
from headrace_compute.inputs.duckdb_session import DuckDBSession, Parameter
from headrace_compute.inputs.events import Events
from headrace_compute.kernels import groups

_DAYS = ("days", "day")
"""What the operation takes."""


class Grouping:
    """The events of a shard, to be grouped by user and by item.

    DuckDB evaluates what the partials take of an event, in one pass; kernels group it.

    Args:
        events: The shard.
        partials: All that will be asked for.
        parameters: The `$parameters` of their expressions.
    """

    def __init__(
        self, events: Events, partials: Sequence[Partial], parameters: Mapping[str, Parameter]
    ) -> None:
        self._events = events
        wanted = dict.fromkeys(filter(None, map(_taken, partials)))
        names = {expression: f"v{number}" for number, expression in enumerate(wanted)}
        self._values: dict[tuple[str, str], np.ndarray] = {}
        if names:
            with DuckDBSession({"events": events.rows}) as session:
                values = session.query(values_query(names), parameters)
            self._values = {each: values[name].combine_chunks().to_numpy() for each, name in names.items()}

    def users(self, partials: Sequence[Partial]) -> pa.Table:
        """user_code and the partials of each user."""
        codes = np.arange(len(self._events.users), dtype=np.int32)
        columns = {each.name: self._user_partial(each) for each in partials}
        return pa.table({"user_code": codes, **columns})

    def items(self, partials: Sequence[Partial]) -> pa.Table:
        """item_code and the partials of each item that has events."""
        codes = self._events.rows["item_code"].to_numpy()
        present = np.bincount(codes, minlength=len(self._events.numbering)) > 0
        # Grouped by its place among those that are here: the others may be millions.
        places = np.cumsum(present, dtype=np.int32) - np.int32(1)
        count = int(present.sum())
        columns = {}
        for each in partials:
            if each.operation == "partners":
                columns[each.name] = groups.count(places[self._pairs[1]], count)
            else:
                columns[each.name] = self._aggregate(each, places[codes], count)
        return pa.table({"item_code": np.flatnonzero(present).astype(np.int32), **columns})

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self._events.rows
        users, items, times_us = (rows[name].to_numpy() for name in ("user_code", "item_code", "time_us"))
        return groups.newest_pairs(users, items, times_us, len(self._events.users))

    def _user_partial(self, partial: Partial) -> pa.Array | np.ndarray:
        codes = self._events.rows["user_code"].to_numpy()
        users = len(self._events.users)
        match partial.operation:
            case "partners":
                return np.diff(self._pairs[0])
            case "newest":
                return groups.newest_items(*self._pairs, partial.width)
            case "days":
                return groups.count_days(codes, self._values[_DAYS], users)
        return self._aggregate(partial, codes, users)

    def _aggregate(self, partial: Partial, codes: np.ndarray, count: int) -> pa.Array | np.ndarray:
        taken = _taken(partial)
        if taken is None:
            return groups.count(codes, count)
        values = self._values[taken]
        if partial.operation == "histogram":
            return groups.histogram(codes, values, count, partial.width)
        return _KERNELS[partial.operation](codes, values, count)


_KERNELS: dict[Operation, Callable[[np.ndarray, np.ndarray, int], pa.Array | np.ndarray]] = {
    "count": groups.count_where,
    "sum": groups.exact_sum,
    "min": groups.least,
    "max": groups.greatest,
}


def _taken(partial: Partial) -> tuple[str, str] | None:
    """The operation and the expression whose values it takes; None if it takes none."""
    if partial.operation == "days":
        return _DAYS
    return (partial.operation, partial.expression) if partial.expression else None
