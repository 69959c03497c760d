"""Weighted sampling without replacement, reproducible on every machine and shard plan.

Each positive draws its negatives one after another from the candidates that
its user does not know and that it has not drawn yet, each with probability
proportional to its weight. Two methods give that same distribution:

- an alias table over all candidates, refusing what is excluded, for at most
  `ATTEMPTS` tries. Fast, and enough for nearly every draw;
- a tree of weight sums in which excluded candidates weigh nothing, when the
  tries were in vain or the user knows more than half of all weight. Exact in
  log2(candidates) steps, so a user who has seen nearly everything causes no long rejection.

Randomness is counter-based: draw d's try t of a positive is a function of
(seed, the positive's key, d, t) and of nothing else. Candidates are numbered in
item_id order. Sums and roundings have one fixed order and no fused operations,
so machines agree to the last bit.
"""

import math
from typing import Any

import numba as nb
import numpy as np

from headrace_compute.kernels.streams import STEP, U64, mix, scaled

ATTEMPTS = 16
"""Tries with the alias table before a draw goes to the tree."""

_COINS = U64(0xD1B54A32D192ED03)
"""Sets the stream of coins apart from that of candidates."""

_I32, _I64, _U64, _F64 = (
    nb.types.Array(kind, 1, "C", readonly=True) for kind in (nb.int32, nb.int64, nb.uint64, nb.float64)
)
_OUT_I32, _OUT_I64, _OUT_U64, _OUT_F64 = nb.int32[::1], nb.int64[::1], nb.uint64[::1], nb.float64[::1]


@nb.njit(nogil=True, inline="always")
def _bits(key: Any, draw: Any, attempt: Any) -> Any:
    """64 random bits: SplitMix64 as a counter-based generator."""
    return mix(key + STEP * U64(draw * (ATTEMPTS + 1) + attempt + 1))


@nb.njit(nogil=True, inline="always")
def _by_alias(bits: Any, thresholds: Any, aliases: Any) -> Any:
    """A candidate by Walker's alias method, column and coin from one 64-bit number."""
    column, coin = scaled(bits, thresholds.size)
    return np.int64(column) if coin < thresholds[column] else np.int64(aliases[column])


@nb.njit(nogil=True, inline="always")
def _by_tree(bits: Any, tree: Any) -> Any:
    """A candidate by descent; never one of weight 0, whatever the rounding."""
    leaves = tree.size // 2
    rest = np.float64(bits >> U64(11)) * 2.0**-53 * tree[1]
    node = 1
    while node < leaves:
        node *= 2
        if rest >= tree[node] and tree[node + 1] > 0.0:
            rest -= tree[node]
            node += 1
    return node - leaves


@nb.njit(nogil=True)
def _set_weight(tree: Any, candidate: Any, weight: Any) -> None:
    """Sets a leaf. Sums are made anew from their two parts, so undoing it leaves no trace."""
    node = tree.size // 2 + candidate
    tree[node] = weight
    while node > 1:
        node //= 2
        tree[node] = tree[2 * node] + tree[2 * node + 1]


@nb.njit(nogil=True)
def _set_weights(tree: Any, candidates: Any, weights: Any, present: Any) -> None:
    for candidate in candidates:
        if candidate >= 0:
            _set_weight(tree, candidate, weights[candidate] if present else 0.0)


@nb.njit(nogil=True)
def _stamp(known: Any, weights: Any, stamps: Any, mark: Any) -> Any:
    """Marks the candidates a user knows; returns their total weight."""
    weight = 0.0
    for candidate in known:
        if candidate >= 0:
            stamps[candidate] = mark
            weight += weights[candidate]
    return weight


@nb.njit(
    nb.void(
        _U64, _I64, _I64, _I64, _I32, _U64, _I32, _F64, nb.float64, _OUT_F64, _OUT_I64, _OUT_I32, _OUT_F64
    ),
    nogil=True,
    cache=True,
)
def _draw(
    keys: Any,
    users: Any,
    offsets: Any,
    starts: Any,
    known: Any,
    thresholds: Any,
    aliases: Any,
    weights: Any,
    total: Any,
    tree: Any,
    stamps: Any,
    drawn: Any,
    probs: Any,
) -> None:
    """Draws for all positives. `stamps` says who excludes a candidate: ~user, or the positive + 1."""
    user = np.int64(-1)
    seen = known[0:0]
    crowded = masked = False
    left = total
    for positive in range(keys.size):
        if users[positive] != user:
            if masked:
                _set_weights(tree, seen, weights, True)
            user = users[positive]
            seen = known[starts[user] : starts[user + 1]]
            seen_weight = _stamp(seen, weights, stamps, ~user)
            crowded = masked = seen_weight > 0.5 * total
            if crowded:
                _set_weights(tree, seen, weights, False)
            # Where little is left a difference would be all rounding; the tree's sum is not.
            left = tree[1] if crowded else total - seen_weight
        begin = offsets[positive]
        exact = crowded
        for place in range(begin, offsets[positive + 1]):
            draw = place - begin
            candidate = np.int64(-1)
            if not exact:
                for attempt in range(ATTEMPTS):
                    tried = _by_alias(_bits(keys[positive], draw, attempt), thresholds, aliases)
                    if stamps[tried] != ~user and stamps[tried] != positive + 1:
                        candidate = tried
                        break
            if candidate < 0:
                if not masked:
                    _set_weights(tree, seen, weights, False)
                    masked = True
                if not exact:
                    _set_weights(tree, drawn[begin:place], weights, False)
                    exact = True
                candidate = _by_tree(_bits(keys[positive], draw, ATTEMPTS), tree)
            if exact:
                _set_weight(tree, candidate, 0.0)
            stamps[candidate] = positive + 1
            drawn[place] = candidate
            probs[place] = weights[candidate] / left
        if exact:
            _set_weights(tree, drawn[begin : offsets[positive + 1]], weights, True)
    if masked:
        _set_weights(tree, seen, weights, True)


@nb.njit(nb.void(_I64, _I32, nb.int64, nb.int64, _I64, _OUT_I64), nogil=True, cache=True)
def _sizes(starts: Any, known: Any, candidates: Any, ratio: Any, users: Any, sizes: Any) -> None:
    user = np.int64(-1)
    size = np.int64(0)
    for positive in range(users.size):
        if users[positive] != user:
            user = users[positive]
            left = candidates
            for pair in range(starts[user], starts[user + 1]):
                left -= known[pair] >= 0
            size = min(ratio, left)
        sizes[positive] = size


@nb.njit(nb.void(_F64, nb.float64, _OUT_U64, _OUT_I32), nogil=True, cache=True)
def _fill_alias(weights: Any, total: Any, thresholds: Any, aliases: Any) -> None:
    """Vose (1991): each column holds its own candidate up to a threshold, and one other."""
    columns = weights.size
    heights = weights * (columns / total)
    small = np.empty(columns, np.int32)
    large = np.empty(columns, np.int32)
    smalls = larges = 0
    for column in range(columns):
        aliases[column] = column
        thresholds[column] = U64(0xFFFFFFFFFFFFFFFF)
        if heights[column] < 1.0:
            small[smalls] = column
            smalls += 1
        else:
            large[larges] = column
            larges += 1
    while smalls > 0 and larges > 0:
        smalls -= 1
        low, high = small[smalls], large[larges - 1]
        thresholds[low] = U64(heights[low] * 2.0**64)
        aliases[low] = high
        heights[high] = (heights[high] + heights[low]) - 1.0
        if heights[high] < 1.0:
            larges -= 1
            small[smalls] = high
            smalls += 1


@nb.njit(nb.uint64[::1](nb.uint64, _U64), nogil=True, cache=True)
def _keys(seed: Any, words: Any) -> Any:
    stream = mix(seed + STEP)
    keys = np.empty(words.size, np.uint64)
    for i in range(words.size):
        keys[i] = mix(stream ^ words[i])
    return keys


@nb.njit(nb.void(_U64, _I64, _OUT_F64), nogil=True, cache=True)
def _coins(keys: Any, counts: Any, coins: Any) -> None:
    place = 0
    for positive in range(keys.size):
        stream = mix(keys[positive] ^ _COINS)
        for draw in range(counts[positive]):
            coins[place] = np.float64(mix(stream + STEP * U64(draw + 1)) >> U64(11)) * 2.0**-53
            place += 1


def alias_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias table.

    Args:
        weights: float64, positive; fewer than 2**31.

    Returns:
        thresholds (uint64) and aliases (int32), one each per weight. What rounding
        leaves over keeps its own column: every alias is a candidate.
    """
    thresholds = np.empty(weights.size, np.uint64)
    aliases = np.empty(weights.size, np.int32)
    _fill_alias(weights, math.fsum(weights), thresholds, aliases)
    return thresholds, aliases


def weight_tree(weights: np.ndarray) -> np.ndarray:
    """Sums of weights as a binary tree: node i = node 2i + node 2i+1, leaves last, root at 1."""
    leaves = 1 << max(0, weights.size - 1).bit_length()
    tree = np.zeros(2 * leaves, np.float64)
    tree[leaves : leaves + weights.size] = weights
    level = leaves
    while level > 1:
        half = level // 2
        tree[half:level] = tree[level : 2 * level : 2] + tree[level + 1 : 2 * level : 2]
        level = half
    return tree


def stream_keys(seed: int, group_ids: np.ndarray) -> np.ndarray:
    """The generator keys (uint64) of positives, from the seed (uint64) and their hashes (uint64)."""
    return np.asarray(_keys(U64(seed), group_ids))


def draw_counts(
    starts: np.ndarray, known: np.ndarray, candidates: int, ratio: int, users: np.ndarray
) -> np.ndarray:
    """How many negatives each positive gets: `ratio`, or all candidates its user does not know.

    Args:
        starts: int64, users + 1: where each user's known items begin.
        known: int32, the user's items as candidate numbers, -1 = no candidate.
        candidates: How many there are.
        ratio: `negative_ratio`.
        users: int64, the user of each positive; a user's positives lie together.

    Returns:
        int64, one per positive.
    """
    sizes = np.empty(users.size, np.int64)
    _sizes(starts, known, candidates, ratio, users, sizes)
    return sizes


def draw_negatives(
    keys: np.ndarray,
    users: np.ndarray,
    counts: np.ndarray,
    starts: np.ndarray,
    known: np.ndarray,
    thresholds: np.ndarray,
    aliases: np.ndarray,
    weights: np.ndarray,
    total: float,
    tree: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws each positive's negatives.

    Args:
        keys: uint64 generator key of each positive.
        users: int64, the user of each positive; a user's positives lie together.
        counts: How many to draw for each, as `draw_counts` gives it.
        starts: int64, users + 1: where each user's known items begin.
        known: int32, the user's items as candidate numbers, -1 = no candidate.
        thresholds: First of `alias_table(weights)`.
        aliases: Second of `alias_table(weights)`.
        weights: float64, positive, one per candidate.
        total: Their exact sum, rounded once.
        tree: `weight_tree(weights)`; not written to.

    Returns:
        Candidate numbers (int32) and sampling probabilities (float64: the candidate's
        weight over the weight of all that the user does not know), in draw order.
    """
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    drawn = np.empty(offsets[-1], np.int32)
    probs = np.empty(offsets[-1], np.float64)
    stamps = np.zeros(weights.size, np.int64)
    tree = tree.copy()
    _draw(
        keys, users, offsets, starts, known, thresholds, aliases, weights, total, tree, stamps, drawn, probs
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
