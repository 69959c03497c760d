"""The contract of interactions: one event between a user and an item per row."""

import pandera.polars as pa

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.schemas.checks import between, max_bytes, no_control_characters, not_after, one_of
from headrace_compute.schemas.rules import Rules, schema_with


def interactions(latest_us: int, latest: str) -> pa.DataFrameSchema:
    """The schema, for an upload whose timestamps may go up to `latest_us` (`latest` as text)."""
    rules = {
        "user_id": Rules([max_bytes(256), no_control_characters()], "Who acted."),
        "item_id": Rules([max_bytes(256), no_control_characters()], "What was acted on."),
        "interaction_type": Rules(one_of(INTERACTION_TYPES), "What the user did."),
        "timestamp": Rules(
            not_after(latest_us, latest),
            "When; without an offset in UTC, finer than a microsecond truncated.",
        ),
        "rating": Rules(between(1.0, 5.0), "How much the user liked the item.", nullable=True),
    }
    return schema_with("interactions", rules)
