"""Training data as a trainer reads it: Arrow batches, epoch by epoch."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, Unpack

import pyarrow as pa

from headrace.read import TableReader
from headrace.training.epochs import Epochs, TrainingOptions, Windows
from headrace.training.order import HELD_ROWS, Order, Window

Read: TypeAlias = Callable[[TableReader], Iterator[pa.RecordBatch]]
"""Reads from a server."""

AsyncRead: TypeAlias = Callable[[TableReader], AsyncIterator[pa.RecordBatch]]
"""The same on an event loop."""


class TrainingData(Epochs):
    """One version of a training set, or a split of it, as batches of rows; made by `Client.training_data`.

    Iterating gives what is left of the epoch that is under way, the next time the next epoch.
    A read that breaks goes on by itself.

    Args:
        read: Reads from a server.
        tenant, dataset: Which.
        options: How it is read.
    """

    def __init__(self, read: Read, tenant: str, dataset: str, **options: Unpack[TrainingOptions]) -> None:
        super().__init__(tenant, dataset, **options)
        self._read = read
        self._held: pa.RecordBatch | None = None
        self._open()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self.batches():
            self.advance()
            yield batch

    def batches(self, worker: int = 0, workers: int = 1) -> Iterator[pa.RecordBatch]:
        """What is left of the epoch; iterating so does not change where it stands.

        Args:
            worker, workers: Which of how many processes that share this rank, each of which makes every
                `workers`-th batch. Of 2, 4 or 8 each reads other rows, of other numbers some twice.
        """
        return self._made(self._order(), self._turn(worker, workers))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where a state was saved, in its version.

        Raises:
            ValueError: It is of another training set, or its batches are others.
            VersionNotFoundError: There is no such version.
        """
        if self._restore(state):
            self._held = None
            self._open()

    def _made(self, order: Order, numbers: Iterable[int]) -> Iterator[pa.RecordBatch]:
        windows = Windows(order)
        for number in numbers:
            slot = order.slot(number)
            if window := windows.missing(slot):
                windows.keep(slot, self._rows_of(window))
            yield windows.batch(slot)

    def _open(self) -> None:
        reader = self._opening()
        for _ in self._read(reader):
            pass
        self._opened(reader)

    def _rows_of(self, window: Window) -> pa.RecordBatch:
        if self.rows <= HELD_ROWS:
            if self._held is None:
                self._held = self._rows_at(0, self.rows)
            return self._held.take(pa.array(window.rows[window.order]))
        found = pa.concat_batches([self._rows_at(first, rows) for first, rows in window.runs()])
        return found.take(pa.array(window.order))

    def _rows_at(self, first: int, rows: int) -> pa.RecordBatch:
        return pa.concat_batches(list(self._read(self._reader(first, rows))))


class AsyncTrainingData(Epochs):
    """The same on an event loop, made by `AsyncClient.training_data`; otherwise as `TrainingData`."""

    def __init__(
        self, read: AsyncRead, tenant: str, dataset: str, **options: Unpack[TrainingOptions]
    ) -> None:
        super().__init__(tenant, dataset, **options)
        self._read = read
        self._held: pa.RecordBatch | None = None

    async def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        order = self._order()
        windows = Windows(order)
        for number in self._turn(0, 1):
            slot = order.slot(number)
            if window := windows.missing(slot):
                windows.keep(slot, await self._rows_of(window))
            self.advance()
            yield windows.batch(slot)

    async def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where a state was saved, in its version."""
        if self._restore(state):
            self._held = None
            await self.open()

    async def open(self) -> None:
        """Pins the version."""
        reader = self._opening()
        async for _ in self._read(reader):
            pass
        self._opened(reader)

    async def _rows_of(self, window: Window) -> pa.RecordBatch:
        if self.rows <= HELD_ROWS:
            if self._held is None:
                self._held = await self._rows_at(0, self.rows)
            return self._held.take(pa.array(window.rows[window.order]))
        found = pa.concat_batches([await self._rows_at(first, rows) for first, rows in window.runs()])
        return found.take(pa.array(window.order))

    async def _rows_at(self, first: int, rows: int) -> pa.RecordBatch:
        return pa.concat_batches([batch async for batch in self._read(self._reader(first, rows))])
