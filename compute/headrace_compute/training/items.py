"""The items of a sampling run: how often and since when each occurs, and which can be negatives."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.inputs.events import Events
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.kernels.core import NEVER_US
from headrace_compute.kernels.occurrences import count_occurrences
from headrace_compute.model import StoreConfig


@dataclass(frozen=True)
class ItemCounts:
    """Events of the items of a shard.

    Attributes:
        numbers: int32, of the items that have any, ascending.
        events: int64, how many each has.
    """

    numbers: np.ndarray
    events: np.ndarray


@dataclass(frozen=True)
class TimedCounts(ItemCounts):
    """The same with their times.

    Attributes:
        first_us: int64, the time of each one's first event.
    """

    first_us: np.ndarray


@dataclass(frozen=True)
class ItemIndex:
    """All items of the source and the catalog, by their numbers.

    Attributes:
        item_ids: item_id by number.
        events: int64, events in the source by number.
        first_us: int64, the time of the first of them by number, NEVER_US for none.
        candidates: int32, numbers of the items that can be negatives, ascending.
        categories: int32 by number, the category in the catalog, in the order of names; -1 = unknown.
            All are unknown in a run that draws from none.
    """

    item_ids: pa.Array
    events: np.ndarray
    first_us: np.ndarray
    candidates: np.ndarray
    categories: np.ndarray


def count_items(events: Events, which: np.ndarray | None) -> TimedCounts:
    """Counts the events of each item, of those rows for which a bool is true; None: of all."""
    items, times_us = events.rows["item_code"].to_numpy(), events.rows["time_us"].to_numpy()
    if which is not None:
        items, times_us = items[which], times_us[which]
    counts, first_us = count_occurrences(items, times_us, NEVER_US)
    numbers = np.flatnonzero(counts)
    return TimedCounts(numbers.astype(np.int32), counts[numbers], first_us[numbers])


def build_index(
    config: StoreConfig, numbering: Numbering, catalog: pa.Table | None, *counts: TimedCounts
) -> ItemIndex:
    """Says how often each item occurs, and which can be negatives: those of the catalog, if it has any.

    Args:
        config: Unused.
        numbering: Of all items.
        catalog: The current catalog (item_id, category), of which `numbering` was told; None if no category
            is asked for, or there is none.
        counts: Of each shard.
    """
    events, first_us = np.zeros(len(numbering), np.int64), np.full(len(numbering), NEVER_US)
    for shard in counts:
        events[shard.numbers] += shard.events
        first_us[shard.numbers] = np.minimum(first_us[shard.numbers], shard.first_us)
    candidates = numbering.listed if len(numbering.listed) else np.flatnonzero(events).astype(np.int32)
    categories = np.full(len(numbering), -1, np.int32)
    if catalog is not None:
        categories[numbering.listed] = _category_codes(catalog["category"])
    return ItemIndex(numbering.item_ids, events, first_us, candidates, categories)


def _category_codes(names: pa.ChunkedArray) -> np.ndarray:
    """The place of each name among the different ones in their order: int32, -1 for null."""
    in_order = pc.unique(names.drop_null()).sort()
    codes: np.ndarray = pc.fill_null(pc.index_in(names, value_set=in_order), -1).to_numpy()
    return codes


def measure_index(config: StoreConfig, index: ItemIndex) -> tuple[int, int]:
    """How many items the index has, and how many of them are candidates."""
    return len(index.item_ids), len(index.candidates)
