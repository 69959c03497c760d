"""Types of kernel arguments.

Kernels are compiled for these when their module is imported (or loaded from
Numba's cache), so there is one machine-code version of each. Inputs are
read-only types, because arrays out of an object store or an Arrow buffer are;
writable arrays are accepted for them too.
"""

from typing import Any, TypeVar

from numba import types

Arrays = TypeVar("Arrays", bound=tuple[Any, ...])

BYTES = types.Array(types.uint8, 1, "C", readonly=True)
INT8S = types.Array(types.int8, 1, "C", readonly=True)
INT32S = types.Array(types.int32, 1, "C", readonly=True)
INT64S = types.Array(types.int64, 1, "C", readonly=True)
UINT64S = types.Array(types.uint64, 1, "C", readonly=True)
FLOATS = types.Array(types.float64, 1, "C", readonly=True)
FLAGS = types.Array(types.boolean, 1, "C", readonly=True)

BYTES_OUT = types.Array(types.uint8, 1, "C")
INT32S_OUT = types.Array(types.int32, 1, "C")
INT64S_OUT = types.Array(types.int64, 1, "C")
UINT64S_OUT = types.Array(types.uint64, 1, "C")
FLAGS_OUT = types.Array(types.boolean, 1, "C")
FLOATS_OUT = types.Array(types.float64, 1, "C")


def read_only(arrays: Arrays) -> Arrays:
    """The arrays of a named tuple as read-only views: in a tuple writable ones are not accepted for these."""
    views = [array.view() for array in arrays]
    for view in views:
        view.flags.writeable = False
    return type(arrays)(*views)
