"""The negatives of some positives: exposures first, then draws by the candidates' weights."""

from dataclasses import dataclass

import numpy as np

from headrace_compute.kernels.exposures import draw_exposures
from headrace_compute.kernels.sampling import draw_negatives, source_coins
from headrace_compute.training.groups import Groups, Known
from headrace_compute.training.sampler import CandidateSampler


@dataclass(frozen=True)
class Drawn:
    """Negatives in output order.

    Attributes:
        candidates: int32, their numbers.
        probs: float64, their sampling_prob.
        sources: int8, the number of the source that each names; those of the sampler, then exposures.
    """

    candidates: np.ndarray
    probs: np.ndarray
    sources: np.ndarray


def draw(known: Known, sampler: CandidateSampler, keys: np.ndarray, groups: Groups) -> Drawn:
    """Draws for some positives: of each first its exposures, if it has any, then by weight."""
    weighted, probs = draw_negatives(
        keys,
        groups.users,
        groups.weighted,
        known.starts,
        known.places,
        groups.available,
        groups.categories,
        sampler.category_share,
        sampler.places,
    )
    sources = _sources(sampler, keys, groups.weighted, weighted)
    if not groups.exposed.any():
        return Drawn(weighted, probs, sources)
    exposed = draw_exposures(keys, groups.users, groups.times_us, *known.exposures, groups.exposed)
    # How many of its group come before each row.
    counts = groups.counts
    before = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    comes_first = before < np.repeat(groups.exposed, counts)

    def merged(first: np.ndarray, then: np.ndarray) -> np.ndarray:
        rows = np.empty(len(comes_first), then.dtype)
        rows[comes_first], rows[~comes_first] = first, then
        return rows

    alike = np.repeat(1.0 / np.maximum(1, groups.exposures), groups.exposed)
    named = np.full(len(exposed), len(sampler.sources), np.int8)
    return Drawn(merged(exposed, weighted), merged(alike, probs), merged(named, sources))


def _sources(
    sampler: CandidateSampler, keys: np.ndarray, counts: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """The number of the source that each draw names."""
    if len(sampler.sources) == 1:
        return np.zeros(drawn.size, np.int8)
    coins = source_coins(keys, counts)
    below = coins >= sampler.shares[:, drawn]
    numbers: np.ndarray = np.add.reduce(below, axis=0, dtype=np.int8)
    return numbers
