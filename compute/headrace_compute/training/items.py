"""The items of a sampling run: how often each occurs, and which can be negatives."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute.inputs.events import Events
from headrace_compute.inputs.numbering import Numbering
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
class ItemIndex:
    """All items of the source and the catalog, by their numbers.

    Attributes:
        item_ids: item_id by number.
        events: int64, events in the source by number.
        candidates: int32, numbers of the items that can be negatives, ascending.
    """

    item_ids: pa.Array
    events: np.ndarray
    candidates: np.ndarray


def count_items(events: Events, which: np.ndarray | None) -> ItemCounts:
    """Counts the events of each item, of those rows for which a bool is true; None: of all."""
    items = events.rows["item_code"].to_numpy()
    counts = np.bincount(items if which is None else items[which])
    numbers = np.flatnonzero(counts)
    return ItemCounts(numbers.astype(np.int32), counts[numbers])


def build_index(config: StoreConfig, numbering: Numbering, *counts: ItemCounts) -> ItemIndex:
    """Says how often each item occurs, and which can be negatives: those of the catalog, if it has any."""
    events = np.zeros(len(numbering), np.int64)
    for shard in counts:
        events[shard.numbers] += shard.events
    candidates = numbering.listed if len(numbering.listed) else np.flatnonzero(events).astype(np.int32)
    return ItemIndex(numbering.item_ids, events, candidates)


def measure_index(config: StoreConfig, index: ItemIndex) -> tuple[int, int]:
    """How many items the index has, and how many of them are candidates."""
    return len(index.item_ids), len(index.candidates)
