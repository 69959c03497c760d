"""Loads and stores of eight bytes at a time, with which strings are hashed, compared, copied and parsed."""

from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _load64(context: Any, data: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word = ir.IntType(64)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), word.as_pointer())
        return builder.load(place, align=1, typ=word)

    return types.uint64(data, types.int64), generate


def _store64(context: Any, data: Any, at: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), generate


load64: Any = intrinsic(_load64)
"""The little-endian word (uint64) at `data[at:at + 8]`; `data` is uint8, all eight bytes are in it.

Numba has no unaligned load, and LLVM does not make one of eight loads of a byte.
Every machine that Numba runs on is little-endian.
"""

store64: Any = intrinsic(_store64)
"""Writes a word to `data[at:at + 8]`, as `load64` reads it."""


@nb.njit(nogil=True, inline="always")
def append(data: Any, start: Any, end: Any, out: Any, at: Any) -> Any:
    """Copies data[start:end] to out[at:]; where it ends. What lies behind that end may be overwritten.

    By words, where both have room for the last one: whoever appends next writes over what it has too much.
    """
    if end + 8 <= data.size and at + end - start + 8 <= out.size:
        for j in range(start, end, 8):
            store64(out, at + j - start, load64(data, j))
        # To return here and not behind both loops makes copies of short values ten times as fast.
        return at + end - start
    for j in range(start, end):
        out[at] = data[j]
        at += 1
    return at
