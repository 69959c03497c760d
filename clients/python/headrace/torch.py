"""Training data for PyTorch. Needs the extra: `pip install 'headrace[torch]'`.

    dataset = TrainingDataset("acme", split="train", shuffle_seed=1, batch_rows=1_000)
    loader = TrainingLoader(dataset, num_workers=2)
    for epoch in range(5):
        for batch in loader:  # {"label": tensor, "user_id": list of str, ...}
            ...
            checkpoint["loader"] = loader.state_dict()

Batches come whole from the dataset, in one order however many workers there are. Workers read from the server
by themselves; they are spawned, since gRPC does not outlive a fork, so what starts a loader stands below
`if __name__ == "__main__":`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, Unpack

from headrace.arrow import np, pa
from headrace.client import Client
from headrace.extras import MissingExtraError
from headrace.options import TrainingOptions
from headrace.training import TrainingData

try:
    import torch
    from torch import distributed
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info
except ModuleNotFoundError as error:
    raise MissingExtraError("torch", error.name or "torch") from error

Batch: TypeAlias = Mapping[str, Any]
"""A value for each column."""


def tensors(batch: pa.RecordBatch) -> Batch:
    """A batch as tensors, where there are numbers.

    Returns:
        For each column of numbers or booleans a tensor, null being NaN; of timestamps int64 microseconds
        since 1970; of lists of numbers a tensor (rows, longest list) with zeros in front; else a list.
    """
    return {name: _values(batch.column(name)) for name in batch.schema.names}


class TrainingDataset(IterableDataset):  # type: ignore[misc]  # mypy is not given torch
    """A training set as batches of tensors, shared by ranks and by the workers of a loader.

    Args:
        tenant: Whose.
        dataset: Its name.
        address: `host:port` of the server. Like its TLS and token, the environment tells it by default: see
            `Client`.
        transform: Makes of each `pyarrow.RecordBatch`, in the worker, what the loader gives.
        options: See `TrainingOptions`; `rank` and `ranks` default to those of torch.distributed, where
            that is initialised.
    """

    def __init__(
        self,
        tenant: str,
        dataset: str = "training_data",
        *,
        address: str | None = None,
        transform: Callable[[pa.RecordBatch], Any] = tensors,
        **options: Unpack[TrainingOptions],
    ) -> None:
        if distributed.is_available() and distributed.is_initialized():
            options.setdefault("rank", distributed.get_rank())
            options.setdefault("ranks", distributed.get_world_size())
        self._transform = transform
        self._source = address, tenant, dataset
        self._options = options
        self._connect()

    @property
    def data(self) -> TrainingData:
        """What is read: its version, rows, and where it stands."""
        return self._data

    def __len__(self) -> int:
        """Batches of an epoch, of this rank."""
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        if self._process != os.getpid():
            raise RuntimeError(
                "gRPC does not outlive a fork; use TrainingLoader, or give the DataLoader "
                "multiprocessing_context='spawn'."
            )
        worker = get_worker_info()
        if worker is None:
            return map(self._transform, self._data)
        return self._share(worker.id, worker.num_workers)

    def _share(self, worker: int, workers: int) -> Iterator[Any]:
        yield from map(self._transform, self._data.batches(worker, workers))
        # A worker that persists is asked for the next epoch.
        self._data.set_epoch(self._data.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch, from 0."""
        self._data.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands in this process; of workers their loader knows."""
        return self._data.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where a state was saved."""
        self._data.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        options: TrainingOptions = {**self._options, "version": self._data.version}
        return {"parts": (self._transform, self._source, options), "state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._transform, self._source, self._options = state["parts"]
        self._connect()
        self.load_state_dict(state["state"])

    def _connect(self) -> None:
        address, tenant, dataset = self._source
        self._process = os.getpid()
        self._data = Client(address).training_data(tenant, dataset, **self._options)


class TrainingLoader(DataLoader):  # type: ignore[misc]  # mypy is not given torch
    """A DataLoader that knows which batches it handed out, whatever its workers have made beyond them.

    Args:
        dataset: Gives whole batches.
        num_workers: Processes; 2, 4 or 8 read each row once, other numbers some rows twice.
        options: Of DataLoader, but for those that are about batches and their order.
    """

    def __init__(self, dataset: TrainingDataset, *, num_workers: int = 0, **options: Any) -> None:
        context = "spawn" if num_workers else None
        super().__init__(
            dataset, batch_size=None, num_workers=num_workers, multiprocessing_context=context, **options
        )

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            if self.num_workers:
                self.dataset.data.advance()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands: batches that were handed out are done."""
        return self.dataset.state_dict()  # type: ignore[no-any-return]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where a state was saved, with any number of workers."""
        self.dataset.load_state_dict(state)


def _values(column: pa.Array) -> Any:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _numbers(column.cast(pa.int64()))
    if pa.types.is_list(kind) and _is_number(kind.value_type):
        return _padded(column)
    return _numbers(column) if _is_number(kind) else column.to_pylist()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numbers(column: pa.Array) -> torch.Tensor:
    return torch.from_numpy(np.array(column.to_numpy(zero_copy_only=False)))


def _padded(column: pa.Array) -> torch.Tensor:
    """Lists of numbers as rows of one length: the last value of each list in the last column."""
    lengths = column.value_lengths().fill_null(0).to_numpy()
    values = column.flatten().to_numpy(zero_copy_only=False)
    width = int(lengths.max(initial=0))
    rows = np.zeros((len(column), width), values.dtype)
    rows[np.arange(width) >= (width - lengths)[:, None]] = values
    return torch.from_numpy(rows)
