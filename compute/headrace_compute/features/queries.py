"""The queries that follow from the registry.

A shard's events are a table `events`: user_code, item_code (int32), interaction_type (int8, its place among
all types), time_us (int64), rating (double); its pairs are a table `pairs`, see pairs.sql.
"""

from collections.abc import Sequence

from headrace_compute.features.feature import Feature, Grain, Partial, Relation
from headrace_compute.features.registry import partials_of

# Counted from the year 0, which began on a Saturday: // rounds to zero, so the days around 1970 would be one.
_HOURS = "(time_us + 62167219200000000) // 3600000000"

_RELATIONS: dict[Relation, str] = {
    "events": f"""
        SELECT *, hours % 24 AS hour, (hours // 24 + 5) % 7 AS weekday
        FROM (SELECT *, {_HOURS} AS hours FROM events)""",
    "pairs": """
        SELECT (pair // 4294967296)::INTEGER AS user_code, (pair % 4294967296)::INTEGER AS item_code, last_us
        FROM pairs""",
    "days": f"""
        SELECT DISTINCT user_code, {_HOURS} // 24 AS day
        FROM events""",
}


def users_query(features: Sequence[Feature]) -> str:
    """The user features of a shard, with codes for names and microseconds for times, by user_code."""
    columns = ",\n    ".join(f"{feature.finish} AS {feature.name}" for feature in features)
    aggregates = _aggregates("user", partials_of(features))
    return f"{aggregates}\nSELECT\n    user_code,\n    {columns}\nFROM aggregates\nORDER BY user_code"


def partials_query(features: Sequence[Feature]) -> str:
    """The item aggregates of a shard, by item_code."""
    partials = partials_of(features)
    columns = ",\n    ".join(each.name for each in partials)
    aggregates = _aggregates("item", partials)
    return f"{aggregates}\nSELECT\n    item_code,\n    {columns}\nFROM aggregates\nORDER BY item_code"


def totals_query(features: Sequence[Feature]) -> str:
    """Item aggregates of several shards, the table `partials`, added up."""
    sums = ",\n    ".join(
        f"{each.merge}({each.name})::{each.sql_type} AS {each.name}" for each in partials_of(features)
    )
    return f"SELECT\n    item_code,\n    {sums}\nFROM partials\nGROUP BY item_code\nORDER BY item_code"


def items_query(features: Sequence[Feature]) -> str:
    """The item features, with codes for names and microseconds for times, then in_catalog.

    They are in the order of bucket and item_code, and made of the tables `items` (item_code, bucket), which
    has all there are, `totals` (the aggregates of all shards) and `catalog` (item_code, its columns).
    """
    columns = ",\n    ".join(f"{feature.finish} AS {feature.name}" for feature in features)
    return f"""SELECT
    item_code,
    {columns},
    items.bucket,
    catalog.item_code IS NOT NULL AS in_catalog
FROM items
LEFT JOIN totals USING (item_code)
LEFT JOIN catalog USING (item_code)
ORDER BY bucket, item_code"""


def _aggregates(grain: Grain, partials: Sequence[Partial]) -> str:
    """The CTE `aggregates`: the partials of each user or item."""
    code = f"{grain}_code"
    relations = list(dict.fromkeys(partial.relation for partial in partials))
    parts = []
    for relation in relations:
        columns = ",\n        ".join(
            f"({each.sql})::{each.sql_type} AS {each.name}" for each in partials if each.relation == relation
        )
        parts.append(
            f"of_{relation} AS (\n    SELECT\n        {code},\n        {columns}\n"
            f"    FROM ({_RELATIONS[relation]})\n    GROUP BY {code}\n)"
        )
    joined = "".join(f"\n    JOIN of_{relation} USING ({code})" for relation in relations[1:])
    parts.append(f"aggregates AS (\n    FROM of_{relations[0]}{joined}\n)")
    return "WITH " + ",\n\n".join(parts) + "\n"
