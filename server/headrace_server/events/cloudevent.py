"""Commit events as CloudEvents 1.0.

An event's id is derived from what it tells of, `{tenant}/{table}@{version}`, so a
replay gives the same ids and consumers can drop what they have seen.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

TYPES = {
    "interactions": "headrace.interaction.v1",
    "items": "headrace.item.v1",
    "user_features": "headrace.features.v1",
    "item_features": "headrace.features.v1",
    "training_data": "headrace.training.v1",
}
"""Event type by table kind; commits of other kinds (rejects) publish nothing."""


@dataclass(frozen=True)
class CommitEvent:
    """One version of one table.

    Attributes:
        table: Its name, as ListTables gives it.
        time_us: When it was committed.
        lineage: Inputs, parameters and code version, as the commit records them.
    """

    tenant: str
    table: str
    kind: str
    uri: str
    version: int
    rows: int
    time_us: int
    lineage: Mapping[str, str]

    @property
    def id(self) -> str:
        """Deterministic id."""
        return f"{self.tenant}/{self.table}@{self.version}"

    def to_json(self) -> str:
        """The CloudEvents JSON format, on one line."""
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": f"/headrace/{self.tenant}",
            "type": TYPES[self.kind],
            "time": datetime.fromtimestamp(self.time_us / 1e6, UTC).isoformat().replace("+00:00", "Z"),
            "tenantid": self.tenant,
            "datacontenttype": "application/json",
            "data": {
                "table": self.table,
                "table_uri": self.uri,
                "version": self.version,
                "rows": self.rows,
                "lineage": dict(self.lineage),
            },
        }
        return json.dumps(event, ensure_ascii=False, separators=(",", ":"))
