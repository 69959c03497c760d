"""Pauses between tries, and their end."""

from headrace_compute.backoff import Backoff


def longest(_least: float, most: float) -> float:
    return most


def test_a_pause_is_anything_up_to_a_bound_that_doubles_as_far_as_a_limit() -> None:
    bounds: list[tuple[float, float]] = []

    def note(least: float, most: float) -> float:
        bounds.append((least, most))
        return most / 4

    backoff = Backoff(0.5, 3.0, jitter=note)
    assert [backoff.failed() for _ in range(5)] == [0.125, 0.25, 0.5, 0.75, 0.75]
    assert bounds == [(0.0, 0.5), (0.0, 1.0), (0.0, 2.0), (0.0, 3.0), (0.0, 3.0)]


def test_progress_makes_pauses_short_again() -> None:
    backoff = Backoff(1.0, jitter=longest)
    assert [backoff.failed(), backoff.failed(), backoff.failures] == [1.0, 2.0, 2]
    backoff.progressed()
    assert [backoff.failures, backoff.failed()] == [0, 1.0]


def test_the_last_of_a_number_of_tries_is_followed_by_none() -> None:
    slept: list[float] = []
    backoff = Backoff(1.0, max_tries=3, jitter=longest, sleep=slept.append)
    assert [backoff.again(), backoff.again(), backoff.again()] == [True, True, False]
    assert slept == [1.0, 2.0]


def test_no_try_begins_after_the_end() -> None:
    now = [0.0]
    backoff = Backoff(1.0, seconds=5.0, clock=lambda: now[0], jitter=longest)
    assert backoff.failed() == 1.0
    now[0] = 3.0
    assert backoff.failed() == 2.0
    assert backoff.failed() is None


def test_a_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(1.0, 2.0, jitter=longest)
    assert [backoff.failed() for _ in range(1_100)][-1] == 2.0
