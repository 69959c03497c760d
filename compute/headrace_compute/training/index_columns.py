"""The columns of indices: the integers of a row's user and item."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace_compute.training.rows import Rows

INDICES = (pa.field("user_index", pa.int64()), pa.field("item_index", pa.int64()))


@dataclass(frozen=True)
class IndexColumns:
    """Where they are from.

    Attributes:
        users: int64, by user of the shard.
        items: int64, by item number.
    """

    users: np.ndarray
    items: np.ndarray

    def of(self, rows: Rows) -> list[pa.Array]:
        """The two of each row."""
        return [pa.array(self.users[rows.users]), pa.array(self.items[rows.items])]
