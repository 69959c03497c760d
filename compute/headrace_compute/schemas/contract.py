"""The data contract: the schema to validate with, and its description.

Everything here is read off the pandera schemas; the only rules added are those
that the parser enforces before pandera sees typed columns. Pandera is loaded when a
schema is first asked for, which only workers do: the server saves its memory.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headrace_compute.columns import CONTRACT, ColumnType
from headrace_compute.model import DataType, StoreConfig
from headrace_compute.report import iso_time

if TYPE_CHECKING:
    import pandera.polars as pa

MISSING = "is empty; every row must have one."
"""The message of a reject for an empty required cell."""

_LATEST_US = 253_402_300_799_999_999
"""The last timestamp of all: 9999-12-31T23:59:59.999999Z."""


@dataclass(frozen=True)
class Rule:
    """A rule and the code that a row breaking it is rejected with."""

    code: str
    description: str


@dataclass(frozen=True)
class ColumnContract:
    """One column; fields as in headrace.v1.ColumnSchema, None where unset."""

    name: str
    type: ColumnType
    required: bool
    description: str
    rules: tuple[Rule, ...]
    allowed_values: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    max_bytes: int | None


@dataclass(frozen=True)
class SchemaDescription:
    """The contract of a data type; columns in contract order."""

    data_type: DataType
    columns: tuple[ColumnContract, ...]
    rules: tuple[Rule, ...]


_PARSING: dict[ColumnType, tuple[Rule, ...]] = {
    "string": (Rule("BAD_TEXT", "Valid UTF-8."),),
    "double": (Rule("BAD_NUMBER", "A finite decimal number, such as 4.5 or 1e3."),),
    "timestamp": (
        Rule(
            "BAD_TIMESTAMP",
            "ISO 8601: a date, or date `T` or space time with optional fraction and Z, +HH, +HH:MM or +HHMM.",
        ),
    ),
}
_BAD_TYPE = Rule(
    "BAD_TYPE",
    "In JSON and Arrow, a value of the column's type. Integers are taken as text; booleans are not numbers.",
)
_RECORD_RULES = (
    Rule("WRONG_FIELD_COUNT", "A CSV record has as many fields as the header."),
    Rule(
        "BAD_QUOTE", 'In CSV a comma or line end follows a closing quote; `""` is a quote in a quoted value.'
    ),
    Rule("BAD_JSON", "A JSON line is one JSON object that names each column once."),
    Rule("DUPLICATE", "No row equals an earlier valid row of the same upload in every column."),
)


@lru_cache(maxsize=64)
def schema_of(data_type: DataType, latest_us: int) -> "pa.DataFrameSchema":
    """The pandera schema of a data type.

    Args:
        latest_us: Timestamps later than this fail.
    """
    from headrace_compute.schemas.interactions import interactions
    from headrace_compute.schemas.items import items

    latest_us = min(latest_us, _LATEST_US)
    return interactions(latest_us, iso_time(latest_us)) if data_type == "interactions" else items()


@lru_cache
def describe(data_type: DataType) -> SchemaDescription:
    """The contract of a data type in words and numbers."""
    schema = schema_of(data_type, 0)
    return SchemaDescription(
        data_type=data_type,
        columns=tuple(
            _describe(name, kind, schema.columns[name]) for name, kind in CONTRACT[data_type].items()
        ),
        rules=_RECORD_RULES,
    )


def describe_for(config: StoreConfig, data_type: DataType) -> SchemaDescription:
    """`describe` as a stage, for callers without pandera."""
    return describe(data_type)


def _describe(name: str, kind: ColumnType, column: "pa.Column") -> ColumnContract:
    statistics: dict[str, Any] = {}
    for check in column.checks:
        statistics |= check.statistics or {}
    required = (Rule("MISSING", "Not empty."),) if not column.nullable else ()
    return ColumnContract(
        name=name,
        type=kind,
        required=not column.nullable,
        description=column.description,
        rules=(
            *required,
            *_PARSING[kind],
            *(Rule(check.name, check.description) for check in column.checks),
            _BAD_TYPE,
        ),
        allowed_values=tuple(statistics.get("allowed_values", ())),
        minimum=statistics.get("min_value"),
        maximum=statistics.get("max_value"),
        max_bytes=statistics.get("max_bytes"),
    )
