"""The events that histories are made of."""

from dataclasses import dataclass

import numpy as np

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.inputs.events import Events
from headrace_compute.kernels.timelines import by_time, stable_order
from headrace_compute.training.parameters import SamplingParams


@dataclass(frozen=True)
class Histories:
    """The events of a shard that histories are made of, its users in the order of (bucket, user_id).

    Attributes:
        starts: int64, users + 1: user u has events `starts[u]` to `starts[u + 1]`.
        items: int32, the number of each event's item; events by (timestamp, item_id, type).
        times_us: int64, of each event.
        splits: int8, the first split that sees each event; None if time alone divides what they see.
    """

    starts: np.ndarray
    items: np.ndarray
    times_us: np.ndarray
    splits: np.ndarray | None = None

    def of_split(self, number: int) -> "Histories":
        """What one split sees."""
        if self.splits is None:
            return self
        which = self.splits <= number
        return Histories(starts_where(self.starts, which), self.items[which], self.times_us[which])


def starts_where(starts: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Where users' values begin among those for which a bool is true: int64, users + 1, as `starts`."""
    before: np.ndarray = np.concatenate([[0], np.cumsum(which)])[starts]
    return before


def histories_of(events: Events, params: SamplingParams, splits: np.ndarray | None) -> Histories:
    """The events of the types that make histories.

    Args:
        events: The shard.
        params: Which types those are.
        splits: int8, the first split that sees each event; None: as of `Histories`.
    """
    is_wanted = np.isin(INTERACTION_TYPES, params.history_types or params.positive_types)
    wanted = is_wanted[events.rows["interaction_type"].to_numpy()]
    users, items, types, times_us = (
        events.rows[name].to_numpy()[wanted]
        for name in ("user_code", "item_code", "interaction_type", "time_us")
    )
    ties = stable_order(items.astype(np.uint64) << np.uint64(8) | types.astype(np.uint64))
    order = by_time(times_us, users.astype(np.uint64), ties)
    counts = np.bincount(users, minlength=len(events.users))
    return Histories(
        np.concatenate([[0], np.cumsum(counts)]),
        items[order],
        times_us[order],
        None if splits is None else splits[wanted][order],
    )
