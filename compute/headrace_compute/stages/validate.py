"""Validate: runs the pandera schema over a block's typed columns.

Pandera and Polars are loaded by the first block: the server imports this module
to name its function, and does not need them.
"""

from typing import TYPE_CHECKING

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
