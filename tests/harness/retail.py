"""The real slice in tests/data/online_retail, read with the standard library by docs/semantics.md."""

import csv
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.features import Row
from harness.oracle import FACTS, WEIGHTS

DATA = Path(__file__).parents[1] / "data" / "online_retail"


def valid_interactions() -> list[Row]:
    """What is kept of interactions.csv: rows that break no rule, equal ones once."""
    rows: dict[Row, None] = {}
    for record in _records("interactions"):
        if record["user_id"] and record["item_id"] and record["interaction_type"] in WEIGHTS:
            rating = float(record["rating"]) if record["rating"] else None
            time = datetime.fromisoformat(record["timestamp"])
            row = (record["user_id"], record["item_id"], record["interaction_type"], time, rating)
            rows[row] = None
    return list(rows)


def current_catalog() -> dict[str, Mapping[str, Any]]:
    """What the last valid row of items.csv says of each item."""
    catalog: dict[str, Mapping[str, Any]] = {}
    for record in _records("items"):
        if record["item_id"] and record["title"]:
            facts: dict[str, Any] = {name: record[name] or None for name in FACTS}
            facts["price"] = float(record["price"]) if record["price"] else None
            catalog[record["item_id"]] = facts
    return catalog


def _records(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
