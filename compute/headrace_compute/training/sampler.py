"""The candidates of a run with their weights, numbered for drawing."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from headrace_compute.kernels.places import Places, lay_out
from headrace_compute.model import StoreConfig
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.strategies import components


@dataclass(frozen=True)
class CandidateSampler:
    """The candidates, numbered in the order of item_id, or of (first event, item_id).

    Attributes:
        items: int32, the item number of each candidate.
        places: Where they lie for the sampling kernel, with their weights.
        places_of: int32 (1 or 2, items): the places of each item number, -1 = no candidate.
        first_us: int64, the time of each candidate's first event, ascending, if only available are drawn;
            else empty, and the numbers are in the order of item_id.
        categories: int32 by item number, the category of each, -1 = unknown.
        category_share: How likely a draw is from the positive's category.
        sources: What draws may name, by number.
        shares: float64 (sources - 1, candidates): how likely a draw of the candidate names one of the first,
            of the first two, and so on.
    """

    items: np.ndarray
    places: Places
    places_of: np.ndarray
    first_us: np.ndarray
    categories: np.ndarray
    category_share: float
    sources: tuple[str, ...]
    shares: np.ndarray

    def available(self, times_us: np.ndarray) -> np.ndarray:
        """How many candidates are available at some times (int64): candidates below that number are."""
        if not self.first_us.size:
            return np.full(times_us.size, self.items.size)
        return np.searchsorted(self.first_us, times_us, side="right")


def build_sampler(config: StoreConfig, index: ItemIndex, params: SamplingParams) -> CandidateSampler:
    """The sampler over the candidates of the index."""
    parts = components(params, index.events[index.candidates])
    sums = list(accumulate((part.weights for part in parts), np.add))
    items, first_us = index.candidates, np.empty(0, np.int64)
    if params.available_only:
        order = np.argsort(index.first_us[items], kind="stable")
        items, sums = items[order], [each[order] for each in sums]
        first_us = index.first_us[items]
    weights = sums[-1]
    share = params.same_category_share
    places = lay_out(weights, index.categories[items] if share > 0.0 else None)
    seconds = [places.twins[: items.size]] if share > 0.0 else []
    places_of = np.full((1 + len(seconds), index.events.size), -1, np.int32)
    for row, of_candidates in enumerate([np.arange(items.size), *seconds]):
        places_of[row, items] = of_candidates
    return CandidateSampler(
        items,
        places,
        places_of,
        first_us,
        index.categories,
        share,
        sources=tuple(part.source for part in parts),
        shares=np.array([each / weights for each in sums[:-1]]).reshape(len(parts) - 1, weights.size),
    )
