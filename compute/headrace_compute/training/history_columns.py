"""Histories in the rows of training data: what the user of a positive did before it, oldest first."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.kernels.timelines import ends_before
from headrace_compute.training.history import Histories
from headrace_compute.training.rows import Rows

HISTORY = pa.field("history", pa.list_(pa.string()))
HISTORY_TIMESTAMPS = pa.field("history_timestamps", pa.list_(TIMESTAMP))
HISTORY_INDEX = pa.field("history_index", pa.list_(pa.int64()))


@dataclass(frozen=True)
class HistoryColumns:
    """The columns of histories.

    Attributes:
        histories: What the split of the rows sees of the shard.
        item_ids: item_id by number.
        length: Events of a history at most.
        with_times: Whether their times are a column too.
        item_indices: The index of each item by number, if these are a column too.
    """

    histories: Histories
    item_ids: pa.Array
    length: int
    with_times: bool
    item_indices: np.ndarray | None

    def of(self, rows: Rows) -> list[pa.Array]:
        """A list for each row: the last events of its user strictly before the time of its positive."""
        groups, events = rows.groups, self.histories
        users = groups.users.astype(np.int32)
        ends = ends_before(events.starts, events.times_us, users, groups.times_us)
        begins = np.maximum(events.starts[users], ends - self.length)
        counts = (ends - begins)[rows.group]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(begins[rows.group] - offsets[:-1], counts) + np.arange(offsets[-1])
        starts = pa.array(offsets.astype(np.int32))
        columns = [pa.ListArray.from_arrays(starts, self.item_ids.take(pa.array(events.items[places])))]
        if self.with_times:
            times = pa.array(events.times_us[places]).cast(TIMESTAMP)
            columns.append(pa.ListArray.from_arrays(starts, times))
        if self.item_indices is not None:
            indices = pa.array(self.item_indices[events.items[places]])
            columns.append(pa.ListArray.from_arrays(starts, indices))
        return columns
