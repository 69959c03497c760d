"""The contract of items: one catalog entry per row; the newest row of an item_id is the current one."""

import pandera.polars as pa

from headrace_compute.schemas.checks import at_least, max_bytes, no_control_characters
from headrace_compute.schemas.rules import Rules, schema_with


def items() -> pa.DataFrameSchema:
    """The schema."""
    rules = {
        "item_id": Rules([max_bytes(256), no_control_characters()], "Identifies the item."),
        "title": Rules(max_bytes(1024), "Display name."),
        "category": Rules(max_bytes(256), "Category.", nullable=True),
        "price": Rules(at_least(0.0), "Price in the tenant's currency.", nullable=True),
        "brand": Rules(max_bytes(256), "Brand.", nullable=True),
        "description": Rules(max_bytes(16 << 10), "Free text.", nullable=True),
    }
    return schema_with("items", rules)
