"""What a feature is: one column of user_features or item_features, declared once.

A declaration has the column's name, type and meaning, and how it is computed, in two steps. A Partial is an
aggregate over the events of one shard that adds up over shards; `finish` is SQL that makes the column of
the sums. Queries, schemas, column comments, DescribeFeatures and docs/features.md all follow from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.features.parameters import DAY_US

Grain = Literal["user", "item"]

GRAINS: tuple[Grain, ...] = ("user", "item")

TABLES: Mapping[str, Grain] = {f"{grain}_features": grain for grain in GRAINS}
"""What the tables have a row for each of."""

COUNT = pa.int64()
DOUBLE = pa.float64()

UNITS = 1 << 40
"""Sums of doubles are sums of integers in units of 2^-40, so that no order of addition changes a bit."""

Operation = Literal["count", "sum", "min", "max", "histogram", "days", "partners", "newest"]
"""How the events of a user or item become one value:

- count: how many there are, or how many fulfil a condition, of the last days or of all.
- sum, min, max: of an integer.
- histogram: how many have each value from 0 to `width` - 1.
- days: how many distinct UTC dates they have.
- partners: how many distinct items a user has, or users an item.
- newest: a user's distinct items by their newest event, `width` of them.
"""

_MERGES: dict[Operation, tuple[str, str]] = {
    "count": ("sum", "BIGINT"),
    "partners": ("sum", "BIGINT"),
    "sum": ("sum", "DECIMAL(38, 0)"),
    "min": ("min", "BIGINT"),
    "max": ("max", "BIGINT"),
}


@dataclass(frozen=True)
class Partial:
    """An aggregate of the events of one shard.

    Attributes:
        name: Its column.
        operation: What it does with them.
        of: SQL expression over an event: the condition of a count, or the integer of the others. Events have
            interaction_type (see `is_type`), time_us, rating, hour and weekday. That of a sum may name
            `$as_of_us`; at many cut times it is evaluated for each of them, where others are once.
        width: Of a histogram, or of a list.
        days: Of a count: it takes the events of so many days before as_of; 0 takes all.
    """

    name: str
    operation: Operation
    of: str = ""
    width: int = 0
    days: int = 0

    @property
    def expression(self) -> str:
        """SQL for what the operation takes of an event, as of one instant; empty if it takes nothing."""
        if not self.days:
            return self.of
        inside = f"time_us >= $as_of_us - {self.days * DAY_US}"
        return f"{inside} AND {self.of}" if self.of else inside

    @property
    def merged(self) -> str:
        """SQL for the aggregate of several shards; users, who never cross shards, have others besides."""
        function, sql_type = _MERGES[self.operation]
        return f"{function}({self.name})::{sql_type}"


@dataclass(frozen=True)
class Overall:
    """What all items together have.

    Attributes:
        name: What `finish` calls it; null or 0 where there are no events.
        function: The greatest value of an item, or the sum of all.
        of: A count of all days.
    """

    name: str
    function: Literal["max", "sum"]
    of: Partial


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        name: The column's name.
        grain: Of which table.
        type: Its Arrow type.
        meaning: What it is, in a sentence.
        finish: SQL expression over the names of partials and overalls, `$parameters` and `catalog`'s columns.
        partials: What `finish` needs.
        unit: Of its values; empty for what has none.
        null_when: When it is null; empty if never.
        names_items: Whether `finish` gives numbers of items, to be replaced by their item_id.
        overalls: What `finish` needs of all items together.
    """

    name: str
    grain: Grain
    type: pa.DataType
    meaning: str
    finish: str
    partials: tuple[Partial, ...] = ()
    unit: str = ""
    null_when: str = ""
    names_items: bool = False
    overalls: tuple[Overall, ...] = ()


def is_type(name: str) -> str:
    """SQL for an event being of an interaction type; events hold its place among all types."""
    return f"interaction_type = {INTERACTION_TYPES.index(name)}"


def units(value: str) -> str:
    """SQL for a double in fixed point."""
    return f"({value} * {UNITS})::BIGINT"


def from_units(total: str) -> str:
    """SQL for the double that a sum of `units` stands for."""
    return f"{total}::HUGEINT::DOUBLE / {UNITS}"
