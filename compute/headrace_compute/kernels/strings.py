"""Arrow string arrays as the flat buffers that kernels read."""

import numpy as np
import pyarrow as pa


def string_buffers(array: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The bytes and bounds of a string or binary array.

    Args:
        array: string, large_string, binary or large_binary; slices are fine.

    Returns:
        `data` (uint8) and `offsets` (int64, one more than values):
        value i is `data[offsets[i]:offsets[i + 1]]`, empty where null.

    Raises:
        TypeError: The array holds something else.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        width: type[np.signedinteger] = np.int64
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        width = np.int32
    else:
        raise TypeError(f"{kind} is not a string type")
    _, bounds, values = array.buffers()
    if len(array) == 0 or bounds is None:
        return np.empty(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    offsets = np.frombuffer(bounds, width)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    data = np.empty(0, np.uint8) if values is None else np.frombuffer(values, np.uint8)
    return data, offsets
