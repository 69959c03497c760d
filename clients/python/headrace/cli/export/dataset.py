"""A training set that is exported: what there is of it, and its rows split by split."""

from collections.abc import Callable, Iterator, Mapping

from headrace.arrow import pa
from headrace.client import Client

WHOLE = ""
"""Stands for the split of a training set without splits."""


class Dataset:
    """One version of a training set, to be read split by split.

    Args:
        client: Reads it.
        tenant, name: Which.
        version: Default the newest.

    Attributes:
        splits: Rows of each; of a set without splits all rows, under WHOLE.
        show: Told how many rows have been read.
    """

    def __init__(self, client: Client, tenant: str, name: str, version: int | None) -> None:
        data = client.training_data(tenant, name, version=version)
        self.client = client
        self.tenant = tenant
        self.name = name
        self.version = data.version
        self.splits: Mapping[str, int] = data.splits or {WHOLE: data.rows}
        self.show: Callable[[int], None] = lambda rows: None
        self._read = 0

    @property
    def rows(self) -> int:
        """Of all splits."""
        return sum(self.splits.values())

    def batches(self, split: str) -> Iterator[pa.RecordBatch]:
        """The rows of a split in the order of the table, in one batch at least."""
        for batch in self.client.read_batches(self.tenant, self.name, version=self.version, split=split):
            yield batch
            self._read += batch.num_rows
            self.show(self._read)
