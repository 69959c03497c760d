"""When the users and items of a shard have their first events."""

from dataclasses import dataclass

import numpy as np

from headrace_compute.inputs.events import Events
from headrace_compute.kernels.core import NEVER_US


@dataclass(frozen=True)
class FirstEvents:
    """Times of first events.

    Attributes:
        users_us: int64, by user of the shard.
        items: int32, numbers of the items that have any, ascending.
        items_us: int64, of these.
    """

    users_us: np.ndarray
    items: np.ndarray
    items_us: np.ndarray


def first_events(events: Events) -> FirstEvents:
    """Finds them."""
    times_us = events.rows["time_us"].to_numpy()
    users_us = _firsts(events.rows["user_code"].to_numpy(), times_us, len(events.users))
    items_us = _firsts(events.rows["item_code"].to_numpy(), times_us, len(events.numbering))
    items = np.flatnonzero(items_us != NEVER_US)
    return FirstEvents(users_us, items.astype(np.int32), items_us[items])


def _firsts(codes: np.ndarray, times_us: np.ndarray, count: int) -> np.ndarray:
    firsts = np.full(count, NEVER_US)
    np.minimum.at(firsts, codes, times_us)
    return firsts
