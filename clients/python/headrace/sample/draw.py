"""Randomness for sample data: keyed by the seed and a purpose, so that nothing depends on order."""

from typing import Any, TypeAlias

from headrace.arrow import np

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Flags: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

PURPOSES = ("categories", "items", "popularity", "users", "interactions", "dirty items", "dirty interactions")


def draws(seed: int, purpose: str, part: int = 0) -> np.random.Generator:
    """A generator of its own for one purpose and part.

    Only its `random` is used: numpy may change how other distributions draw.
    """
    return np.random.default_rng([seed, PURPOSES.index(purpose), part])
