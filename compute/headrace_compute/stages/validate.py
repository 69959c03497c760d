"""Validate: runs the pandera schema over a block's typed columns.

Pandera and Polars are loaded by the first block: the server imports this module
to name its function, and does not need them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace_compute.kernels.text import look_at
from headrace_compute.model import UploadSpec
from headrace_compute.schemas.contract import MISSING, schema_of
from headrace_compute.stages.parse import Failure, Parsed

if TYPE_CHECKING:
    from pandera.errors import SchemaError

_MEANINGLESS = frozenset({"MISSING", "NOT_IN_SET", "BAD_TEXT"})
"""What is not reported of a cell that does not parse: it says nothing new."""


def validate(spec: UploadSpec, parsed: Parsed) -> list[Failure]:
    """What pandera finds in a block, apart from what parsing found already.

    Raises:
        SchemaErrors: The table does not have the schema's columns, which is a fault of ours.
    """
    import polars as pl
    from pandera.config import ValidationDepth, config_context
    from pandera.errors import SchemaErrors

    schema = schema_of(spec.data_type, spec.latest_us)
    if _passes(schema, parsed.table):
        return []
    frame = pl.DataFrame(parsed.table)
    # Pandera can be switched off by an environment variable; a data contract cannot.
    with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        try:
            schema.validate(frame, lazy=True)
        except SchemaErrors as errors:
            if any(error.check_output is None for error in errors.schema_errors):
                raise
            failures = [_failure(error, parsed) for error in errors.schema_errors]
            return [failure for failure in failures if failure.rows.size]
    return []


def _passes(schema: Any, table: pa.Table) -> bool:
    """Whether every check holds in every row, from one query over those that a look does not decide.

    Pandera asks one query after another, thirty in all, which is most of what a
    small block costs (7 ms to 1); of a large one it is the search through texts that rarely
    have anything to find. It still says what fails, once something does.
    """
    # Gives pandera's own checks an implementation for Polars.
    import pandera.backends.polars.builtin_checks  # noqa: F401
    import polars as pl
    from pandera.api.polars.types import PolarsData

    outcomes: list[Any] = []
    for name, column in schema.columns.items():
        values = table.column(name)
        if not column.nullable and values.null_count:
            return False
        checks = _undecided(column.checks, values)
        if not checks:
            continue
        # Texts are copied into what Polars keeps them in: only those that are asked about.
        lazy = pl.DataFrame(table.select([name])).lazy()
        for check in checks:
            # As pandera does: its own checks have an implementation for each kind of frame.
            builtin = check.is_builtin_check(check._check_fn.__name__)
            function = check.get_builtin_check_fn(check._check_fn.__name__) if builtin else check._check_fn
            outcome = function(PolarsData(lazy, name), **check._check_kwargs)
            outcomes.append(outcome.select(pl.all().fill_null(True).all().name.suffix(f" {len(outcomes)}")))
    return not outcomes or all(pl.concat(outcomes, how="horizontal").collect().row(0))


def _undecided(checks: Sequence[Any], values: pa.ChunkedArray) -> list[Any]:
    from headrace_compute.schemas.checks import surely_holds

    if not pa.types.is_string(values.type):
        return list(checks)
    texts = look_at(values.combine_chunks())
    return [check for check in checks if not surely_holds(check, texts)]


def _failure(error: "SchemaError", parsed: Parsed) -> Failure:
    from pandera.constants import CHECK_OUTPUT_KEY

    column = error.schema.name
    # Pandera's own checks have a name only; the one we use is that for nulls.
    missing = isinstance(error.check, str)
    code, says = ("MISSING", MISSING) if missing else (error.check.name, error.check.error)
    failing = ~error.check_output[CHECK_OUTPUT_KEY].to_numpy() & ~parsed.unreadable
    if code in _MEANINGLESS:
        for earlier in parsed.failures:
            if earlier.column == column:
                failing[earlier.rows] = False
    return Failure(column, code, says, np.flatnonzero(failing))
