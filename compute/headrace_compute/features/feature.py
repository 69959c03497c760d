"""What a feature is: one column of user_features or item_features, declared once.

A declaration has the column's name, type and meaning, and its SQL in two steps. A Partial is an aggregate
over the events of one shard that adds up over shards; `finish` makes the column of the sums. Queries,
schemas, column comments, DescribeFeatures and docs/features.md all follow from it.
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from headrace_compute.columns import INTERACTION_TYPES

Grain = Literal["user", "item"]

GRAINS: tuple[Grain, ...] = ("user", "item")

COUNT = pa.int64()
DOUBLE = pa.float64()

UNITS = 1 << 40
"""Sums of doubles are sums of integers in units of 2^-40, so that no order of addition changes a bit."""

Relation = Literal["events", "pairs", "days"]
"""What a partial is an aggregate of: the events of a shard, its distinct (user, item) pairs, or its
distinct (user, day) pairs; see `queries`."""


@dataclass(frozen=True)
class Partial:
    """An aggregate of one shard.

    Attributes:
        name: Its column.
        sql: Aggregate expression over the relation, of the type `sql_type`.
        sql_type: DuckDB's type.
        relation: What it aggregates.
        merge: What makes one of several shards'; None if only users have it, which never cross shards.
    """

    name: str
    sql: str
    sql_type: str = "BIGINT"
    relation: Relation = "events"
    merge: Literal["sum", "min", "max"] | None = "sum"


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        name: The column's name.
        grain: Of which table.
        type: Its Arrow type.
        meaning: What it is, in a sentence.
        finish: SQL expression over the names of partials, `$parameters` and the columns of `catalog`.
        partials: What `finish` needs.
        unit: Of its values; empty for what has none.
        null_when: When it is null; empty if never.
        names_items: Whether `finish` gives numbers of items, to be replaced by their item_id.
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


def is_type(name: str) -> str:
    """SQL for an event being of an interaction type; events hold its place among all types."""
    return f"interaction_type = {INTERACTION_TYPES.index(name)}"


def units(value: str) -> str:
    """SQL for a double in fixed point."""
    return f"({value} * {UNITS})::BIGINT"


def from_units(total: str) -> str:
    """SQL for the double that a sum of `units` stands for."""
    return f"{total}::HUGEINT::DOUBLE / {UNITS}"
