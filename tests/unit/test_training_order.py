"""The order of epochs: every row once, picked by the seed, whoever makes the batches."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.training import order as module
from headrace.training.order import HELD_ROWS, LANES, Order


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows make several windows of several blocks; large ones have a test of their own."""
    monkeypatch.setattr(module, "WINDOW_ROWS", 60)
    monkeypatch.setattr(module, "BLOCK_ROWS", 20)


def batches_of(order: Order) -> Iterator[list[int]]:
    """The rows of each batch, one after another."""
    windows: dict[tuple[int, int], np.ndarray] = {}
    for number in range(order.batches):
        slot = order.slot(number)
        if (slot.lane, slot.window) not in windows:
            window = order.window(slot.lane, slot.window)
            assert [row for first, count in window.runs() for row in range(first, first + count)] == list(
                window.rows
            )
            windows[slot.lane, slot.window] = window.rows[window.order]
        yield windows[slot.lane, slot.window][slot.first : slot.first + slot.rows].tolist()


shapes = st.fixed_dictionaries(
    {
        "units": st.integers(0, 400),
        "unit_rows": st.integers(1, 5),
        "batch_units": st.integers(1, 40),
        "ranks": st.integers(1, 4),
        "seed": st.none() | st.integers(0, 2**64 - 1),
        "epoch": st.integers(0, 3),
        "held": st.booleans(),
    }
)


def orders_of(shape: dict[str, int], *, even: bool = False) -> list[Order]:
    """The order of each rank."""
    return [
        Order(
            rows=shape["units"] * shape["unit_rows"],
            batch_rows=shape["batch_units"] * shape["unit_rows"],
            unit_rows=shape["unit_rows"],
            seed=shape["seed"],
            epoch=shape["epoch"],
            rank=rank,
            ranks=shape["ranks"],
            even=even,
        )
        for rank in range(shape["ranks"])
    ]


@given(shape=shapes)
def test_every_row_is_of_one_batch_of_one_rank_and_groups_stay_whole(shape: dict[str, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD_ROWS", HELD_ROWS if shape["held"] else 0)
        of_ranks = [list(batches_of(order)) for order in orders_of(shape)]
    size, batch_rows = shape["unit_rows"], shape["batch_units"] * shape["unit_rows"]
    rows = [row for batches in of_ranks for batch in batches for row in batch]
    assert sorted(rows) == list(range(shape["units"] * size))
    for batches in of_ranks:
        # All but the last are full.
        assert [len(batch) for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
        assert all(0 < len(batch) <= batch_rows for batch in batches)
        for batch in batches:
            units = np.array(batch).reshape(-1, size)
            assert (units == units[:, :1] + np.arange(size)).all()
            assert (units[:, 0] % size == 0).all()
    counts = [sum(map(len, batches)) // size for batches in of_ranks]
    assert max(counts) - min(counts) <= 1
    if shape["seed"] is None:
        assert rows == sorted(rows)


@given(shape=shapes)
def test_even_ranks_have_as_many_batches_and_leave_out_less_than_a_group_each(shape: dict[str, int]) -> None:
    of_ranks = [list(batches_of(order)) for order in orders_of(shape, even=True)]
    counts = {sum(map(len, batches)) for batches in of_ranks}
    assert counts == {shape["units"] // shape["ranks"] * shape["unit_rows"]}
    assert len({len(batches) for batches in of_ranks}) == 1
    rows = [row for batches in of_ranks for batch in batches for row in batch]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("rows", [1_000, 2 * HELD_ROWS])
def test_the_seed_and_the_epoch_pick_the_order(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    shapes = [(1, 0), (1, 0), (2, 0), (1, 1)]
    orders = [
        [row for batch in batches_of(Order(rows, 100, seed=seed, epoch=epoch)) for row in batch]
        for seed, epoch in shapes
    ]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("rows", [1_000, HELD_ROWS // 2, 2 * HELD_ROWS])
def test_a_batch_is_mixed_of_rows_from_all_over_the_table(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    first = next(batches_of(Order(rows, 200, seed=5)))
    # Of eight parts of the table a fair mixture misses none; blocks of a large one are some of its places.
    assert len({row * 8 // rows for row in first}) >= (8 if rows <= HELD_ROWS else 4)
    neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(first))
    assert neighbours <= 3


@pytest.mark.parametrize("workers", [1, 2, 4, LANES])
def test_workers_share_no_window(workers: int) -> None:
    order = Order(5_000, 10, seed=3)
    windows = [
        {order.slot(batch)[:2] for batch in range(worker, order.batches, workers)}
        for worker in range(workers)
    ]
    assert sum(map(len, windows)) == len(set.union(*windows))


def mixed(word: int) -> int:
    """SplitMix64's finaliser."""
    word &= 2**64 - 1
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def permutation(count: int, *key: int) -> list[int]:
    golden, state = 0x9E3779B97F4A7C15, 0
    for word in key:
        state = mixed((state ^ word) + golden)
    return sorted(range(count), key=lambda number: mixed(state + (number + 1) * golden))


@pytest.mark.parametrize(("seed", "epoch", "rank"), [(0, 0, 0), (2**64 - 1, 3, 1)])
def test_the_order_is_as_defined_so_a_state_goes_on_with_any_version(
    seed: int, epoch: int, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    rows, size = 1_001, 8
    sequence = permutation(rows, seed, epoch)[rows * rank // 2 : rows * (rank + 1) // 2]
    batches = -(-len(sequence) // size)
    sizes = [size] * (batches - 1) + [len(sequence) - size * (batches - 1)]
    expected: dict[int, list[int]] = {}
    for lane in range(8):
        mine = range(lane, batches, 8)
        units = sum(sizes[batch] for batch in mine)
        window, sequence = sorted(sequence[:units]), sequence[units:]
        shuffled = [window[place] for place in permutation(units, seed, epoch, 1 + rank, lane, 0)]
        for batch in mine:
            expected[batch], shuffled = shuffled[: sizes[batch]], shuffled[sizes[batch] :]
    order = Order(rows, size, seed=seed, epoch=epoch, rank=rank, ranks=2)
    assert list(batches_of(order)) == [expected[batch] for batch in range(batches)]
