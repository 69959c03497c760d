"""The queries that follow from the registry: what partials take of events, and what comes of their sums."""

from collections.abc import Mapping, Sequence

from headrace_compute.features.feature import Feature
from headrace_compute.features.registry import overalls_of, partials_of

# Counted from the year 0, which began on a Saturday: // rounds to zero, so the days around 1970 would be one.
_HOURS = "(time_us + 62167219200000000) // 3600000000"

_TYPES = {"count": "TINYINT", "histogram": "TINYINT"}
"""DuckDB's type of what an operation takes; BIGINT where nothing is said."""


def values_query(expressions: Mapping[tuple[str, str], str]) -> str:
    """What operations take of each event, in the order of the events.

    Args:
        expressions: Name of the result's column by operation and SQL expression.
    """
    columns = ",\n    ".join(
        f"({of})::{_TYPES.get(operation, 'BIGINT')} AS {name}"
        for (operation, of), name in expressions.items()
    )
    return f"""SELECT
    {columns}
FROM (
    SELECT *, hours % 24 AS hour, (hours // 24 + 5) % 7 AS weekday, hours // 24 AS day
    FROM (SELECT *, {_HOURS} AS hours FROM events)
)"""


def each_cut(expression: str) -> str:
    """SQL as of one instant made into SQL that takes the instant from a column, as_of_us."""
    return expression.replace("$as_of_us", "as_of_us")


def points_query(features: Sequence[Feature]) -> str:
    """Features at many cut times; codes for names and microseconds for times.

    They are made of the tables `points` (place, as_of_us, item_code if it is about items, and the partials of
    each), in the order of `place`, `overalls` (as_of_us, and what all items had then) and `catalog`.
    """
    columns = "".join(f",\n    {each_cut(feature.finish)} AS {feature.name}" for feature in features)
    tables = ["points"]
    if overalls_of(features):
        tables.append("LEFT JOIN overalls USING (as_of_us)")
    if any("catalog." in feature.finish for feature in features):
        tables.append("LEFT JOIN catalog USING (item_code)")
    return f"SELECT\n    place{columns}\nFROM {' '.join(tables)}\nORDER BY place"


def users_query(features: Sequence[Feature]) -> str:
    """The user features of a shard, of the table `aggregates` and in its order; codes for names."""
    return f"SELECT\n    user_code{_finished(features)}\nFROM aggregates"


def totals_query(features: Sequence[Feature]) -> str:
    """Item aggregates of several shards, the table `partials`, added up."""
    sums = "".join(f",\n    {each.merged} AS {each.name}" for each in partials_of(features))
    return f"SELECT\n    item_code{sums}\nFROM partials\nGROUP BY item_code\nORDER BY item_code"


def items_query(features: Sequence[Feature]) -> str:
    """The item features, codes for names and microseconds for times, then in_catalog.

    They are in the order of bucket and item_code, and made of the tables `items` (item_code, bucket), which
    has all there are, `totals` (the aggregates of all shards) and `catalog` (item_code, its columns).
    """
    overalls = ", ".join(f"{each.function}({each.of.name}) AS {each.name}" for each in overalls_of(features))
    of_all = f"CROSS JOIN (SELECT {overalls} FROM totals)" if overalls else ""
    return f"""SELECT
    item_code{_finished(features)},
    items.bucket,
    catalog.item_code IS NOT NULL AS in_catalog
FROM items
LEFT JOIN totals USING (item_code)
LEFT JOIN catalog USING (item_code)
{of_all}
ORDER BY bucket, item_code"""


def _finished(features: Sequence[Feature]) -> str:
    """The columns of features, to follow others."""
    return "".join(f",\n    {feature.finish} AS {feature.name}" for feature in features)
