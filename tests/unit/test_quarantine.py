"""Who waits because of what their input did to workers, and for how long."""

import pytest

from headrace_compute.errors import SuspendedError
from headrace_compute.workers.quarantine import (
    ALARM_TENANTS,
    DEATHS,
    FIRST_SECONDS,
    LONGEST_SECONDS,
    REMEMBERED,
    WINDOW_SECONDS,
    Quarantine,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quarantine(clock: Clock) -> Quarantine:
    return Quarantine(clock)


def suspended(quarantine: Quarantine, tenant: str) -> bool:
    try:
        quarantine.check(tenant)
    except SuspendedError:
        return True
    return False


def test_an_address_stands_for_who_names_no_tenant(quarantine: Quarantine) -> None:
    quarantine.suspend("ipv4:192.0.2.7")
    with pytest.raises(SuspendedError, match=r"Input from ipv4:192\.0\.2\.7 has ended workers") as caught:
        quarantine.check("ipv4:192.0.2.7")
    assert caught.value.attributes == {"address": "ipv4:192.0.2.7", "retry_seconds": "16"}


def test_a_suspended_tenant_is_told_how_long_it_waits_and_others_are_not_concerned(
    quarantine: Quarantine, clock: Clock
) -> None:
    quarantine.suspend("acme")
    clock.now += 0.5
    with pytest.raises(SuspendedError, match=r"tenant acme has ended workers .* 15 seconds") as caught:
        quarantine.check("acme")
    assert caught.value.attributes == {"tenant": "acme", "retry_seconds": "15"}
    assert not suspended(quarantine, "other")
    clock.now += FIRST_SECONDS
    assert not suspended(quarantine, "acme")


def test_each_suspension_is_twice_as_long_and_one_death_brings_the_next(
    quarantine: Quarantine, clock: Clock
) -> None:
    quarantine.suspend("acme")
    seconds = FIRST_SECONDS
    for _ in range(12):
        # Other streams of it that die meanwhile make it no longer.
        quarantine.died("acme")
        quarantine.suspend("acme")
        clock.now += seconds - 0.01
        assert suspended(quarantine, "acme")
        clock.now += 0.02
        assert not suspended(quarantine, "acme")
        quarantine.died("acme")
        seconds = min(LONGEST_SECONDS, 2 * seconds)
        assert suspended(quarantine, "acme")
    assert seconds == LONGEST_SECONDS
    clock.now += 2 * LONGEST_SECONDS
    quarantine.died("acme")
    assert not suspended(quarantine, "acme")
    quarantine.suspend("acme")
    clock.now += FIRST_SECONDS
    assert not suspended(quarantine, "acme")


def test_many_streams_that_each_end_a_worker_or_two_count_together(
    quarantine: Quarantine, clock: Clock
) -> None:
    for _ in range(DEATHS - 1):
        quarantine.died("acme")
        quarantine.died("other")
    assert not suspended(quarantine, "acme")
    quarantine.died("acme")
    assert suspended(quarantine, "acme")
    assert not suspended(quarantine, "other")
    clock.now += WINDOW_SECONDS + 1
    quarantine.died("other")
    assert not suspended(quarantine, "other")


def test_while_many_tenants_end_workers_nobody_has_a_second_try(quarantine: Quarantine, clock: Clock) -> None:
    for number in range(ALARM_TENANTS):
        quarantine.died("early")
        quarantine.suspend(f"t{number}")
    assert not suspended(quarantine, "early")
    quarantine.died("late")
    assert suspended(quarantine, "late")
    clock.now += WINDOW_SECONDS + 1
    quarantine.died("later")
    assert not suspended(quarantine, "later")


def test_what_belongs_to_nobody_is_never_suspended(quarantine: Quarantine) -> None:
    for _ in range(2 * DEATHS):
        quarantine.died("")
    quarantine.suspend("")
    assert not suspended(quarantine, "")


def test_no_more_are_remembered_than_there_is_room_for(quarantine: Quarantine) -> None:
    for number in range(REMEMBERED + 1):
        quarantine.suspend(f"t{number}")
    assert not suspended(quarantine, "t0")
    assert suspended(quarantine, "t1")
    assert suspended(quarantine, f"t{REMEMBERED}")
