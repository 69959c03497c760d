"""Validate: runs the pandera schema over a block's typed columns.

Pandera and Polars are loaded by the first block: the server imports this module
to name its function, and does not need them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace_compute.ingest.parse import Failure, Parsed
from headrace_compute.kernels.text import look_at
from headrace_compute.model import UploadSpec
from headrace_compute.schemas.contract import MISSING, schema_of

if TYPE_CHECKING:
    from pandera.errors import SchemaError

_MEANINGLESS = frozenset({"MISSING", "NOT_IN_SET", "BAD_TEXT"})
"""Codes not reported for a cell that does not parse: they would add nothing."""

SUSPECTS_AT_ONCE = 1 << 16
"""Rows that pandera is given at a time: it takes some 300 bytes for each."""

Rule = tuple[str, str, str]
"""Column, code, and what it says of a value."""


def validate(spec: UploadSpec, parsed: Parsed) -> list[Failure]:
    """What pandera finds in a block, apart from what parsing found already.

    Raises:
        SchemaErrors: The table does not have the schema's columns, which is a fault of ours.
    """
    import polars as pl
    from pandera.config import ValidationDepth, config_context
    from pandera.errors import SchemaErrors

    schema = schema_of(spec.data_type, spec.latest_us)
    suspects = _suspects(schema, parsed.table)
    if suspects.size == 0:
        return []
    failing: dict[Rule, list[np.ndarray]] = {}
    # Pandera can be switched off by an environment variable; a data contract cannot.
    with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        for begin in range(0, suspects.size, SUSPECTS_AT_ONCE):
            some = suspects[begin : begin + SUSPECTS_AT_ONCE]
            try:
                schema.validate(pl.DataFrame(parsed.table.take(pa.array(some))), lazy=True)
            except SchemaErrors as errors:
                if any(error.check_output is None for error in errors.schema_errors):
                    raise
                for error in errors.schema_errors:
                    rule, rows = _broken(error, some)
                    failing.setdefault(rule, []).append(rows)
    failures = [_failure(rule, np.concatenate(rows), parsed) for rule, rows in failing.items()]
    return [failure for failure in failures if failure.rows.size]


def _suspects(schema: Any, table: pa.Table) -> np.ndarray:
    """Rows in which some check fails, ascending.

    Pandera runs some thirty queries, which dominate the cost of a small block (7 ms of 8);
    for a large one it is the search through texts that rarely contain a fault. So each check
    runs once, on the rows that a scan of the bytes does not decide. Pandera then reports
    what fails, on the rows in which something does.
    """
    from headrace_compute.schemas.checks import surely_holds

    bad = np.zeros(table.num_rows, np.bool_)
    for name, column in schema.columns.items():
        values = table.column(name)
        if not column.nullable and values.null_count:
            bad |= values.is_null().to_numpy()
        texts = look_at(values.combine_chunks()) if pa.types.is_string(values.type) else None
        for check in column.checks:
            decided = surely_holds(check, texts) if texts else np.zeros(len(values), np.bool_)
            if not decided.any():
                bad |= ~_holds(check, name, values)
            elif not decided.all():
                rows = np.flatnonzero(~decided)
                bad[rows] |= ~_holds(check, name, values.take(pa.array(rows)))
    return np.flatnonzero(bad)


def _holds(check: Any, name: str, values: pa.ChunkedArray) -> np.ndarray:
    """Whether a check holds for each value."""
    # Gives pandera's own checks an implementation for Polars.
    import pandera.backends.polars.builtin_checks  # noqa: F401
    import polars as pl
    from pandera.api.polars.types import PolarsData

    # As pandera does: its own checks have an implementation for each kind of frame.
    own, arguments = check._check_fn, check._check_kwargs  # noqa: SLF001, pandera has no public name for them
    builtin = check.is_builtin_check(own.__name__)
    function = check.get_builtin_check_fn(own.__name__) if builtin else own
    outcome = function(PolarsData(pl.DataFrame({name: values}).lazy(), name), **arguments)
    holds: np.ndarray = outcome.select(pl.all().fill_null(True)).collect().to_series().to_numpy()
    return holds


def _broken(error: "SchemaError", suspects: np.ndarray) -> tuple[Rule, np.ndarray]:
    """The rule that pandera found broken, and the rows that break it."""
    from pandera.constants import CHECK_OUTPUT_KEY

    # Pandera's own checks have a name only; the one we use is that for nulls.
    missing = isinstance(error.check, str)
    code, says = ("MISSING", MISSING) if missing else (error.check.name, error.check.error)
    return (error.schema.name, code, says), suspects[~error.check_output[CHECK_OUTPUT_KEY].to_numpy()]


def _failure(rule: Rule, rows: np.ndarray, parsed: Parsed) -> Failure:
    """A rule and the rows that break it, without those of which parsing has said enough."""
    column, code, says = rule
    failing = np.zeros(parsed.table.num_rows, np.bool_)
    failing[rows] = True
    failing &= ~parsed.unreadable
    if code in _MEANINGLESS:
        for earlier in parsed.failures:
            if earlier.column == column:
                failing[earlier.rows] = False
    return Failure(column, code, says, np.flatnonzero(failing))
