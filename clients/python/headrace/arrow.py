"""pyarrow and NumPy, of the extra `arrow`. Modules that import it are imported where they are needed."""

from headrace.extras import MissingExtraError

try:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
except ModuleNotFoundError as error:
    raise MissingExtraError("arrow", error.name or "pyarrow") from error

__all__ = ["np", "pa", "pc"]
