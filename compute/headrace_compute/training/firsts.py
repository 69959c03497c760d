"""When the users and items of a shard have their first events."""

from dataclasses import dataclass

import numpy as np

from headrace_compute.inputs.events import Events
from headrace_compute.kernels.core import NEVER_US
from headrace_compute.kernels.occurrences import count_occurrences


@dataclass(frozen=True)
class FirstEvents:
    """Times of first events.

    Attributes:
        users_us: int64, by user of the shard; each has an event.
        items: int32, numbers of the items that have any, ascending.
        items_us: int64, of these.
    """

    users_us: np.ndarray
    items: np.ndarray
    items_us: np.ndarray


def first_events(events: Events) -> FirstEvents:
    """Finds them, of all events."""
    users, items, times_us = (events.rows[name].to_numpy() for name in ("user_code", "item_code", "time_us"))
    _, users_us = count_occurrences(users, times_us, NEVER_US)
    counts, items_us = count_occurrences(items, times_us, NEVER_US)
    numbers = np.flatnonzero(counts)
    return FirstEvents(users_us, numbers.astype(np.int32), items_us[numbers])
