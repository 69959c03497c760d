"""The draws of the sampling kernel against probabilities enumerated exactly."""

import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from headrace_compute.kernels.places import known_places, lay_out
from headrace_compute.kernels.sampling import draw_counts, draw_negatives, stream_keys
from headrace_compute.kernels.weight_tree import sum_within, weight_tree
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.strategies import STRATEGIES, components


def draw_flat(
    weights: Any,
    known: Any,
    ratio: int,
    *,
    groups: int = 1,
    seed: int = 1,
    group_ids: Any = None,
    users: Any = None,
    ends: Any = None,
    categories: Any = None,
    own: Any = -1,
    share: float = 0.0,
) -> Any:
    """Draws for `groups` positives of each user of `known`: how many for each, which, their probabilities.

    Args:
        ends: Of each positive: what is below it is available.
        categories: Of each candidate.
        own: Of each positive: its category.
    """
    weights = np.asarray(weights, np.float64)
    count = weights.size
    places = lay_out(weights, None if categories is None else np.array(categories, np.int32))
    users = np.repeat(np.arange(len(known)), groups) if users is None else np.array(users)
    group_ids = np.arange(users.size) if group_ids is None else np.asarray(group_ids)
    ends = np.broadcast_to(count if ends is None else ends, users.size).astype(np.int64)
    own = np.broadcast_to(own, users.size).astype(np.int64)
    # Items that are no candidates have the number behind these.
    places_of = np.append(np.arange(count), -1)[None].astype(np.int32)
    if categories is not None:
        places_of = np.stack([places_of[0], np.append(places.twins[:count], np.int32(-1))])
    items = np.array([item if item >= 0 else count for items in known for item in items], np.int32)
    starts, seen = known_places(np.cumsum([0, *map(len, known)]).astype(np.int64), items, places_of)
    counts = draw_counts(starts, seen, ends, ratio, users)
    keys = stream_keys(seed, group_ids.astype(np.uint64))
    return counts, *draw_negatives(keys, users, counts, starts, seen, ends, own, share, places)


def draw(*args: Any, **options: Any) -> Any:
    """What `draw_flat` draws as lists: per positive [(candidate, prob)]."""
    counts, drawn, probs = draw_flat(*args, **options)
    bounds = np.cumsum([0, *counts])
    pairs = list(zip(drawn.tolist(), probs.tolist(), strict=True))
    return [pairs[begin:end] for begin, end in itertools.pairwise(bounds)]


def first_draw(weights: Any, free: Any, alike: Any, share: Any) -> dict[int, Any]:
    """The probability of each free candidate: with probability `share` only from those alike, if any are."""
    alike = [item for item in alike if item in free]
    share = Fraction(share) if alike else Fraction(0)
    total = sum(Fraction(weights[item]) for item in free)
    total_alike = sum(Fraction(weights[item]) for item in alike)
    return {
        item: (1 - share) * Fraction(weights[item]) / total
        + (share * Fraction(weights[item]) / total_alike if item in alike else 0)
        for item in free
    }


def sequence_probabilities(
    weights: Any, known: Any, ratio: int, end: Any = None, alike: Any = (), share: float = 0.0
) -> Any:
    """The probability of each sequence drawn one after another without replacement."""
    free = [item for item in range(len(weights))[:end] if item not in known]
    result = {}
    for sequence in itertools.permutations(free, min(ratio, len(free))):
        probability, left = Fraction(1), free
        for item in sequence:
            probability *= first_draw(weights, left, alike, share)[item]
            left = [other for other in left if other != item]
        if probability:
            result[sequence] = float(probability)
    return result


def assert_fits(observed: Any, expected: Any, total: int) -> None:
    """Chi-square against `expected` probabilities, cells below five expected hits pooled."""
    assert set(observed) <= set(expected)
    statistic, cells, rest, rest_observed = 0.0, 0, 0.0, 0
    for key, probability in expected.items():
        if probability * total < 5:
            rest += probability * total
            rest_observed += observed.get(key, 0)
        else:
            statistic += (observed.get(key, 0) - probability * total) ** 2 / (probability * total)
            cells += 1
    if rest >= 5:
        statistic += (rest_observed - rest) ** 2 / rest
        cells += 1
    freedom = max(1, cells - 1)
    assert statistic < freedom + 4.5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("weights", "known"),
    [
        pytest.param([1, 1, 1, 1, 1], [2], id="uniform"),
        pytest.param([5, 1, 3, 2, 4], [], id="nothing known"),
        pytest.param([5, 1, 3, 2, 4], [-1, 3], id="refused by the alias table"),
        pytest.param([90, 1, 3, 2, 4], [0], id="most weight known, so from the tree"),
        pytest.param([9000, 1, 3, 2, 4], [], id="most weight drawn first, so into the tree"),
        pytest.param([9000, 1, 3, 2, 4, 6], [5], id="into the tree, with something known"),
        pytest.param([7], [], id="one candidate"),
    ],
)
def test_sequences_are_drawn_with_their_exact_probability(weights: Any, known: Any) -> None:
    total = 60_000
    observed: dict[Any, Any] = {}
    for group in draw(weights, [known], 3, groups=total):
        sequence = tuple(candidate for candidate, _ in group)
        observed[sequence] = observed.get(sequence, 0) + 1
    assert_fits(observed, sequence_probabilities(weights, known, 3), total)


@pytest.mark.parametrize(
    ("weights", "known", "end", "categories", "share"),
    [
        pytest.param([5, 1, 3, 2, 4], [1], 4, None, 0.0, id="the last is not available"),
        pytest.param([5, 1, 3, 200, 400], [], 3, None, 0.0, id="most weight is not available"),
        pytest.param([90, 1, 3, 2, 400], [0], 4, None, 0.0, id="nor known, so from the masked tree"),
        pytest.param([5, 1, 3, 2, 4], [], 5, [0, 1, 0, 1, 0], 0.3, id="share of a category"),
        pytest.param([5, 1, 3, 2, 4], [], 5, [0, 1, 0, 1, -1], 1.0, id="first the category, then others"),
        pytest.param([5, 1, 3, 2, 4], [2], 5, [0, 1, -1, 1, 1], 0.5, id="a category of one"),
        pytest.param([5, 1, 3, 2, 4], [0], 5, [0, 1, 1, 1, 1], 0.5, id="a category of which all is known"),
        pytest.param([90, 1, 3, 2, 4], [0], 5, [0, 0, 1, 0, 1], 0.6, id="most weight of the category known"),
        pytest.param([2, 1, 3, 2, 400], [1], 4, [0, 0, 1, 0, 0], 0.6, id="of what is available of it"),
        pytest.param([2, 1, 3, 2, 400], [], 1, [1, 0, 0, 1, 0], 0.9, id="nothing of it is available"),
        pytest.param(
            [9000, 1, 3, 2, 4], [], 5, [0, 0, 0, 1, 1], 0.5, id="most weight drawn first, so into the tree"
        ),
    ],
)
def test_sequences_from_ranges_and_categories_are_drawn_with_their_exact_probability(
    weights: Any, known: Any, end: Any, categories: Any, share: Any
) -> None:
    total = 60_000
    alike = [item for item, category in enumerate(categories or ()) if category == 0]
    options = {"ends": end, "categories": categories, "own": 0 if categories else -1, "share": share}
    observed: dict[Any, Any] = {}
    for group in draw(weights, [known], 3, groups=total, **options):
        sequence = tuple(candidate for candidate, _ in group)
        observed[sequence] = observed.get(sequence, 0) + 1
    assert_fits(observed, sequence_probabilities(weights, known, 3, end, alike, share), total)


LIMITS = {
    "from all": {},
    "available": {"end": 120},
    "by category": {"share": 0.4},
    "available by category": {"end": 120, "share": 0.4},
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_first_draws_follow_their_probabilities_however_much_is_known(strategy: str, limits: Any) -> None:
    rng = np.random.default_rng(9)
    events = rng.zipf(1.3, 200).clip(max=10_000) - 1
    weights = np.sum([part.weights for part in components(SamplingParams(strategy=strategy), events)], axis=0)
    end, share = limits.get("end", 200), limits.get("share", 0.0)
    categories = rng.integers(0, 5, 200)
    alike = np.flatnonzero(categories == 3).tolist()
    some, nearly_all = rng.permutation(200)[:6].tolist(), [item for item in range(200) if item % 40 != 7]
    total = 500_000
    _, drawn, probs = draw_flat(
        weights,
        [some, nearly_all],
        1,
        groups=total,
        ends=end,
        categories=categories if share else None,
        own=3 if share else -1,
        share=share,
    )
    for user, known in enumerate((some, nearly_all)):
        expected = first_draw(
            weights.tolist(), [item for item in range(end) if item not in known], alike, share
        )
        assert sum(expected.values()) == 1
        firsts = drawn[user * total : (user + 1) * total]
        assert_fits(Counter(firsts.tolist()), {item: float(p) for item, p in expected.items()}, total)
        told = dict(zip(firsts.tolist(), probs[user * total : (user + 1) * total].tolist(), strict=True))
        assert told == pytest.approx({item: float(expected[item]) for item in told}, rel=1e-13)
        # No drift to low or high numbers, which the sum over cells might not see.
        mean = sum(item * p for item, p in expected.items())
        variance = float(sum(item**2 * p for item, p in expected.items()) - mean**2)
        assert abs(firsts.mean() - float(mean)) < 4.5 * math.sqrt(variance / total)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_million_candidates_are_drawn_alike_from_first_to_last(share: float) -> None:
    count, end, total = 1_000_000, 700_000, 200_000
    categories = np.arange(count) % 2
    _, drawn, probs = draw_flat(
        np.ones(count), [[]], 1, groups=total, ends=end, categories=categories, own=1, share=share
    )
    bins = Counter((drawn // 7_000).tolist())
    assert_fits(bins, dict.fromkeys(range(100), 0.01), total)
    odd = np.count_nonzero(drawn % 2) / total
    assert abs(odd - (0.5 + share / 2)) < 4.5 * math.sqrt(0.25 / total)
    wanted = {0: (1 - share) / end, 1: (1 - share) / end + share / (end / 2)}
    assert probs == pytest.approx(np.where(drawn % 2, wanted[1], wanted[0]), rel=1e-13)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_one_candidate_and_two_that_are_left_are_drawn(share: float) -> None:
    options = {"categories": [0], "own": 0, "share": share}
    assert draw([3.0], [[], [0]], 4, **options) == [[(0, 1.0)], []]
    assert draw([3.0, 2.0], [[0]], 4, ends=1, categories=[0, 0], own=0, share=share) == [[]]
    known = [item for item in range(1_000) if item not in (1, 998)]
    options = {"categories": [0] * 998 + [1, 1], "own": 1, "share": share}
    for group in draw(np.ones(1_000), [known], 4, groups=50, **options):
        assert sorted(candidate for candidate, _ in group) == [1, 998]


def test_first_draws_of_many_candidates_follow_their_weights() -> None:
    rng = np.random.default_rng(3)
    weights = (1.0 + rng.zipf(1.5, 1000).clip(max=50_000)) ** 0.75
    known = list(range(0, 1000, 50))
    total = 300_000
    firsts = np.bincount([group[0][0] for group in draw(weights, [known], 1, groups=total)], minlength=1000)
    free = weights.copy()
    free[known] = 0
    expected = {item: weight / free.sum() for item, weight in enumerate(free) if weight}
    assert_fits({int(item): int(firsts[item]) for item in np.flatnonzero(firsts)}, expected, total)


def test_negatives_are_distinct_unknown_candidates_and_as_many_as_there_can_be() -> None:
    rng = np.random.default_rng(5)
    weights = rng.pareto(1.0, 40) + 0.01
    known = [sorted(rng.choice(40, size, replace=False).tolist()) for size in range(41)]
    users = np.repeat(np.arange(41), 5)
    for user, group in zip(users, draw(weights, known, 7, groups=5), strict=True):
        candidates = [candidate for candidate, _ in group]
        assert len(candidates) == min(7, 40 - user) == len(set(candidates))
        assert not set(candidates) & set(known[user])


def test_probability_is_the_weight_over_all_that_the_user_does_not_know() -> None:
    rng = np.random.default_rng(6)
    weights = rng.pareto(0.3, 60) + 1e-3
    known = [sorted(rng.choice(60, size, replace=False).tolist()) for size in range(60)]
    users = np.repeat(np.arange(60), 3)
    for user, group in zip(users, draw(weights, known, 5, groups=3), strict=True):
        left = sum(Fraction(weight) for item, weight in enumerate(weights) if item not in known[user])
        for candidate, probability in group:
            assert probability == pytest.approx(float(Fraction(weights[candidate]) / left), rel=1e-13)


def test_what_is_left_beside_an_overwhelming_weight_is_still_drawn_exactly() -> None:
    weights = [1e28, 1.0, 3.0, *[0.0005] * 2000]
    total = 20_000
    groups = draw(weights, [[0]], 1, groups=total)
    ones = sum(group[0][0] == 1 for group in groups)
    assert {group[0][1] for group in groups if group[0][0] == 1} == {1.0 / 5.0}
    assert abs(ones / total - 0.2) < 0.015


def test_a_positive_draws_the_same_in_any_company() -> None:
    rng = np.random.default_rng(7)
    weights = rng.pareto(0.5, 30) + 0.1
    known = [sorted(rng.choice(30, size, replace=False).tolist()) for size in (0, 3, 12, 25, 29, 30, 8)]
    users = np.repeat(np.arange(7), 4)
    together = draw(weights, known, 5, users=users, group_ids=np.arange(28) * 77)
    for place in range(28):
        assert draw(weights, known, 5, users=[users[place]], group_ids=[place * 77]) == [together[place]]
    backwards = draw(weights, known, 5, users=users[::-1], group_ids=np.arange(28)[::-1] * 77)
    assert backwards == together[::-1]


def test_a_positive_draws_the_same_in_any_company_whatever_is_available_to_the_others() -> None:
    rng = np.random.default_rng(17)
    weights = rng.pareto(0.5, 30) + 0.1
    categories = rng.integers(-1, 3, 30)
    known = [sorted(rng.choice(30, size, replace=False).tolist()) for size in (0, 3, 12, 25, 29, 30, 8)]
    users = np.repeat(np.arange(7), 6)
    ends, own = rng.choice([1, 9, 20, 30], 42), rng.integers(-1, 3, 42)
    for limits in ({}, {"categories": categories, "share": 0.5}):
        together = draw(weights, known, 5, users=users, ends=ends, own=own, group_ids=np.arange(42), **limits)
        for place in range(42):
            one = {"users": [users[place]], "group_ids": [place], "ends": ends[place], "own": own[place]}
            assert draw(weights, known, 5, **one, **limits) == [together[place]]


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_every_uint64_is_a_seed(seed: int) -> None:
    assert draw([1.0] * 50, [[]], 4, seed=seed) == draw([1.0] * 50, [[]], 4, seed=seed)
    assert draw([1.0] * 50, [[]], 4, seed=seed) != draw([1.0] * 50, [[]], 4, seed=(seed + 2) % 2**64)


def test_draws_are_those_of_the_first_release() -> None:
    groups = draw([5.0, 1.0, 3.0, 2.0, 400.0, 7.0, 1.0], [[1], [4]], 3, groups=2, seed=42)
    assert [[candidate for candidate, _ in group] for group in groups] == [
        [4, 5, 3],
        [4, 5, 3],
        [5, 3, 0],
        [6, 5, 0],
    ]


def test_alias_tables_hold_each_weight_of_their_segment_exactly() -> None:
    rng = np.random.default_rng(8)
    for weights in (rng.pareto(0.5, 1000) + 1e-6, np.ones(7), np.array([3.0]), np.array([1.0, 1e12])):
        places = lay_out(weights, (np.arange(weights.size) % 3 - 1).astype(np.int32))
        mass = places.thresholds.astype(np.float64) / 2.0**64
        np.add.at(mass, places.aliases, 1.0 - places.thresholds.astype(np.float64) / 2.0**64)
        for first, last in itertools.pairwise(places.bounds):
            share = mass[first:last] / (last - first)
            own = places.weights[first:last]
            np.testing.assert_allclose(share, own / own.sum(), rtol=1e-9, atol=1e-13)
            assert ((places.aliases[first:last] >= first) & (places.aliases[first:last] < last)).all()


def test_weight_tree_sums_pairs_up_to_the_root() -> None:
    tree = weight_tree(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert tree.tolist() == [0, 15, 10, 5, 3, 7, 5, 0, 1, 2, 3, 4, 5, 0, 0, 0]
    assert weight_tree(np.array([7.0])).tolist() == [0, 7]


def test_any_range_of_a_weight_tree_is_summed_without_differences() -> None:
    weights = 10.0 ** np.random.default_rng(18).integers(-20, 20, 13)
    tree = weight_tree(weights)
    for begin, end in itertools.combinations_with_replacement(range(14), 2):
        assert sum_within(tree, begin, end) == pytest.approx(math.fsum(weights[begin:end]), rel=1e-15)
