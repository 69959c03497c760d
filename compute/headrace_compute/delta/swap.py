"""Compare-and-swap: how every commit reaches a Delta log, exactly once.

A round looks for our commit in the newest version of the log. If it is there, an earlier round has landed
without our knowing; if not, the round writes it on top of just that version, without hidden retries. Whatever
goes wrong then, the next round looks again, so a commit whose reply was lost is found and not repeated.
"""

import time
from collections.abc import Callable

from deltalake.exceptions import CommitFailedError, DeltaError

from headrace_compute.backoff import Backoff
from headrace_compute.delta.layout import table_name
from headrace_compute.errors import (
    CommitContendedError,
    HeadraceError,
    StoreFullError,
    StoreUnavailableError,
)
from headrace_compute.objects.faults import fault_in, store_error
from headrace_compute.objects.store import KeyExistsError

ROUNDS = 24
"""Rounds before a commit gives up."""

PAUSE_SECONDS = (0.01, 0.2)
"""Longest pauses between rounds: the first, and any."""

FAULT_SECONDS = 15.0
"""No round begins later than this if the last one failed though nobody else had won it.

Against a store that hangs, a round takes as long as the store's clients wait: see `objects.clients`.
"""


def compare_and_swap(table_key: str, swap: Callable[[], int]) -> int:
    """Commits to a table, exactly once; returns the version.

    Args:
        swap: One round: returns the version that carries our commit, found or written, when it is durable.
            It raises KeyExistsError or CommitFailedError if another writer has won the version.

    Raises:
        CommitContendedError: Other writers won every round.
        StoreFullError, StoreDeniedError, StoreUnavailableError: The log cannot be written; it may have
            been, all the same.
        Any other error of `swap`, at once.
    """
    backoff = Backoff(*PAUSE_SECONDS, max_tries=ROUNDS)
    end = time.monotonic() + FAULT_SECONDS
    while True:
        try:
            return swap()
        except (KeyExistsError, StoreUnavailableError, DeltaError, OSError) as error:
            failure = error
        if _is_hopeless(failure, end) or not backoff.again():
            raise _given_up(table_key, failure)


def _is_hopeless(failure: Exception, end: float) -> bool:
    """Whether another round is in vain: no other writer won the last, and time is up or the store refuses."""
    fault = fault_in(str(failure))
    if fault is None and isinstance(failure, CommitFailedError | KeyExistsError):
        return False
    return time.monotonic() > end or (fault is not None and fault.kind in ("full", "denied"))


def _given_up(table_key: str, failure: Exception) -> HeadraceError:
    """The typed error of a commit whose every round failed.

    Texts of an S3 store's answers may hold what must not be shown, so its errors have no cause.
    """
    name = table_name(table_key)
    if isinstance(failure, HeadraceError):
        return failure
    if fault := fault_in(str(failure)):
        return store_error(fault, "write", table_key)
    if isinstance(failure, CommitFailedError | KeyExistsError):
        error: HeadraceError = CommitContendedError(
            f"Other writers of table {name!r} won {ROUNDS} times in a row. Retry.", {"table": name}
        )
    elif "No space left" in str(failure) or "quota" in str(failure):
        error = StoreFullError(f"The store has no room for a commit to table {name!r}. Free some space.")
    else:
        error = StoreUnavailableError(f"The store cannot take a commit to table {name!r}.")
    error.__cause__ = failure
    return error
