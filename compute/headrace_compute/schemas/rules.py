"""Rules: what the columns of the contract must hold, as a pandera schema."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandera.polars as pa
import polars as pl

from headrace_compute.columns import CONTRACT, ColumnType
from headrace_compute.model import DataType

_POLARS: Mapping[ColumnType, pl.DataType | type[pl.DataType]] = {
    "string": pl.String,
    "double": pl.Float64,
    "timestamp": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Rules:
    """What the values of one column must satisfy.

    Attributes:
        checks: One check, or several.
        description: The column as GetSchema describes it.
        nullable: Whether a row may be without a value.
    """

    checks: pa.Check | list[pa.Check]
    description: str
    nullable: bool = False


def schema_with(data_type: DataType, rules: Mapping[str, Rules]) -> pa.DataFrameSchema:
    """The schema of a data type: its columns and their types are those of the contract.

    Args:
        rules: By column, for each column of the contract.
    """
    if rules.keys() != CONTRACT[data_type].keys():
        raise ValueError(f"rules for {', '.join(rules)}; {data_type} have {', '.join(CONTRACT[data_type])}")
    columns = {
        name: pa.Column(
            _POLARS[kind],
            rules[name].checks,
            nullable=rules[name].nullable,
            description=rules[name].description,
        )
        for name, kind in CONTRACT[data_type].items()
    }
    return pa.DataFrameSchema(columns, strict=True, ordered=True, name=data_type)
