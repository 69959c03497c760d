"""Fills HyperLogLog sketches from hashes."""

from typing import Any

import numba as nb
import numpy as np
from numba import void

from headrace_compute.distinct import PRECISION, RANKS, REGISTERS
from headrace_compute.kernels.types import BYTES_OUT, FLAGS, UINT64S


@nb.njit(nogil=True, inline="always")
def add_hash(registers: Any, value: Any) -> None:
    """Adds one hash (uint64) to the registers; callable from other kernels."""
    rest = value << np.uint64(PRECISION)
    register = value >> np.uint64(RANKS)
    # Nearly every hash has a 1 before its register's place, and so changes nothing.
    if (rest >> np.uint64(1)) >> np.uint64(63 - registers[register]) == 0:
        rank = 1
        while rank <= RANKS and rest < np.uint64(1 << 63):
            rest = rest << np.uint64(1)
            rank += 1
        if rank > registers[register]:
            registers[register] = rank


@nb.njit(void(BYTES_OUT, UINT64S, FLAGS), nogil=True, cache=True)
def _add(registers: Any, hashes: Any, valid: Any) -> None:
    for i in range(hashes.size):
        if valid[i]:
            add_hash(registers, hashes[i])


def sketch_of(hashes: np.ndarray, valid: np.ndarray) -> bytes:
    """The registers of some values.

    Args:
        hashes: uint64, a good hash of each value.
        valid: bool; the others are left out.
    """
    registers = np.zeros(REGISTERS, np.uint8)
    _add(registers, hashes, valid)
    return registers.tobytes()
