"""Eight bytes at a time: how strings are hashed, compared, copied and parsed."""

from typing import Any

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
