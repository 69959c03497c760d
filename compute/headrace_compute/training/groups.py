"""The positives of a shard, and how many negatives each gets: a group is a positive with its negatives."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from headrace_compute.kernels.core import choose_positives, core_members
from headrace_compute.kernels.exposures import count_exposures
from headrace_compute.kernels.places import known_places
from headrace_compute.kernels.sampling import draw_counts
from headrace_compute.training.pairs import Pairs, Positives, TimedPairs
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.sampler import CandidateSampler


@dataclass(frozen=True)
class Groups:
    """Some positives of a shard, in output order, and how many negatives each gets.

    Attributes:
        exposures: int64, how many exposures each may draw from.
        exposed: int64, how many of these it draws, before all others.
        weighted: int64, how many it draws by the candidates' weights.
        available: int64: candidates below this number are available to it.
        categories: int64, the category of its item, -1 = unknown.
    """

    users: np.ndarray
    items: np.ndarray
    times_us: np.ndarray
    exposures: np.ndarray
    exposed: np.ndarray
    weighted: np.ndarray
    available: np.ndarray
    categories: np.ndarray

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
        starts: int64, users + 1: where each user's places begin.
        places: int32, those of the candidates that they know; see `kernels/places.py`.
        exposures: Of those that may be drawn: where each user's begin, the candidate of each, and when it was
            first viewed; see `kernels/exposures.py`.
    """

    starts: np.ndarray
    places: np.ndarray
    exposures: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Chosen:
    """What is drawn for in a shard, and from.

    Attributes:
        outside: Positives among them whose item is no candidate.
        without_user: Positives that are left out, as their user is not in the core.
        without_item: Others that are, as their item is not.
    """

    groups: Groups
    known: Known
    outside: int
    without_user: int
    without_item: int


def choose(
    known: Pairs,
    positives: Positives,
    core: Pairs,
    alive: np.ndarray,
    sampler: CandidateSampler,
    params: SamplingParams,
) -> Chosen:
    """The positives of the core and how many negatives each gets; arguments are those of `ShardOfSplit`."""
    pairs, exposed = positives.pairs, positives.exposed
    numbers = sampler.places_of[0]
    seen = Known(
        *known_places(known.starts, known.items, sampler.places_of),
        exposures=(exposed.starts, numbers[exposed.items], exposed.first_us),
    )
    members = core_members(core.starts, core.items, alive, params.min_interactions_per_user)
    (users, items, times_us), ratio = keep(pairs, members, alive, params), params.negative_ratio
    exposures = count_exposures(users, times_us, *seen.exposures)
    drawn_first = np.minimum(exposures, ratio)
    available = sampler.available(times_us)
    free = draw_counts(seen.starts, seen.places, available, ratio, users)
    has_user = np.repeat(members, np.diff(pairs.starts))
    return Chosen(
        Groups(
            users,
            items,
            times_us,
            exposures,
            drawn_first,
            np.minimum(ratio - drawn_first, free),
            available,
            sampler.categories[items].astype(np.int64),
        ),
        seen,
        outside=int(np.count_nonzero(numbers[items] < 0)),
        without_user=int(np.count_nonzero(~has_user)),
        without_item=int(np.count_nonzero(has_user & ~alive[pairs.items])),
    )


def keep(
    pairs: TimedPairs, members: np.ndarray, alive: np.ndarray, params: SamplingParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The positives of the core under the cap, in output order: users (int64), items, times.

    Args:
        pairs: All positives.
        members: bool by user: those of the core.
        alive: bool by item number: those of the core.
        params: The cap.
    """
    chosen, users = choose_positives(
        pairs.starts, pairs.items, pairs.first_us, members, alive, params.max_interactions_per_user
    )
    return users, pairs.items[chosen], pairs.first_us[chosen]


def cut(groups: Groups, rows: int, params: SamplingParams) -> Iterator[Groups]:
    """Positives that follow each other, with about so many rows at a time."""
    step = max(1, rows // (1 + params.negative_ratio))
    for begin in range(0, len(groups), step):
        yield groups[begin : begin + step]
