"""The k-core of (user, item) pairs: shards count, the caller adds up.

A round drops users with too few living items, shard by shard, and counts the
users that each item still has; `survivors` drops items. Repeated until no item
is dropped, this reaches the unique fixed point, whatever the order of removals.
"""

from dataclasses import dataclass

import numpy as np

from headrace_compute.kernels.core import count_core
from headrace_compute.model import StoreConfig
from headrace_compute.training.pairs import Pairs


@dataclass
class CoreRound:
    """What one round left, of the shards that were added up.

    Attributes:
        counts: int64, by number: how many users with enough living items each item has.
        users: How many such users there are.
    """

    counts: np.ndarray
    users: int = 0

    def add(self, users: int, counts: np.ndarray) -> None:
        """Adds what `core_round` gave for a shard; users never cross shards."""
        self.users += users
        self.counts += counts

    @property
    def pairs(self) -> int:
        """Pairs of those users and living items."""
        return int(self.counts.sum())

    @property
    def items(self) -> int:
        """Living items that some such user has."""
        return int(np.count_nonzero(self.counts))


def core_round(
    config: StoreConfig, pairs: Pairs, alive: np.ndarray, min_per_user: int
) -> tuple[int, np.ndarray]:
    """One round on one shard.

    Args:
        config: Unused.
        pairs: The shard.
        alive: bool by item number: the items not dropped so far.
        min_per_user: Living items a user needs; 0 and 1 ask for one.

    Returns:
        How many users have enough living items; how many of these users each item has, int32 by number.
    """
    return count_core(pairs.starts, pairs.items, alive, min_per_user)


def survivors(alive: np.ndarray, total: CoreRound, min_per_item: int) -> np.ndarray:
    """The living items that still have enough users, at least one; equal to `alive` at the fixed point."""
    return alive & (total.counts >= max(1, min_per_item))
