"""Training data as a trainer reads it: Arrow batches, epoch by epoch."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import tee
from typing import Any, TypeAlias, TypeVar, Unpack

from headrace.arrow import pa
from headrace.options import TrainingOptions
from headrace.read import TableReader
from headrace.training.epochs import Epochs, Lanes
from headrace.training.order import HELD_ROWS, Order, Window

Read: TypeAlias = Callable[[TableReader], Iterator[pa.RecordBatch]]
"""Reads from a server."""

Begun = TypeVar("Begun", Iterator[pa.RecordBatch], AsyncIterator[pa.RecordBatch])

AHEAD = 2
"""Reads that are under way while the rows of another are taken."""

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
        """Goes on exactly where a state was saved, in its version. After an error it stands where it stood.

        Raises:
            ValueError: It is of another training set, or its batches are others.
            VersionNotFoundError: There is no such version.
        """
        if self._is_elsewhere(state):
            self._open(state["version"])
        self._go_to(state)

    def _made(self, order: Order, numbers: Sequence[int]) -> Iterator[pa.RecordBatch]:
        lanes, arrivals = Lanes(), self._arrivals(order.windows(numbers))
        for number in numbers:
            slot = order.slot(number)
            if lanes.lack(slot):
                lanes.keep(slot, next(arrivals))
            yield lanes.batch(slot)

    def _arrivals(self, windows: Iterator[Window]) -> Iterator[pa.RecordBatch]:
        """The rows of windows, one after another; reads begin before they are needed."""
        if self.rows <= HELD_ROWS:
            if self._held is None:
                self._held = pa.concat_batches(self._read(self._reader(0, self.rows)))
            for window in windows:
                yield self._held.take(pa.array(window.rows[window.order]))
            return
        to_read, windows = tee(windows)
        reads = _ahead(self._read(self._reader(*run)) for window in to_read for run in window.runs())
        for window in windows:
            found = [batch for _ in window.runs() for batch in next(reads)]
            yield pa.concat_batches(found).take(pa.array(window.order))

    def _open(self, version: int | None = None) -> None:
        reader = self._opening(version)
        for _ in self._read(reader):
            pass
        self._opened(reader)
        self._held = None


class AsyncTrainingData(Epochs):
    """The same on an event loop, made by `AsyncClient.training_data`; otherwise as `TrainingData`."""

    def __init__(
        self, read: AsyncRead, tenant: str, dataset: str, **options: Unpack[TrainingOptions]
    ) -> None:
        super().__init__(tenant, dataset, **options)
        self._read = read
        self._held: pa.RecordBatch | None = None

    async def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        order, numbers = self._order(), self._turn(0, 1)
        lanes, arrivals = Lanes(), self._arrivals(order.windows(numbers))
        for number in numbers:
            slot = order.slot(number)
            if lanes.lack(slot):
                lanes.keep(slot, await anext(arrivals))
            self.advance()
            yield lanes.batch(slot)

    async def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where a state was saved, in its version."""
        if self._is_elsewhere(state):
            await self.open(state["version"])
        self._go_to(state)

    async def open(self, version: int | None = None) -> None:
        """Pins the version, the one asked for unless one is named."""
        reader = self._opening(version)
        async for _ in self._read(reader):
            pass
        self._opened(reader)
        self._held = None

    async def _arrivals(self, windows: Iterator[Window]) -> AsyncIterator[pa.RecordBatch]:
        if self.rows <= HELD_ROWS:
            if self._held is None:
                self._held = await _whole(self._read(self._reader(0, self.rows)))
            for window in windows:
                yield self._held.take(pa.array(window.rows[window.order]))
            return
        to_read, windows = tee(windows)
        reads = _ahead(self._read(self._reader(*run)) for window in to_read for run in window.runs())
        for window in windows:
            found = [await _whole(next(reads)) for _ in window.runs()]
            yield pa.concat_batches(found).take(pa.array(window.order))


async def _whole(read: AsyncIterator[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches([batch async for batch in read])


def _ahead(reads: Iterator[Begun]) -> Iterator[Begun]:
    """Reads that begin as they are taken, each AHEAD before its turn."""
    begun = deque[Begun]()
    for read in reads:
        begun.append(read)
        if len(begun) > AHEAD:
            yield begun.popleft()
    yield from begun
