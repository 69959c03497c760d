"""Prints rows of any table for people; wide tables are transposed."""

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from headrace.arrow import pa
from headrace.cli.console import plain

CELL_WIDTH = 28
"""Characters shown of a value."""


def show_rows(console: Console, rows: pa.Table) -> None:
    """Prints rows, as many side by side as fit if the columns do not."""
    values = [{name: _cell(value) for name, value in row.items()} for row in rows.to_pylist()]
    names = rows.column_names
    widths = {name: max([len(name), *(len(row[name]) for row in values)]) for name in names}
    if sum(widths.values()) + 3 * len(names) + 1 <= console.width:
        table = Table(*names)
        for row in values:
            table.add_row(*(plain(row[name]) for name in names))
        console.print(table)
        return
    name_width = max(map(len, names)) + 4
    beside = max(1, (console.width - name_width) // (CELL_WIDTH + 3))
    for first in range(0, len(values), beside):
        table = Table("row", *(str(first + n) for n in range(len(values[first : first + beside]))))
        for name in names:
            table.add_row(name, *(plain(row[name]) for row in values[first : first + beside]))
        console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ").removesuffix("+00:00")
    if isinstance(value, float):
        return str(float(f"{value:.6g}"))
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"
