"""The order of an epoch: which rows of a split each batch has. Nothing here reads any.

It is a function of a few numbers, so whoever knows them goes on anywhere: a trainer that was stopped, and
each of several processes that share an epoch.

    table       blocks of rows that follow each other: small enough to mix, large enough to be read
      │ shuffled by (seed, epoch)
    sequence    cut into a share for each rank; they differ by one unit at most
      │
    share       cut into lanes; batch k is of lane k mod LANES, and only the last batch may be short
      │
    lane        cut into windows, each of which is shuffled within, then cut into batches

Whoever makes batch k makes the same. Processes that make every n-th batch, for n = 2, 4 or 8, read different
lanes, so together they read every row once; other n read more. Without a seed the sequence is the table, in
one lane.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from headrace.arrow import np

LANES = 8
"""Of a share that is shuffled: so many windows of a rank are in memory, over all its processes."""

BLOCK_ROWS = 16_384
"""Rows of a block at most: those of a row group, which is the least that the server reads."""

LANE_BLOCKS = 16
"""Blocks of a lane at least, unless the split is so large that there are more of BLOCK_ROWS."""

WINDOW_ROWS = 65_536
"""Rows of a window, about: whole batches, and one at least."""

HELD_ROWS = 1 << 19
"""Rows of a split that may be kept in memory; one that has no more is shuffled unit by unit."""

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


class Slot(NamedTuple):
    """Where the rows of a batch are: in a window, from `first` on."""

    lane: int
    window: int
    first: int
    rows: int


@dataclass(frozen=True)
class Window:
    """Rows that are read together.

    Attributes:
        rows: int64, the rows of the table, ascending.
        order: int64, in which order they come: places in `rows`.
    """

    rows: np.ndarray
    order: np.ndarray

    def runs(self) -> list[tuple[int, int]]:
        """First and count of the rows that follow each other in the table, in the order of the table."""
        ends = np.flatnonzero(np.diff(self.rows, append=self.rows[-1:]) != 1) + 1
        begins = np.concatenate(([0], ends[:-1]))
        return [(int(self.rows[begin]), int(end - begin)) for begin, end in zip(begins, ends, strict=True)]


@dataclass(frozen=True)
class Order:
    """The order of an epoch for one rank.

    Attributes:
        rows: Of the split: whole units.
        batch_rows: Of a batch: whole units.
        unit_rows: Rows that stay together, in their order.
        seed: Of the shuffle, uint64; None = the order of the table.
        epoch: From 0.
        rank, ranks: Which of how many trainers.
        even: Whether units at the end of the sequence, fewer than there are ranks, are left out so that all
            ranks have as many.
    """

    rows: int
    batch_rows: int
    unit_rows: int = 1
    seed: int | None = None
    epoch: int = 0
    rank: int = 0
    ranks: int = 1
    even: bool = False

    @cached_property
    def batches(self) -> int:
        """How many this rank has."""
        return -(-(self._edge(self.rank + 1) - self._edge(self.rank)) // self._batch)

    def slot(self, batch: int) -> Slot:
        """Where the rows of a batch are; batches count from 0."""
        place, lane = divmod(batch, self._lanes)
        window, within = divmod(place, self._window_batches)
        units = min(self._batch, self._lane_units(lane) - place * self._batch)
        return Slot(lane, window, within * self._batch * self.unit_rows, units * self.unit_rows)

    def windows(self, batches: Iterable[int]) -> Iterator[Window]:
        """The windows of some batches, ascending, in the order in which these need them."""
        newest: dict[int, int] = {}
        for batch in batches:
            slot = self.slot(batch)
            if newest.get(slot.lane) != slot.window:
                newest[slot.lane] = slot.window
                yield self.window(slot.lane, slot.window)

    def window(self, lane: int, number: int) -> Window:
        """The rows of a lane's window."""
        step = self._window_batches * self._batch
        first = number * step
        count = min(step, self._lane_units(lane) - first)
        begin = self._edge(self.rank) + sum(map(self._lane_units, range(lane))) + first
        units = np.sort(self._sequence(begin, begin + count))
        order = np.arange(count)
        if self.seed is not None:
            order = _permutation(count, self.seed, self.epoch, 1 + self.rank, lane, number)
        return Window(self._rows(units), self._rows(order))

    @property
    def _units(self) -> int:
        return self.rows // self.unit_rows

    @property
    def _batch(self) -> int:
        return self.batch_rows // self.unit_rows

    @property
    def _lanes(self) -> int:
        return 1 if self.seed is None else LANES

    @property
    def _window_batches(self) -> int:
        return max(1, WINDOW_ROWS // self.batch_rows)

    def _edge(self, rank: int) -> int:
        """Where the share of a rank begins in the sequence."""
        units = self._units - (self._units % self.ranks if self.even else 0)
        return units * rank // self.ranks

    def _lane_units(self, lane: int) -> int:
        units = -(-(self.batches - lane) // self._lanes) * self._batch
        if lane == (self.batches - 1) % self._lanes:
            share = self._edge(self.rank + 1) - self._edge(self.rank)
            units -= self.batches * self._batch - share
        return units

    def _sequence(self, begin: int, end: int) -> np.ndarray:
        """The units from one place of the sequence to another."""
        places = np.arange(begin, end)
        if self.seed is None:
            return places
        blocks, ends = self._blocks
        found = np.searchsorted(ends, places, side="right")
        starts = np.concatenate(([0], ends[:-1]))
        units: np.ndarray = blocks[found] * self._block + places - starts[found]
        return units

    @cached_property
    def _block(self) -> int:
        """Units of a block."""
        if self.rows <= HELD_ROWS:
            return 1
        mixed = self._units // (self.ranks * LANES * LANE_BLOCKS)
        return max(1, min(mixed, BLOCK_ROWS // self.unit_rows))

    @cached_property
    def _blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """The blocks in the order of the sequence, and where each ends in it."""
        count = -(-self._units // self._block)
        assert self.seed is not None
        blocks = _permutation(count, self.seed, self.epoch)
        sizes = np.minimum(self._block, self._units - blocks * self._block)
        return blocks, np.cumsum(sizes)

    def _rows(self, units: np.ndarray) -> np.ndarray:
        rows: np.ndarray = (units[:, None] * self.unit_rows + np.arange(self.unit_rows)).reshape(-1)
        return rows


def _permutation(count: int, *key: int) -> np.ndarray:
    """An order of the first numbers that a key of uint64 picks: int64, the same on every machine.

    Each number is hashed with the key by the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
    """
    state = 0
    for word in key:
        state = int(_mixed(np.array([(state ^ word) + _GOLDEN & _WORD], np.uint64))[0])
    hashes = _mixed(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(state))
    return np.argsort(hashes, kind="stable")


def _mixed(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = words ^ (words >> np.uint64(31))
    return mixed
