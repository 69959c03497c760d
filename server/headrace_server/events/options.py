"""Which events are published, and in which format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Format = Literal["json", "protobuf"]
RowEvents = Literal["rows", "commits", "none"]

TYPES = {
    "interactions": "headrace.interaction.v1",
    "items": "headrace.item.v1",
    "user_features": "headrace.features.v1",
    "item_features": "headrace.features.v1",
    "training_data": "headrace.training.v1",
}
"""Event type by table kind; commits of other kinds (rejects) publish nothing."""


@dataclass(frozen=True)
class EventOptions:
    """Which events are published, and in which format.

    Attributes:
        topics: Topic by table kind.
        rows: What the tables of rows tell: each row, each commit, or nothing.
        format: How payloads are written.
    """

    topics: Mapping[str, str]
    rows: RowEvents = "commits"
    format: Format = "json"

    def tells_rows(self, kind: str) -> bool:
        """Whether a table of this kind has an event for each row."""
        return self.rows == "rows" and kind in ("interactions", "items")

    def tells_nothing(self, kind: str) -> bool:
        """Whether a table of this kind has no events."""
        return kind not in TYPES or (self.rows == "none" and kind in ("interactions", "items"))
