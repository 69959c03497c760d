"""What ingesting one block yields: the content of a session's block record."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from headrace_compute.findings import Findings
from headrace_compute.model import Block, ColumnStats, Part


@dataclass(frozen=True)
class BlockResult:
    """One block, validated and stored.

    Attributes:
        data: The accepted rows, None if there are none.
        sidecar: Where each accepted row stood and how it hashes, None with `data`.
        rejects: Parts of reject rows.
        findings: What validation found, counts included.
    """

    block: Block
    data: Part | None
    sidecar: Part | None
    rejects: tuple[Part, ...]
    findings: Findings

    @property
    def received(self) -> int:
        """Records of the block."""
        return self.findings.received

    @property
    def accepted(self) -> int:
        """Rows in `data`."""
        return self.findings.accepted

    @property
    def rejected(self) -> int:
        """Records kept out, duplicates included."""
        return self.findings.rejected

    @property
    def duplicates(self) -> int:
        """Records kept out as duplicates."""
        return self.findings.duplicates

    @property
    def bad_records(self) -> int:
        """Records that broke a rule."""
        return self.findings.bad_records

    @property
    def counted(self) -> "BlockResult":
        """The same with nothing but counts for findings."""
        return replace(self, findings=self.findings.counts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Everything it has stored."""
        return (*(part for part in (self.data, self.sidecar) if part is not None), *self.rejects)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return {
            "block": asdict(self.block),
            "data": None if self.data is None else asdict(self.data),
            "sidecar": None if self.sidecar is None else asdict(self.sidecar),
            "rejects": [asdict(part) for part in self.rejects],
            "findings": self.findings.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "BlockResult":
        """What `to_json` wrote."""
        return cls(
            block=Block(**data["block"]),
            data=None if data["data"] is None else part_from_json(data["data"]),
            sidecar=None if data["sidecar"] is None else part_from_json(data["sidecar"]),
            rejects=tuple(part_from_json(part) for part in data["rejects"]),
            findings=Findings.from_json(data["findings"]),
        )


def part_from_json(data: Mapping[str, Any]) -> Part:
    """The part that `dataclasses.asdict` turned into a JSON object."""
    return Part(**{**data, "stats": {name: ColumnStats(**stats) for name, stats in data["stats"].items()}})
