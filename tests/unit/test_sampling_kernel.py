"""The draws of the sampling kernel against probabilities enumerated exactly."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from headrace_compute.kernels.sampling import (
    alias_table,
    draw_counts,
    draw_negatives,
    stream_keys,
    weight_tree,
)


def draw(
    weights: Any,
    known: Any,
    ratio: int,
    *,
    groups: int = 1,
    seed: int = 1,
    group_ids: Any = None,
    users: Any = None,
) -> Any:
    """Draws for `groups` positives of each user of `known`; returns per positive [(candidate, prob)]."""
    weights = np.asarray(weights, np.float64)
    starts = np.cumsum([0, *map(len, known)]).astype(np.int64)
    flat = np.array([item for items in known for item in items], np.int32)
    users = np.repeat(np.arange(len(known)), groups) if users is None else np.array(users)
    group_ids = np.arange(users.size) if group_ids is None else np.asarray(group_ids)
    counts = draw_counts(starts, flat, weights.size, ratio, users)
    drawn, probs = draw_negatives(
        stream_keys(seed, group_ids.astype(np.uint64)),
        users,
        counts,
        starts,
        flat,
        *alias_table(weights),
        weights,
        math.fsum(weights),
        weight_tree(weights),
    )
    bounds = np.cumsum([0, *counts])
    pairs = list(zip(drawn.tolist(), probs.tolist(), strict=True))
    return [pairs[begin:end] for begin, end in itertools.pairwise(bounds)]


def sequence_probabilities(weights: Any, known: Any, ratio: int) -> Any:
    """The probability of each sequence drawn one after another without replacement."""
    free = [item for item in range(len(weights)) if item not in known]
    result = {}
    for sequence in itertools.permutations(free, min(ratio, len(free))):
        probability, left = Fraction(1), sum(Fraction(weights[item]) for item in free)
        for item in sequence:
            probability *= Fraction(weights[item]) / left
            left -= Fraction(weights[item])
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


def test_alias_table_holds_each_weight_exactly() -> None:
    rng = np.random.default_rng(8)
    for weights in (rng.pareto(0.5, 1000) + 1e-6, np.ones(7), np.array([3.0]), np.array([1.0, 1e12])):
        thresholds, aliases = alias_table(weights)
        shares = thresholds.astype(np.float64) / 2.0**64
        mass = shares.copy()
        np.add.at(mass, aliases, 1.0 - shares)
        np.testing.assert_allclose(mass / weights.size, weights / weights.sum(), rtol=1e-9, atol=1e-13)
        assert ((aliases >= 0) & (aliases < weights.size)).all()


def test_weight_tree_sums_pairs_up_to_the_root() -> None:
    tree = weight_tree(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert tree.tolist() == [0, 15, 10, 5, 3, 7, 5, 0, 1, 2, 3, 4, 5, 0, 0, 0]
    assert weight_tree(np.array([7.0])).tolist() == [0, 7]
