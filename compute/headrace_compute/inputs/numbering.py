"""The items of a run, numbered once for all of its shards."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.model import StoreConfig


@dataclass(frozen=True)
class Numbering:
    """All items of the source and of the catalog, numbered in the order of item_id.

    Each worker that has a shard in hand holds it whole, in memory that the workers of a node share: about 30
    bytes an item, and 4 for each batch that it occurs in.

    Attributes:
        item_ids: item_id by number.
        listed: int32, numbers of the items in the catalog, ascending, as its rows are.
        places: For each batch, int32: the numbers of its items.
    """

    item_ids: pa.Array
    listed: np.ndarray
    places: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.item_ids)


def number_items(config: StoreConfig, catalog: pa.Table | None, *batches: pa.Array) -> Numbering:
    """Numbers all items.

    Args:
        config: Unused.
        catalog: The current catalog, in the order of item_id; None if there is none.
        batches: The items of each batch, as `exchange` gives them.
    """
    listed = pa.array([], pa.string()) if catalog is None else catalog["item_id"].combine_chunks()
    mentions = pa.chunked_array([listed, *batches], pa.string()).combine_chunks().dictionary_encode()
    order = pc.sort_indices(mentions.dictionary).to_numpy()
    numbers = np.empty(order.size, np.int32)
    numbers[order] = np.arange(order.size, dtype=np.int32)
    ends = np.cumsum([len(listed), *(len(batch) for batch in batches)])
    ours, *theirs = np.split(numbers[mentions.indices.to_numpy()], ends[:-1])
    return Numbering(mentions.dictionary.take(pa.array(order)), ours, tuple(theirs))
