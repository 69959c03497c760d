"""Validate: runs the pandera schema over a block's typed columns.

Pandera and Polars are loaded by the first block: the server imports this module
to name its function, and does not need them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

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

    frame = pl.DataFrame(parsed.table)
    schema = schema_of(spec.data_type, spec.latest_us)
    if _passes(schema, frame):
        return []
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


def _passes(schema: Any, frame: Any) -> bool:
    """Whether every check holds in every row, from one query over all of them.

    Pandera asks one query after another, thirty in all, which is most of what a
    small block costs (7 ms to 1). It still says what fails, once something does.
    """
    # Gives pandera's own checks an implementation for Polars.
    import pandera.backends.polars.builtin_checks  # noqa: F401
    import polars as pl
    from pandera.api.polars.types import PolarsData

    lazy = frame.lazy()
    outcomes: list[Any] = []
    for name, column in schema.columns.items():
        if not column.nullable and frame[name].null_count():
            return False
        for check in column.checks:
            # As pandera does: its own checks have an implementation for each kind of frame.
            builtin = check.is_builtin_check(check._check_fn.__name__)
            function = check.get_builtin_check_fn(check._check_fn.__name__) if builtin else check._check_fn
            outcome = function(PolarsData(lazy, name), **check._check_kwargs)
            outcomes.append(outcome.select(pl.all().fill_null(True).all().name.suffix(f" {len(outcomes)}")))
    return all(pl.concat(outcomes, how="horizontal").collect().row(0))


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
