"""Strategies: with what weight a candidate is drawn, and what the draw names as its source.

A strategy gives components, each a weight for every candidate. A candidate is drawn with the sum of its
weights; which component the draw names is decided by their shares in that sum, which is what drawing a
component first, and then the candidate from it, would give. A strategy may have a user's own exposures drawn
before that: see `kernels/exposures.py`. The next strategy is a function here, and a line in STRATEGIES.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Literal

import numpy as np

from headrace_compute.training.parameters import SamplingParams

DIGITS = 20
"""Of powers, before they are rounded: pow() of C libraries and SIMD units differs in the last bit."""


Parameter = Literal["alpha", "zipf_exponent", "uniform_share"]
"""Of SamplingParams, those that some strategies alone heed."""


@dataclass(frozen=True)
class Component:
    """A part of a strategy's distribution.

    Attributes:
        source: What negative_source says of draws from it.
        weights: float64, not negative, one per candidate in the order of item_id.
    """

    source: str
    weights: np.ndarray


@dataclass(frozen=True)
class Strategy:
    """How negatives are drawn.

    Attributes:
        components: Of the parameters, and the events of each candidate (int64, in the order of item_id).
        parameters: Those that it heeds, by name.
        exposed: Whether the user's exposures are drawn first, and what follows is what is still missing.
    """

    components: Callable[[SamplingParams, np.ndarray], tuple[Component, ...]]
    parameters: tuple[Parameter, ...] = ()
    exposed: bool = False


def components(params: SamplingParams, events: np.ndarray) -> tuple[Component, ...]:
    """The components of the strategy that the parameters name.

    Args:
        params: The strategy and its parameters.
        events: int64, events of each candidate in the source, in the order of item_id.
    """
    return STRATEGIES[params.strategy].components(params, events)


def _uniform(_: SamplingParams, events: np.ndarray) -> tuple[Component, ...]:
    return (Component("uniform", np.ones(events.size)),)


def _popularity(params: SamplingParams, events: np.ndarray) -> tuple[Component, ...]:
    """(1 + events)^alpha, Mikolov et al. (2013); the 1 keeps a candidate without events drawable."""
    levels, level_of = np.unique(events, return_inverse=True)
    powers = np.array([_power(1 + int(level), params.alpha) for level in levels], np.float64)
    return (Component("popularity", powers[level_of]),)


def _zipf(params: SamplingParams, events: np.ndarray) -> tuple[Component, ...]:
    """rank^-s, the rank by (events DESC, item_id ASC) from 1."""
    weights = np.empty(events.size)
    weights[np.argsort(-events, kind="stable")] = _inverse_powers(events.size, params.zipf_exponent)
    return (Component("zipf", weights),)


def _mixed(params: SamplingParams, events: np.ndarray) -> tuple[Component, ...]:
    """A share of uniform and the rest of popularity, each normalised over all candidates."""
    (popular,) = _popularity(params, events)
    share, total = params.uniform_share, math.fsum(popular.weights)
    uniform = np.full(events.size, share / max(1, events.size))
    return (
        Component("uniform", uniform),
        Component("popularity", (1.0 - share) * (popular.weights / total)),
    )


EXPOSED = "exposed"
"""What negative_source says of exposures."""

STRATEGIES: Mapping[str, Strategy] = {
    "uniform": Strategy(_uniform),
    "popularity": Strategy(_popularity, ("alpha",)),
    "zipf": Strategy(_zipf, ("zipf_exponent",)),
    "mixed": Strategy(_mixed, ("alpha", "uniform_share")),
    EXPOSED: Strategy(_popularity, ("alpha",), exposed=True),
}
"""By name, in the order in which messages list them."""


def _power(base: int, exponent: float) -> float:
    with localcontext() as context:
        context.prec = DIGITS
        return float(Decimal(base) ** Decimal(exponent))


def _inverse_powers(count: int, exponent: float) -> np.ndarray:
    """n^-exponent for n = 1 to count: powers of primes, multiplied in the order of each n's factors.

    A million powers in decimals would take half a minute, and those of primes are a thirteenth of them.
    """
    if exponent == 1.0:
        return 1.0 / np.arange(1, count + 1)
    powers = np.ones(count + 1)
    for prime in _primes(count):
        power, multiple = _power(prime, -exponent), prime
        while multiple <= count:
            powers[multiple::multiple] *= power
            multiple *= prime
    return powers[1:]


def _primes(last: int) -> list[int]:
    """The primes up to `last`: the sieve of Eratosthenes."""
    is_prime = np.ones(last + 1, np.bool_)
    is_prime[:2] = False
    for number in range(2, math.isqrt(last) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = False
    found: list[int] = np.flatnonzero(is_prime).tolist()
    return found
