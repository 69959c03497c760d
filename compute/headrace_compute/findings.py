"""What validation finds, as values that merge.

Each block yields `Findings`. Merging is associative, so the findings of an upload are
the sum of those of its blocks. Counts are exact, samples are those with
the lowest row numbers. `report.py` turns them into what clients read.
"""

import base64
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from headrace_compute.columns import ColumnType
from headrace_compute.distinct import REGISTERS, merge_sketches

SAMPLES = 20
"""Samples kept per check and per warning."""

NAMED_UNKNOWN_COLUMNS = 100
"""Unknown columns named one by one; the others are counted together under the column ''."""

NAME_BYTES = 256
"""Bytes shown of an unknown column's name, so that a report is small whatever a header says."""

Bound = str | float | int
Key = tuple[str, str]


@dataclass(frozen=True)
class Reject:
    """One rule that one record broke; fields as in headrace.v1.Reject."""

    row_number: int
    line: int | None
    byte_offset: int | None
    column: str
    code: str
    message: str
    value: str
    raw: str | None
    duplicate_of: int | None = None


@dataclass(frozen=True)
class CheckFindings:
    """The records that broke one rule in one column."""

    failing_rows: int
    samples: tuple[Reject, ...]

    def merge(self, other: "CheckFindings") -> "CheckFindings":
        """Both together."""
        samples = sorted(self.samples + other.samples, key=lambda reject: reject.row_number)
        return CheckFindings(self.failing_rows + other.failing_rows, tuple(samples[:SAMPLES]))


@dataclass(frozen=True)
class ColumnFindings:
    """The values of one column.

    Attributes:
        present: Whether the stream has the column at all.
        nulls: Records in which it is empty or absent.
        sketch: HyperLogLog registers of the values that parsed.
        minimum, maximum: Of the values that parsed, None if none did; timestamps in microseconds,
            strings in UTF-8 byte order, cut at 256 bytes.
        total, numbers: Sum and count of the values that parsed; numbers only.
    """

    type: ColumnType
    present: bool = True
    nulls: int = 0
    sketch: bytes = bytes(REGISTERS)
    minimum: Bound | None = None
    maximum: Bound | None = None
    total: float = 0.0
    numbers: int = 0

    def merge(self, other: "ColumnFindings") -> "ColumnFindings":
        """Both together. Totals are doubles: merge blocks in order for equal bits."""
        return ColumnFindings(
            type=self.type,
            present=self.present or other.present,
            nulls=self.nulls + other.nulls,
            sketch=merge_sketches(self.sketch, other.sketch),
            minimum=_extreme(min, self.minimum, other.minimum),
            maximum=_extreme(max, self.maximum, other.maximum),
            total=self.total + other.total,
            numbers=self.numbers + other.numbers,
        )


@dataclass(frozen=True)
class WarningFindings:
    """Something odd that rejects no row; `count` is 0 when a whole column is meant."""

    count: int = 0
    samples: tuple[str, ...] = ()

    def merge(self, other: "WarningFindings") -> "WarningFindings":
        """Both together."""
        samples = tuple(dict.fromkeys(self.samples + other.samples))
        return WarningFindings(self.count + other.count, samples[:SAMPLES])


@dataclass(frozen=True)
class Findings:
    """What validation found in some records.

    Attributes:
        received: Records; `received = accepted + rejected`.
        rejected: Records kept out, duplicates included.
        duplicates: Of these, exact duplicates of an earlier accepted row.
        unreadable: Records of WRONG_FIELD_COUNT, BAD_QUOTE or BAD_JSON; they are null in every column.
        checks: (column, code) -> what broke it; column '' is the record as a whole.
        columns: Contract columns in contract order.
        warnings: (code, column) -> what was seen.
    """

    received: int = 0
    rejected: int = 0
    duplicates: int = 0
    unreadable: int = 0
    checks: Mapping[Key, CheckFindings] = field(default_factory=dict)
    columns: Mapping[str, ColumnFindings] = field(default_factory=dict)
    warnings: Mapping[Key, WarningFindings] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        """Rows that satisfy the contract, duplicates left out."""
        return self.received - self.rejected

    @property
    def bad_records(self) -> int:
        """Records that broke a rule; what max_rejects and max_reject_ratio count."""
        return self.rejected - self.duplicates

    @property
    def counts(self) -> "Findings":
        """The same without checks, columns and warnings: small, for whoever keeps many."""
        return Findings(self.received, self.rejected, self.duplicates, self.unreadable)

    def first_rejects(self, count: int) -> list[Reject]:
        """The samples with the lowest row numbers, at most `count`."""
        samples = [sample for check in self.checks.values() for sample in check.samples]
        return sorted(samples, key=lambda reject: reject.row_number)[:count]

    def merge(self, other: "Findings") -> "Findings":
        """Both together."""
        return Findings(
            received=self.received + other.received,
            rejected=self.rejected + other.rejected,
            duplicates=self.duplicates + other.duplicates,
            unreadable=self.unreadable + other.unreadable,
            checks=_merged(self.checks, other.checks),
            columns=_merged(self.columns, other.columns),
            warnings=_bounded(_merged(self.warnings, other.warnings)),
        )

    def with_duplicates(self, count: int, samples: Sequence[Reject]) -> "Findings":
        """These findings after some accepted rows turned out to be duplicates.

        Args:
            count: How many did.
            samples: The first of all duplicates, known before or not.
        """
        duplicates = self.duplicates + count
        check = CheckFindings(duplicates, tuple(samples[:SAMPLES]))
        return replace(
            self,
            rejected=self.rejected + count,
            duplicates=duplicates,
            checks={**self.checks, ("", "DUPLICATE"): check},
        )

    def with_warning(self, code: str, column: str, count: int, samples: Sequence[str] = ()) -> "Findings":
        """These findings with one more warning."""
        warning = WarningFindings(count, tuple(samples[:SAMPLES]))
        return replace(self, warnings=_bounded(_merged(self.warnings, {(code, column): warning})))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return {
            "received": self.received,
            "rejected": self.rejected,
            "duplicates": self.duplicates,
            "unreadable": self.unreadable,
            "checks": [
                [*key, check.failing_rows, [asdict(sample) for sample in check.samples]]
                for key, check in self.checks.items()
            ],
            "columns": {
                name: asdict(column) | {"sketch": base64.b64encode(zlib.compress(column.sketch, 1)).decode()}
                for name, column in self.columns.items()
            },
            "warnings": [
                [*key, warning.count, list(warning.samples)] for key, warning in self.warnings.items()
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Findings":
        """What `to_json` wrote."""
        return cls(
            received=data["received"],
            rejected=data["rejected"],
            duplicates=data["duplicates"],
            unreadable=data["unreadable"],
            checks={
                (column, code): CheckFindings(rows, tuple(Reject(**sample) for sample in samples))
                for column, code, rows, samples in data["checks"]
            },
            columns={
                name: ColumnFindings(
                    **column | {"sketch": zlib.decompress(base64.b64decode(column["sketch"]))}
                )
                for name, column in data["columns"].items()
            },
            warnings={
                (code, column): WarningFindings(count, tuple(samples))
                for code, column, count, samples in data["warnings"]
            },
        )


def unknown_columns(names: Mapping[str, int], unnamed: Sequence[int] = ()) -> dict[Key, WarningFindings]:
    """The warnings of columns outside the contract.

    Args:
        names: Name -> records that have it, 0 for a column of a header. Cut at NAME_BYTES. One of no or only
            white characters is that of a JSON key without a name, which has no place.
        unnamed: Places of columns without a name, counted from 1.
    """
    counts: Counter[str] = Counter()
    for name, count in names.items():
        counts[name.encode()[:NAME_BYTES].decode(errors="ignore") if name.strip() else ""] += count
    nameless = counts.pop("", 0)
    warnings = {("UNKNOWN_COLUMN", name): WarningFindings(count) for name, count in counts.items()}
    if nameless or unnamed:
        places = tuple(map(str, unnamed[:SAMPLES]))
        warnings["UNNAMED_COLUMN", ""] = WarningFindings(nameless, places)
    return _bounded(warnings)


def _extreme(choose: Any, a: Bound | None, b: Bound | None) -> Bound | None:
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, str) and isinstance(b, str):
        # Python compares code points, which is the order of the UTF-8 bytes.
        return str(choose(a, b))
    return a if choose(a, b) == a else b


def _merged(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> dict[Any, Any]:
    merged = dict(a)
    for key, value in b.items():
        merged[key] = merged[key].merge(value) if key in merged else value
    return merged


def _bounded(warnings: dict[Key, WarningFindings]) -> dict[Key, WarningFindings]:
    """Folds all but the first unknown columns, in name order, into one entry."""
    unknown = sorted(key for key in warnings if key[0] == "UNKNOWN_COLUMN" and key[1])
    for key in unknown[NAMED_UNKNOWN_COLUMNS:]:
        rest = WarningFindings(warnings.pop(key).count)
        others = ("UNKNOWN_COLUMN", "")
        warnings[others] = warnings[others].merge(rest) if others in warnings else rest
    return warnings
