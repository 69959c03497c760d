"""The contract of interactions: one event between a user and an item per row."""

import pandera.polars as pa
import polars as pl

from headrace_compute.schemas.checks import between, max_bytes, no_control_characters, not_after, one_of

INTERACTION_TYPES = ("view", "click", "purchase", "like", "add_to_cart")


def interactions(latest_us: int, latest: str) -> pa.DataFrameSchema:
    """The schema, for an upload whose timestamps may go up to `latest_us` (`latest` as text)."""
    columns = {
        "user_id": pa.Column(pl.String, [max_bytes(256), no_control_characters()], description="Who acted."),
        "item_id": pa.Column(
            pl.String, [max_bytes(256), no_control_characters()], description="What was acted on."
        ),
        "interaction_type": pa.Column(pl.String, one_of(INTERACTION_TYPES), description="What the user did."),
        "timestamp": pa.Column(
            pl.Datetime("us", "UTC"),
            not_after(latest_us, latest),
            description="When; without an offset in UTC, finer than a microsecond truncated.",
        ),
        "rating": pa.Column(
            pl.Float64, between(1.0, 5.0), nullable=True, description="How much the user liked the item."
        ),
    }
    return pa.DataFrameSchema(columns, strict=True, ordered=True, name="interactions")
