"""The partials of one shard at many cut times: what its events come to before each of them.

The counterpart of `Grouping`, which has one instant for all. Events are put into the order of group and time,
once. Before a cut a group has the first of its rows, so what does not know the cut is added up on the way
from one cut to the next: that costs each event once, and each point once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute import cancellation
from headrace_compute.features.feature import Overall, Partial
from headrace_compute.features.parameters import DAY_US
from headrace_compute.features.queries import each_cut, values_query
from headrace_compute.inputs.duckdb_session import DuckDBSession, Parameter
from headrace_compute.inputs.events import Events
from headrace_compute.kernels import timelines

PIECE_ROWS = 1 << 22
"""Events that are evaluated for each of their cuts at a time: about 150 MB."""

_EVENT = ("interaction_type", "time_us", "rating")
"""What expressions may name, beside the hour, the weekday and the day."""


@dataclass(frozen=True)
class Points:
    """What is asked for: groups, each at some cut times.

    Attributes:
        groups: int32; those of one group follow each other.
        cuts_us: int64, microseconds since the epoch, ascending within a group; events before them count.
    """

    groups: np.ndarray
    cuts_us: np.ndarray


def rows_of_users(events: Events) -> pa.Table:
    """The events of a shard by user and time, equal times by item_code, the greatest first.

    `is_first` (int8) says of each whether it is the first of its user and item.
    """
    items = events.rows["item_code"].to_numpy().astype(np.uint64)
    users = events.rows["user_code"].to_numpy().astype(np.uint64)
    times_us = events.rows["time_us"].to_numpy()
    order = timelines.by_time(times_us, users, timelines.stable_order(~items))
    pairs = (users << np.uint64(32) | items)[order]
    by_pair = timelines.stable_order(pairs)
    is_first = np.ones(order.size, np.int8)
    is_first[by_pair[1:]] = pairs[by_pair[1:]] != pairs[by_pair[:-1]]
    return events.rows.take(pa.array(order)).append_column("is_first", pa.array(is_first))


class Timeline:
    """Events in the order of their group and time.

    Args:
        rows: interaction_type, time_us, rating, is_first, and item_code if items are named.
        codes: int32, the group of each row, ascending.
        groups: How many groups there are; some may have no events.
        points: Where it will be asked.
        partials: All that it will be asked for.
        parameters: The `$parameters` of expressions but `$as_of_us`.
    """

    def __init__(
        self,
        rows: pa.Table,
        codes: np.ndarray,
        groups: int,
        points: Points,
        partials: Sequence[Partial],
        parameters: Mapping[str, Parameter],
    ) -> None:
        self._rows, self._points, self._parameters = rows, points, parameters
        self._codes, self._partials = codes, partials
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=groups))])
        self._begins = self._starts[points.groups]
        self._ends = self._before(points.cuts_us)
        self._values = self._evaluated()

    def partials(self) -> dict[str, pa.Array | np.ndarray]:
        """The partials of each point, by name; what has no events has counts of 0 and null times."""
        columns = {}
        for each in self._partials:
            cancellation.check()
            columns[each.name] = self._partial(each)
        return columns

    def overalls(self, overalls: Sequence[Overall], cuts_us: np.ndarray) -> dict[str, np.ndarray]:
        """What all groups had before some cut times, int64 by name.

        Args:
            overalls: What is wanted, of some of the partials.
            cuts_us: int64, ascending, each once.
        """
        # The first cut at which an event counts; behind the last one, none.
        firsts = np.searchsorted(cuts_us, self._rows["time_us"].to_numpy(), side="right")
        found = {}
        for each in overalls:
            running = _running(self._flags(each.of))
            so_far = np.zeros(cuts_us.size + 1, np.int64)
            if each.function == "sum":
                np.add.at(so_far, firsts, np.diff(running))
                found[each.name] = np.cumsum(so_far)[:-1]
            else:
                np.maximum.at(so_far, firsts, running[1:] - running[self._starts[self._codes]])
                found[each.name] = np.maximum.accumulate(so_far)[:-1]
        return found

    def _partial(self, partial: Partial) -> pa.Array | np.ndarray:
        ranges = self._begins, self._ends
        match partial.operation:
            case "newest":
                return timelines.newest_items(*ranges, self._rows["item_code"].to_numpy(), partial.width)
            case "sum" if _knows_cut(partial):
                return self._sum_at_cuts(partial.of)
            case "sum":
                return timelines.exact_sum(*ranges, self._values[partial.operation, partial.of])
            case "min":
                return timelines.least(*ranges, self._values[partial.operation, partial.of])
            case "max":
                return timelines.greatest(*ranges, self._values[partial.operation, partial.of])
            case "histogram":
                return timelines.histogram(
                    *ranges, self._values[partial.operation, partial.of], partial.width
                )
        running = _running(self._flags(partial))
        cuts_us = self._points.cuts_us
        begins = self._before(cuts_us - partial.days * DAY_US) if partial.days else self._begins
        return running[self._ends] - running[begins]

    def _flags(self, partial: Partial) -> np.ndarray:
        """Which rows add one to a count, to distinct partners or to distinct days: int8."""
        match partial.operation:
            case "partners":
                flags: np.ndarray = self._rows["is_first"].to_numpy()
                return flags
            case "days":
                days = self._values["days", "day"]
                is_new = np.ones(days.size, np.int8)
                is_new[1:] = (days[1:] != days[:-1]) | (self._codes[1:] != self._codes[:-1])
                return is_new
        return (
            self._values[partial.operation, partial.of] if partial.of else np.ones(len(self._codes), np.int8)
        )

    def _sum_at_cuts(self, expression: str) -> pa.Array:
        """The sum of what knows its cut: each event is evaluated for each cut that has it."""
        total = timelines.SpreadSum(self._begins, self._ends)
        query = values_query({("sum", each_cut(expression)): "v0"})
        events = {name: self._rows[name] for name in _EVENT if name == "time_us" or name in expression}
        for begin in range(0, total.size, PIECE_ROWS):
            cancellation.check()
            rows, points = total.spread(begin, min(begin + PIECE_ROWS, total.size))
            taken = {name: column.take(pa.array(rows)) for name, column in events.items()}
            table = pa.table({**taken, "as_of_us": self._points.cuts_us[points]})
            with DuckDBSession({"events": table}) as session:
                values = session.query(query, self._parameters)["v0"].combine_chunks()
            total.add(points, values.to_numpy())
        return total.result()

    def _evaluated(self) -> dict[tuple[str, str], np.ndarray]:
        """What operations take of each row, by operation and expression; not of what knows its cut."""
        wanted = [_taken(each) for each in self._partials if not _knows_cut(each)]
        names = {key: f"v{number}" for number, key in enumerate(dict.fromkeys(filter(None, wanted)))}
        if not names:
            return {}
        with DuckDBSession({"events": self._rows}) as session:
            values = session.query(values_query(names), self._parameters)
        return {each: values[name].combine_chunks().to_numpy() for each, name in names.items()}

    def _before(self, until_us: np.ndarray) -> np.ndarray:
        times_us = self._rows["time_us"].to_numpy()
        return timelines.ends_before(self._starts, times_us, self._points.groups, until_us)


def _running(flags: np.ndarray) -> np.ndarray:
    """How many flags are set before each row, and before the end: int64."""
    return np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])


def _knows_cut(partial: Partial) -> bool:
    return "$as_of_us" in partial.of


def _taken(partial: Partial) -> tuple[str, str] | None:
    if partial.operation == "days":
        return ("days", "day")
    return (partial.operation, partial.of) if partial.of else None
