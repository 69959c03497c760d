"""The positives of a shard, and how many negatives each gets: a group is a positive with its negatives."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from headrace_compute.kernels.core import choose_positives
from headrace_compute.kernels.exposures import count_exposures
from headrace_compute.kernels.sampling import draw_counts
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.pairs import Pairs, Positives
from headrace_compute.training.parameters import SamplingParams


@dataclass(frozen=True)
class Groups:
    """Some positives of a shard, in output order, and how many negatives each gets.

    Attributes:
        exposures: int64, how many exposures each may draw from.
        exposed: int64, how many of these it draws, before all others.
        weighted: int64, how many it draws by the candidates' weights.
    """

    users: np.ndarray
    items: np.ndarray
    times_us: np.ndarray
    exposures: np.ndarray
    exposed: np.ndarray
    weighted: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """How many negatives each gets."""
        counts: np.ndarray = self.exposed + self.weighted
        return counts

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, some: slice) -> "Groups":
        return Groups(*(getattr(self, field.name)[some] for field in fields(self)))


@dataclass(frozen=True)
class Known:
    """What the users of a shard know, as candidates.

    Attributes:
        candidates: int32, the candidate of each pair, -1 = none.
        exposures: Of those that may be drawn: where each user's begin, the candidate of each, and when it was
            first viewed; see `kernels/exposures.py`.
    """

    candidates: np.ndarray
    exposures: tuple[np.ndarray, np.ndarray, np.ndarray]


def choose(
    pairs: Pairs, positives: Positives, alive: np.ndarray, index: ItemIndex, params: SamplingParams
) -> tuple[Known, Groups, int]:
    """What users know; the positives; how many of them are no candidates."""
    candidates = _candidate_numbers(index)[pairs.items]
    first_exposures = np.searchsorted(positives.exposed, pairs.starts).astype(np.int64)
    known = Known(candidates, (first_exposures, candidates[positives.exposed], positives.exposed_us))
    chosen, users = choose_positives(
        pairs.starts,
        pairs.items,
        positives.pairs,
        positives.first_us,
        alive,
        params.min_interactions_per_user,
        params.max_interactions_per_user,
    )
    places, times_us, ratio = positives.pairs[chosen], positives.first_us[chosen], params.negative_ratio
    exposures = count_exposures(users, times_us, *known.exposures)
    exposed = np.minimum(exposures, ratio)
    free = draw_counts(pairs.starts, candidates, len(index.candidates), ratio, users)
    weighted = np.minimum(ratio - exposed, free)
    groups = Groups(users, pairs.items[places], times_us, exposures, exposed, weighted)
    return known, groups, int(np.count_nonzero(candidates[places] < 0))


def cut(groups: Groups, rows: int, params: SamplingParams) -> Iterator[Groups]:
    """Positives that follow each other, with about so many rows at a time."""
    step = max(1, rows // (1 + params.negative_ratio))
    for begin in range(0, len(groups), step):
        yield groups[begin : begin + step]


def _candidate_numbers(index: ItemIndex) -> np.ndarray:
    """The place among the candidates of each item number: int32, -1 = no candidate."""
    numbers = np.full(len(index.item_ids), -1, np.int32)
    numbers[index.candidates] = np.arange(len(index.candidates), dtype=np.int32)
    return numbers
