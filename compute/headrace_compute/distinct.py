"""Estimates the number of distinct values by HyperLogLog with 4096 registers, to a standard error of 1.6 %.

A sketch is its registers, one byte each. Sketches merge by maximum, so neither
order nor cutting changes them. The estimate is Ertl's improved one, unbiased
from zero upwards without tables (O. Ertl, "New cardinality estimation
algorithms for HyperLogLog sketches", arXiv:1702.01284, algorithm 6).
"""

import math

import numpy as np

PRECISION = 12
REGISTERS = 1 << PRECISION
RANKS = 64 - PRECISION
"""A register holds 0, or the place (1 to RANKS + 1) of the first 1 behind a hash's first PRECISION bits."""


def merge_sketches(a: bytes, b: bytes) -> bytes:
    """The registers of both sets of values together."""
    return np.maximum(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)).tobytes()


def estimate(sketch: bytes) -> int:
    """How many distinct values a sketch has seen, approximately."""
    counts = np.bincount(np.frombuffer(sketch, np.uint8), minlength=RANKS + 2).tolist()
    z = REGISTERS * _tau(1 - counts[RANKS + 1] / REGISTERS)
    for count in reversed(counts[1 : RANKS + 1]):
        z = 0.5 * (z + count)
    z += REGISTERS * _sigma(counts[0] / REGISTERS)
    return round(REGISTERS**2 / (2 * math.log(2)) / z)


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z = 1.0, x
    while True:
        x *= x
        before = z
        z += x * y
        y += y
        if z == before:
            return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) ** 2 * y
        if z == before:
            return z / 3
