"""A part of `make chaos`: every kind of harm once, all of it on one store and mostly on one server."""

from collections.abc import Iterator

import pytest

from chaos import fuzz, scenarios, small
from chaos.arena import Arena
from chaos.proxy import Fault
from chaos.scenarios import Kill

pytestmark = pytest.mark.timeout(300)

FAULTS = [
    Fault("reset", 150_000, answers=False),
    Fault("stall", 100_000, answers=False),
    Fault("truncate", 100, answers=True),
]
"""In the middle of the upload; in the middle of it; before its result."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(tmp_path_factory.mktemp("chaos") / "arena") as made:
        yield made


@pytest.fixture
def arena(shared: Arena) -> Iterator[Arena]:
    """The arena; whatever was done in it, no row may be lost or doubled, and every order was carried out."""
    yield shared
    missed = shared.drop_orders()
    audit = shared.audit()
    assert audit.clean, audit
    assert audit.found == audit.acked > 0
    assert not missed, f"{missed} not reached"


def test_lost_replies_of_the_store_cost_no_row(arena: Arena) -> None:
    scenarios.lost_replies(arena)


def test_two_coordinators_cost_no_row(arena: Arena) -> None:
    scenarios.two_streams(arena)
    scenarios.two_finishes(arena)


def test_a_broken_line_costs_no_row(arena: Arena) -> None:
    broken = scenarios.bad_line(arena, lambda n: FAULTS[n] if n < len(FAULTS) else None, uploads=2)
    assert broken == len(FAULTS)


@pytest.mark.slow  # test_server_under_load cancels as many.
def test_cancelled_calls_leave_no_memory_behind(arena: Arena) -> None:
    scenarios.cancelled_calls(arena, 500)


@pytest.mark.parametrize(
    "order",
    [
        Kill("part.after", "kill workers"),
        # Parts are there, nothing is visible.
        pytest.param(Kill("block-record.before", "kill server", 2), marks=pytest.mark.slow),
        pytest.param(Kill("delta-write.after", "kill server"), marks=pytest.mark.slow),
        Kill("reply.before", "kill server"),  # Visible, and nobody was told.
    ],
    ids=str,
)
def test_a_kill_costs_no_row(arena: Arena, order: Kill) -> None:
    scenarios.kill(arena, order)


@pytest.mark.slow  # test_group_commit kills a server amid them too, wherever it then is.
@pytest.mark.parametrize(
    "order",
    [
        Kill("append.before", "kill server"),  # Parts are there, nothing names them.
        Kill("append.after", "kill server"),
        Kill("merge-commit.before", "kill workers"),
    ],
    ids=str,
)
def test_a_kill_amid_small_ingests_costs_no_row(arena: Arena, order: Kill) -> None:
    small.kill(arena, order)


def test_a_part_spoilt_after_the_finish_record_is_not_committed(arena: Arena) -> None:
    scenarios.spoil_part(arena, "finish-record.after", scenarios.cut_part)


def test_fuzzing_finds_nothing() -> None:
    assert fuzz.fuzz(seed=1, seconds=0, count=5_000) == 0
