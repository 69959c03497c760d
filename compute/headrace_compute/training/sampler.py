"""The candidates of a run with their weights, and the draws from them."""

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from headrace_compute.kernels.exposures import draw_exposures
from headrace_compute.kernels.sampling import alias_table, draw_negatives, source_coins, weight_tree
from headrace_compute.model import StoreConfig
from headrace_compute.training.groups import Groups, Known
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.strategies import components


@dataclass(frozen=True)
class CandidateSampler:
    """The candidates with their weights, in the tables that the sampling kernel draws from.

    Attributes:
        weights: float64, positive, one per candidate in the order of item_id.
        total: Their sum, rounded once.
        thresholds, aliases: Their alias table.
        tree: Their sums as a tree.
        sources: What draws may name, by number.
        shares: float64 (sources - 1, candidates): how likely a draw of the candidate names one of the first,
            of the first two, and so on.
    """

    weights: np.ndarray
    total: float
    thresholds: np.ndarray
    aliases: np.ndarray
    tree: np.ndarray
    sources: tuple[str, ...]
    shares: np.ndarray


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


def build_sampler(config: StoreConfig, index: ItemIndex, params: SamplingParams) -> CandidateSampler:
    """The sampler over the candidates of the index."""
    parts = components(params, index.events[index.candidates])
    sums = list(accumulate((part.weights for part in parts), np.add))
    weights = sums[-1]
    return CandidateSampler(
        weights,
        math.fsum(weights),
        *alias_table(weights),
        tree=weight_tree(weights),
        sources=tuple(part.source for part in parts),
        shares=np.array([each / weights for each in sums[:-1]]).reshape(len(parts) - 1, weights.size),
    )


def draw(known: Known, sampler: CandidateSampler, keys: np.ndarray, groups: Groups) -> Drawn:
    """Draws for some positives: of each first its exposures, if it has any, then by weight."""
    weighted, probs = draw_negatives(
        keys,
        groups.users,
        groups.weighted,
        known.starts,
        known.candidates,
        sampler.thresholds,
        sampler.aliases,
        sampler.weights,
        sampler.total,
        sampler.tree,
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
