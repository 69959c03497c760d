"""A part of `make chaos`: the crash points that matter most, and everything that does not take long."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import fuzz, scenarios
from chaos.arena import Arena
from chaos.proxy import random_plan
from chaos.scenarios import Kill

pytestmark = pytest.mark.timeout(300)

servers = pytest.mark.skipif(
    os.environ.get("HEADRACE_CHAOS") != "1", reason="starts many servers; HEADRACE_CHAOS=1 asks for it"
)


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path / "arena") as made:
        yield made


def check(arena: Arena) -> None:
    audit = arena.audit()
    assert audit.clean, audit
    assert audit.found == audit.acked > 0


@servers
def test_kills_at_crash_points_and_lost_replies_cost_no_row(arena: Arena) -> None:
    for order in (
        Kill("block-record.before", "kill server", 2),  # Parts are there, nothing is visible.
        Kill("finish-record.after", "kill server"),
        Kill("data-commit.after", "kill server"),  # Visible, and nobody was told.
        Kill("part.after", "kill workers"),
        Kill("block.after", "kill workers"),
    ):
        scenarios.kill(arena, order)
    check(arena)


@servers
def test_lost_replies_two_coordinators_and_a_slow_client_cost_no_row(arena: Arena) -> None:
    scenarios.lost_replies(arena)
    scenarios.two_streams(arena)
    scenarios.two_finishes(arena)
    scenarios.slow_client(arena, seconds=5)
    check(arena)


@servers
def test_a_broken_line_costs_no_row(arena: Arena) -> None:
    plan = random_plan(3, share=0.7, most_bytes=400_000, ways=("reset", "truncate"))
    assert scenarios.bad_line(arena, plan, uploads=3) > 0
    check(arena)


@servers
def test_a_part_spoilt_after_the_finish_record_is_not_committed(arena: Arena) -> None:
    scenarios.spoil_part(arena, "finish-record.after", scenarios.cut_part)
    check(arena)


@servers
def test_cancelled_calls_leave_no_memory_behind(arena: Arena) -> None:
    scenarios.cancelled_calls(arena, 1_000)
    check(arena)


@servers
def test_a_big_upload_with_the_server_killed_equals_the_uninterrupted_one(arena: Arena) -> None:
    arena.settings["HEADRACE_BLOCK_BYTES"] = str(1 << 20)
    scenarios.big_upload(arena, rows=300_000, kills=2)
    check(arena)


def test_fuzzing_finds_nothing() -> None:
    assert fuzz.fuzz(seed=1, seconds=0, count=2_000) == 0
