"""Sums of weights as a binary tree: exact draws by weight from any range of places, in log2(places) steps.

Node i is node 2i + node 2i+1, leaves come last, the root is node 1, and node 0 weighs nothing. A range is
some nodes, at most two of each level; sums are made of these alone, never by difference, so that little is
summed as exactly as much.
"""

from typing import Any

import numba as nb
import numpy as np

from headrace_compute.kernels.streams import fraction


@nb.njit(nogil=True)
def set_weight(tree: Any, place: Any, weight: Any) -> None:
    """Sets a leaf. Sums are made anew from their two parts, so undoing it leaves no trace."""
    node = tree.size // 2 + place
    tree[node] = weight
    while node > 1:
        node //= 2
        tree[node] = tree[2 * node] + tree[2 * node + 1]


@nb.njit(nogil=True)
def set_weights(tree: Any, places: Any, weights: Any, present: Any) -> None:
    """Sets the leaves of some places to their weights, or to nothing."""
    for place in places:
        set_weight(tree, place, weights[place] if present else 0.0)


@nb.njit(nogil=True)
def sum_within(tree: Any, begin: Any, end: Any) -> Any:
    """The weight of the places [begin, end)."""
    total = 0.0
    low, high = tree.size // 2 + begin, tree.size // 2 + end
    while low < high:
        total += tree[low if low & 1 else 0] + tree[high - 1 if high & 1 else 0]
        low, high = (low + 1) >> 1, high >> 1
    return total


@nb.njit(nogil=True)
def by_tree(bits: Any, tree: Any, begin: Any, end: Any, weight: Any) -> Any:
    """A place of [begin, end), whose weight is not 0; never one of weight 0, whatever the rounding."""
    leaves = tree.size // 2
    node, rest = _find(tree, begin, end, fraction(bits) * weight)
    while node < leaves:
        node *= 2
        if rest >= tree[node] and tree[node + 1] > 0.0:
            rest -= tree[node]
            node += 1
    return node - leaves


@nb.njit(nogil=True)
def _find(tree: Any, begin: Any, end: Any, rest: Any) -> Any:
    """The node of the range in which `rest` falls, and how far: the last that weighs anything, if in none."""
    node = 0
    low, high = tree.size // 2 + begin, tree.size // 2 + end
    while low < high:
        for part in (low if low & 1 else 0, high - 1 if high & 1 else 0):
            if tree[part] > 0.0:
                if node > 0:
                    if rest < tree[node]:
                        return node, rest
                    rest -= tree[node]
                node = part
        low, high = (low + 1) >> 1, high >> 1
    return node, rest


def weight_tree(weights: np.ndarray) -> np.ndarray:
    """The tree of weights (float64, not negative): float64, twice as many as the next power of two."""
    leaves = 1 << max(0, weights.size - 1).bit_length()
    tree = np.zeros(2 * leaves, np.float64)
    tree[leaves : leaves + weights.size] = weights
    level = leaves
    while level > 1:
        half = level // 2
        tree[half:level] = tree[level : 2 * level : 2] + tree[level + 1 : 2 * level : 2]
        level = half
    return tree
