"""The contract of items: one catalog entry per row; the newest row of an item_id is the current one."""

import pandera.polars as pa
import polars as pl

from headrace_compute.schemas.checks import at_least, max_bytes, no_control_characters


def items() -> pa.DataFrameSchema:
    """The schema."""
    columns = {
        "item_id": pa.Column(
            pl.String, [max_bytes(256), no_control_characters()], description="Identifies the item."
        ),
        "title": pa.Column(pl.String, max_bytes(1024), description="Display name."),
        "category": pa.Column(pl.String, max_bytes(256), nullable=True, description="Category."),
        "price": pa.Column(
            pl.Float64, at_least(0.0), nullable=True, description="Price in the tenant's currency."
        ),
        "brand": pa.Column(pl.String, max_bytes(256), nullable=True, description="Brand."),
        "description": pa.Column(pl.String, max_bytes(16 << 10), nullable=True, description="Free text."),
    }
    return pa.DataFrameSchema(columns, strict=True, ordered=True, name="items")
