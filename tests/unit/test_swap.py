"""Compare-and-swap: how often a commit is tried, and what its end is called."""

from collections.abc import Iterable

import pytest
from deltalake.exceptions import CommitFailedError, DeltaError

from headrace_compute.delta import swap
from headrace_compute.delta.swap import ROUNDS, compare_and_swap
from headrace_compute.errors import (
    CommitContendedError,
    StoreDeniedError,
    StoreFullError,
    StoreUnavailableError,
    WrongTableKindError,
)
from headrace_compute.objects.store import KeyExistsError

KEY = "raw-data/acme/interactions"
LOST = KeyExistsError(f"{KEY}/_delta_log/{7:020d}.json")
DENIED = OSError("non-2xx status code: 403 Forbidden <Code>AccessDenied</Code>")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "PAUSE_SECONDS", (0.0, 0.0))


class Rounds:
    """A swap that fails as told, then succeeds with version 7."""

    def __init__(self, failures: Iterable[Exception]) -> None:
        self.failures = iter(failures)
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        for failure in self.failures:
            raise failure
        return 7


@pytest.mark.parametrize(
    "failure",
    [LOST, CommitFailedError("0"), DeltaError("x"), OSError("connection reset"), StoreUnavailableError("x")],
    ids=lambda failure: type(failure).__name__,
)
def test_after_any_failure_of_the_store_the_log_is_looked_at_again(failure: Exception) -> None:
    rounds = Rounds([failure] * 3)
    assert compare_and_swap(KEY, rounds) == 7
    assert rounds.count == 4


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (LOST, CommitContendedError),
        (CommitFailedError("0"), CommitContendedError),
        (OSError("No space left on device (os error 28)"), StoreFullError),
        (DeltaError("Permission denied (os error 13) /srv/secret"), StoreUnavailableError),
        (StoreUnavailableError("The store is gone."), StoreUnavailableError),
    ],
)
def test_a_commit_that_fails_in_every_round_ends_with_a_typed_error(
    failure: Exception, expected: type[Exception]
) -> None:
    rounds = Rounds([failure] * (ROUNDS + 1))
    with pytest.raises(expected) as caught:
        compare_and_swap(KEY, rounds)
    assert rounds.count == ROUNDS
    assert "/srv/secret" not in str(caught.value)


@pytest.mark.parametrize("failure", [WrongTableKindError("x"), StoreFullError("x"), StoreDeniedError("x")])
def test_what_no_other_round_can_mend_is_raised_at_once(failure: Exception) -> None:
    rounds = Rounds([failure])
    with pytest.raises(type(failure)):
        compare_and_swap(KEY, rounds)
    assert rounds.count == 1


def test_a_store_that_refuses_is_asked_once() -> None:
    rounds = Rounds([DENIED])
    with pytest.raises(StoreDeniedError, match="AccessDenied"):
        compare_and_swap(KEY, rounds)
    assert rounds.count == 1


def test_a_fault_that_lasts_is_given_up_in_time_and_a_lost_race_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swap, "FAULT_SECONDS", -1.0)
    rounds = Rounds([LOST, LOST, OSError("connection reset")])
    with pytest.raises(StoreUnavailableError):
        compare_and_swap(KEY, rounds)
    assert rounds.count == 3
