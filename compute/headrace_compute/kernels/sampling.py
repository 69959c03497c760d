"""Weighted sampling without replacement, reproducible on every machine and shard plan.

Each positive draws its negatives one after another from the candidates that are available to it, that
its user does not know and that it has not drawn yet, each with probability proportional to its weight; and
with some probability only from those of them that are of its own category, if any. Either are a range of
`places`. Two methods draw from a range with that same distribution:

- the alias table of its segment, refusing what is excluded or beyond the range, or where the range has less
  than half of the segment's weight a tree of weight sums, refusing what is excluded; at most `ATTEMPTS`
  tries. Fast, and enough for nearly every draw;
- a tree of weight sums in which excluded candidates weigh nothing, when the
  tries were in vain or the user knows more than half of the range's weight. Exact in
  log2(candidates) steps, so a user who has seen nearly everything causes no long rejection.

Randomness is counter-based: draw d's try t of a positive is a function of
(seed, the positive's key, d, t) and of nothing else. Sums and roundings have one fixed order and no fused
operations, so machines agree to the last bit.
"""

from typing import Any

import numba as nb
import numpy as np
from numba import types, void

from headrace_compute.kernels.alias import by_alias
from headrace_compute.kernels.places import Places, below, lay_out
from headrace_compute.kernels.streams import STEP, U64, fraction, mix
from headrace_compute.kernels.types import (
    FLOATS_OUT,
    INT32S,
    INT32S_OUT,
    INT64S,
    INT64S_OUT,
    UINT64S,
    read_only,
)
from headrace_compute.kernels.weight_tree import by_tree, set_weight, set_weights, sum_within

ATTEMPTS = 16
"""Tries with refusal before what is excluded is taken out of the tree."""

_SOURCES = U64(0xD1B54A32D192ED03)
"""Sets the stream of coins that name sources apart from that of candidates."""

_CATEGORIES = U64(0x8CB92BA72F3D8DD7)
"""And that of coins that say which draws are from the positive's category."""

_PLACES = nb.typeof(read_only(lay_out(np.ones(1))))  # type: ignore[no-untyped-call]


@nb.njit(nogil=True, inline="always")
def _bits(key: Any, draw: Any, attempt: Any) -> Any:
    """64 random bits: SplitMix64 as a counter-based generator."""
    return mix(key + STEP * U64(draw * (ATTEMPTS + 1) + attempt + 1))


@nb.njit(nogil=True, inline="always")
def _coin(key: Any, stream: Any, draw: Any) -> Any:
    return fraction(mix(mix(key ^ stream) + STEP * U64(draw + 1)))


@nb.njit(nogil=True, inline="always")
def _exclude(seen: Any, places: Any, stamps: Any, sums: Any, mark: Any) -> None:
    """Stamps what a user knows; sums up its weights, in each segment from the segment's first on."""
    last = np.int64(0)
    weight = 0.0
    for i in range(seen.size):
        place = seen[i]
        if place >= last:
            last = places.bounds[below(places.bounds, 0, places.bounds.size, place + 1)]
            weight = 0.0
        stamps[place] = mark
        weight += places.weights[place]
        sums[i] = weight


@nb.njit(nogil=True, inline="always")
def _measure(seen: Any, sums: Any, places: Any, segment: Any, end: Any) -> Any:
    """The weight of a segment below `end`, and what of that is seen; how many of its places are not."""
    begin, last = places.bounds[segment], places.bounds[segment + 1]
    weight = places.totals[segment] if end >= last else sum_within(places.tree, begin, end)
    first = below(seen, 0, seen.size, begin) if begin > 0 else 0
    count = below(seen, first, seen.size, end)
    seen_weight = sums[first + count - 1] if count > 0 else 0.0
    return weight, seen_weight, min(end, last) - begin - count


@nb.njit(nogil=True)
def _set_candidates(tree: Any, candidates: Any, weights: Any, twins: Any, present: Any) -> None:
    set_weights(tree, candidates, weights, present)
    if twins.size > 0:
        set_weights(tree, twins[candidates], weights, present)


def _compiled(ranged: bool) -> Any:
    """The kernel that draws: from ranges, or faster from all candidates alone; of these both draw alike."""

    @nb.njit(
        void(
            UINT64S, INT64S, INT64S, INT64S, INT32S, INT64S, INT64S, types.float64,
            _PLACES, FLOATS_OUT, INT64S_OUT, FLOATS_OUT, INT32S_OUT, FLOATS_OUT,
        ),
        nogil=True,
        cache=True,
    )  # fmt: skip
    def draw(
        keys: Any, users: Any, offsets: Any, starts: Any, known: Any, ends: Any, categories: Any, share: Any,
        places: Any, tree: Any, stamps: Any, sums: Any, drawn: Any, probs: Any,
    ) -> None:  # fmt: skip
        """Draws for all positives. `stamps` says who excludes a place: ~user, or the positive + 1."""
        bounds, totals, weights, twins = places.bounds, places.totals, places.weights, places.twins
        thresholds, aliases, whole = places.thresholds, places.aliases, places.tree
        candidates = bounds[1]
        user = end = segment = np.int64(-1)
        segment_end = alike = np.int64(0)
        seen = known[0:0]
        masked = crowded = False
        left = segment_left = 0.0
        # The weight of a range that has less than half of its segment's, else 0.
        all_narrow = segment_narrow = 0.0
        for positive in range(keys.size):
            begin, behind = offsets[positive], offsets[positive + 1]
            if begin == behind:
                continue
            if users[positive] != user:
                if masked:
                    set_weights(tree, seen, weights, True)
                masked = False
                user = users[positive]
                seen = known[starts[user] : starts[user + 1]]
                _exclude(seen, places, stamps, sums, ~user)
                end = np.int64(-1)
            if end != ends[positive] or (ranged and share > 0.0 and segment != categories[positive] + 1):
                end = ends[positive]
                weight, seen_weight = totals[0], sums[seen.size - 1] if seen.size > 0 else 0.0
                segment_weight = segment_seen = 0.0
                if ranged:
                    weight, seen_weight, _ = _measure(seen, sums, places, 0, end)
                    all_narrow = weight if weight < 0.5 * totals[0] else 0.0
                if ranged and share > 0.0:
                    segment = categories[positive] + 1
                    first = bounds[segment]
                    segment_end = first
                    if segment > 0:
                        segment_end += below(twins, first, bounds[segment + 1], end)
                    segment_weight, segment_seen, alike = _measure(seen, sums, places, segment, segment_end)
                    segment_narrow = segment_weight if segment_weight < 0.5 * totals[segment] else 0.0
                left, segment_left = weight - seen_weight, segment_weight - segment_seen
                crowded = seen_weight > 0.5 * weight or segment_seen > 0.5 * segment_weight
                if crowded:
                    if not masked:
                        set_weights(tree, seen, weights, False)
                        masked = True
                    # Where little is left a difference would be all rounding; the tree's sum is not.
                    left = sum_within(tree, 0, end)
                    if ranged and share > 0.0:
                        segment_left = sum_within(tree, first, segment_end)
            exact = crowded
            left_alike = alike
            for row in range(begin, behind):
                key, number = keys[positive], row - begin
                first, columns, last, narrow = np.int64(0), candidates, end, all_narrow
                if ranged and left_alike > 0 and _coin(key, _CATEGORIES, number) < share:
                    first, last, narrow = bounds[segment], segment_end, segment_narrow
                    columns = bounds[segment + 1] - first
                place = np.int64(-1)
                if not exact:
                    for attempt in range(ATTEMPTS):
                        bits = _bits(key, number, attempt)
                        if ranged and narrow > 0.0:
                            tried = by_tree(bits, whole, first, last, narrow)
                        else:
                            tried = by_alias(bits, thresholds, aliases, first, columns)
                        if ranged and tried >= last:
                            continue
                        if stamps[tried] != ~user and stamps[tried] != positive + 1:
                            place = tried
                            break
                if place < 0:
                    if not masked:
                        set_weights(tree, seen, weights, False)
                        masked = True
                    if not exact:
                        _set_candidates(tree, drawn[begin:row], weights, twins, False)
                        exact = True
                    bits = _bits(key, number, ATTEMPTS)
                    place = by_tree(bits, tree, first, last, sum_within(tree, first, last))
                candidate = np.int64(twins[place]) if ranged and place >= candidates else place
                stamps[candidate] = positive + 1
                if exact:
                    set_weight(tree, candidate, 0.0)
                drawn[row] = candidate
                prob = weights[candidate] / left
                if ranged and share > 0.0:
                    twin = twins[candidate]
                    stamps[twin] = positive + 1
                    if exact:
                        set_weight(tree, twin, 0.0)
                    if left_alike > 0:
                        prob *= 1.0 - share
                        if bounds[segment] <= twin < segment_end:
                            prob += share * (weights[candidate] / segment_left)
                            left_alike -= 1
                probs[row] = prob
            if exact:
                _set_candidates(tree, drawn[begin:behind], weights, twins, True)
        if masked:
            set_weights(tree, seen, weights, True)

    return draw


_draw_within, _draw_of_all = _compiled(True), _compiled(False)


@nb.njit(void(INT64S, INT32S, INT64S, types.int64, INT64S, INT64S_OUT), nogil=True, cache=True)
def _count(starts: Any, known: Any, ends: Any, ratio: Any, users: Any, counts: Any) -> None:
    for positive in range(users.size):
        first, last = starts[users[positive]], starts[users[positive] + 1]
        end = ends[positive]
        counts[positive] = min(ratio, end - below(known, first, last, end))


@nb.njit(types.Array(types.uint64, 1, "C")(types.uint64, UINT64S), nogil=True, cache=True)
def _keys(seed: Any, words: Any) -> Any:
    stream = mix(seed + STEP)
    keys = np.empty(words.size, np.uint64)
    for i in range(words.size):
        keys[i] = mix(stream ^ words[i])
    return keys


@nb.njit(void(UINT64S, INT64S, FLOATS_OUT), nogil=True, cache=True)
def _coins(keys: Any, counts: Any, coins: Any) -> None:
    place = 0
    for positive in range(keys.size):
        for draw in range(counts[positive]):
            coins[place] = _coin(keys[positive], _SOURCES, draw)
            place += 1


def stream_keys(seed: int, group_ids: np.ndarray) -> np.ndarray:
    """The generator keys (uint64) of positives, from the seed (uint64) and their hashes (uint64)."""
    return np.asarray(_keys(U64(seed), group_ids))


def draw_counts(
    starts: np.ndarray, known: np.ndarray, ends: np.ndarray, ratio: int, users: np.ndarray
) -> np.ndarray:
    """How many negatives each positive gets: `ratio`, or all that are available and its user does not know.

    Args:
        starts, known: As of `known_places`.
        ends: int64, of each positive: candidates below this number are available.
        ratio: `negative_ratio`.
        users: int64, the user of each positive.

    Returns:
        int64, one per positive.
    """
    counts = np.empty(users.size, np.int64)
    _count(starts, known, ends, ratio, users, counts)
    return counts


def draw_negatives(
    keys: np.ndarray,
    users: np.ndarray,
    counts: np.ndarray,
    starts: np.ndarray,
    known: np.ndarray,
    ends: np.ndarray,
    categories: np.ndarray,
    share: float,
    places: Places,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws each positive's negatives.

    Args:
        keys: uint64 generator key of each positive.
        users: int64, the user of each positive; a user's positives lie together.
        counts: How many to draw for each, as `draw_counts` gives it.
        starts, known: As of `known_places`.
        ends: int64, of each positive: candidates below this number are available.
        categories: int64, of each positive; -1 = unknown.
        share: How likely each draw is from the positive's category; 0 if places have no categories.
        places: The candidates.

    Returns:
        Candidate numbers (int32) and sampling probabilities (float64) in draw order. The probability is the
        candidate's weight over that of all that are available and the user does not know. With a share it is
        that of the mixture of this and the same within the category, unless this has none left to draw.
    """
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    drawn = np.empty(offsets[-1], np.int32)
    probs = np.empty(offsets[-1], np.float64)
    stamps = np.zeros(places.weights.size, np.int64)
    sums = np.empty(int(np.diff(starts).max(initial=0)), np.float64)
    # Nothing weighs anything behind the last place: up to the end of the tree it is fewer sums.
    reach = np.where(ends < places.weights.size, ends, places.tree.size // 2)
    ranged = share > 0.0 or ends.min(initial=places.bounds[1]) < places.bounds[1]
    (_draw_within if ranged else _draw_of_all)(
        keys, users, offsets, starts, known, reach, categories, share, read_only(places),
        places.tree.copy(), stamps, sums, drawn, probs,
    )  # fmt: skip
    return drawn, probs


def source_coins(keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A number for each draw that decides which source it names.

    Args:
        keys: uint64 generator key of each positive.
        counts: int64, how many each draws.

    Returns:
        float64, uniform in [0, 1), in draw order; independent of which candidates are drawn.
    """
    coins = np.empty(int(counts.sum()), np.float64)
    _coins(keys, counts, coins)
    return coins
