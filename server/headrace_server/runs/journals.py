"""The journal of a run with a request_id: what was asked, who is at work on it, and how it ended.

It is the journal `{raw bucket}/_headrace/run-journals/{tenant}/{request_id}/`, and the fold of its records is
the run's state; ARCHITECTURE.md draws the states. Whoever appended the newest `open` or `epoch` record owns
the run, until another one takes it up or asks it to stop: then the owner loses its next create. From the
`commit` record on, which names the parts, nobody owns it, and every server does the same. All functions
block: call them in a thread.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from headrace_compute.errors import HeadraceError, RunCancelledError, RunFinishedError, class_of
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyMissingError, open_store
from headrace_server.journal.index import Index
from headrace_server.journal.listing import Listing, id_of, name_of
from headrace_server.journal.log import Journal, JournalFormatError, NumberTakenError, Record
from headrace_server.runs import registry
from headrace_server.runs.registry import RunEntry

READABLE_VERSIONS = (1,)

DRAINING = "DRAINING"
"""Why a server leaves a run when it stops: the next one need not wait."""

Ending = Literal["done", "failed", "cancelled"]


class OvertakenError(Exception):
    """Another record came first: the run was taken up or cancelled by somebody else, or has ended."""


@dataclass(frozen=True)
class JournaledRun:
    """A run's state: the fold of its records.

    Attributes:
        kind: `features` or `negatives`.
        asked: The request that it was started with, but for whose it is, its id, and what it asks to be sent.
        request: The same with all that the first server made of it: pinned versions, as_of, defaults. If it
            had to wait, as_of may be unset: it follows from the version.
        with_items: Whether it reads a catalog.
        started_us: When it began, by the clock of that server.
        attempts: Ids of the attempts at it; the last one owns it, though it may wait for its turn.
        next_seq: Number of the next record.
        is_queued: Whether its owner waits for its turn.
        begun: Attempts whose turn came.
        deaths: Attempts whose server died, or could not go on, once their turn had come.
        left: Why its owner left it to others; empty while it has one.
        is_cancelling: Whether it is to stop.
        progress: Stage, shards done, and shards in all, as of the newest that tells.
        queue_place: Which of its tenant's waiting runs it is, likewise; 0 if it does not wait.
        commit: Body of the commit record: the attempt, its parts, and the result but for the versions.
        done: The result, as proto JSON.
        failure: The error it failed with.
        is_cancelled: Whether it was cancelled, and has stopped.
        ended_us: When it ended; 0 before.
    """

    tenant: str
    request_id: str
    run_id: str
    kind: str
    asked: Mapping[str, Any]
    request: Mapping[str, Any]
    with_items: bool
    started_us: int
    attempts: tuple[str, ...]
    next_seq: int = 1
    is_queued: bool = False
    begun: int = 1
    deaths: int = 0
    left: str = ""
    is_cancelling: bool = False
    progress: tuple[str, int, int] = ("", 0, 0)
    queue_place: int = 0
    commit: Mapping[str, Any] | None = None
    done: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    is_cancelled: bool = False
    ended_us: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.ended_us > 0

    @property
    def may_begin_again(self) -> bool:
        """Whether it failed with what may pass, so that whoever calls again has it begin again."""
        return self.failure is not None and self.commit is None and class_of(self.failure["reason"]).retryable


def open_runs(config: StoreConfig) -> Index:
    """The runs that are not over."""
    return Index(config, "open-runs")


def listed_runs(config: StoreConfig) -> Listing:
    """All runs."""
    return Listing(config, "run-list")


def journal_of(config: StoreConfig, tenant: str, request_id: str) -> Journal:
    """The records of a run."""
    prefix = f"{config.raw}/_headrace/run-journals/{tenant}/{request_id}/"
    return Journal(open_store(config), prefix, "run", READABLE_VERSIONS)


def load(config: StoreConfig, tenant: str, request_id: str) -> JournaledRun | None:
    """The run as the store has it; None if there is none, or it is being deleted."""
    found = journal_of(config, tenant, request_id).read_all()
    if not found or found[0][0] != 0:
        return None
    body = found[0][1]["body"]
    run = JournaledRun(
        tenant,
        request_id,
        run_id=body["run_id"],
        kind=body["kind"],
        asked=body["asked"],
        request=body["request"],
        with_items=body["with_items"],
        started_us=body["started_us"],
        attempts=(body["attempt"],),
        is_queued=body.get("queued", False),
        begun=0 if body.get("queued") else 1,
    )
    for seq, record in found[1:]:
        run = _apply(run, seq, record)
    return run


def create(config: StoreConfig, run: JournaledRun) -> None:
    """Writes the first record of a run.

    Raises:
        OvertakenError: The request_id has a run.
    """
    journal = journal_of(config, run.tenant, run.request_id)
    # Listed first: a run that is in no index would never be taken up, nor deleted.
    is_new = open_runs(config).add(run.tenant, run.request_id)
    name = name_of(run.started_us, run.request_id)
    listed_runs(config).add(run.tenant, name)
    body = {
        "run_id": run.run_id,
        "kind": run.kind,
        "asked": run.asked,
        "request": run.request,
        "with_items": run.with_items,
        "started_us": run.started_us,
        "attempt": run.attempts[0],
        "queued": run.is_queued,
    }
    _sweep_remnants(journal)
    try:
        journal.append(0, journal.record("open", body))
    except NumberTakenError:
        listed_runs(config).remove(run.tenant, name)
        raise OvertakenError from None
    if not is_new:
        open_runs(config).restore(run.tenant, run.request_id)


def append(config: StoreConfig, run: JournaledRun, kind: str, body: Mapping[str, Any]) -> JournaledRun:
    """Appends a record to a run as it is known.

    Raises:
        OvertakenError: Another one came first.
    """
    journal = journal_of(config, run.tenant, run.request_id)
    record = journal.record(kind, body)
    try:
        journal.append(run.next_seq, record)
    except NumberTakenError:
        raise OvertakenError from None
    return _apply(run, run.next_seq, record)


def take_up(config: StoreConfig, run: JournaledRun, attempt: str, *, queued: bool = False) -> JournaledRun:
    """Makes an attempt the owner of a run that nobody is at work on.

    Args:
        queued: Whether it must wait for its turn; an `epoch` record under the same id says that it came.

    Raises:
        OvertakenError: Somebody else was faster.
    """
    open_runs(config).add(run.tenant, run.request_id)
    return append(config, run, "epoch", {"attempt": attempt, "queued": queued})


def end(config: StoreConfig, run: JournaledRun, kind: Ending, body: Mapping[str, Any]) -> JournaledRun:
    """Ends a run.

    Raises:
        OvertakenError: Another record came first.
    """
    run = append(config, run, kind, {**body, "ended_us": time.time_ns() // 1000})
    open_runs(config).remove(run.tenant, run.request_id)
    return run


def ask_to_stop(config: StoreConfig, run: JournaledRun) -> JournaledRun:
    """Has whoever owns a run stop it; again is no error, nor if it has ended without commits.

    Raises:
        RunFinishedError: Its outcome is fixed.
    """
    while True:
        if run.failure is None and run.commit is not None:
            raise RunFinishedError.of(run.request_id)
        if run.is_over or run.is_cancelling:
            return run
        try:
            return append(config, run, "cancel", {})
        except OvertakenError:
            # Another record came first; each round sees at least one more.
            run = load(config, run.tenant, run.request_id) or run


def ending(run: JournaledRun) -> HeadraceError:
    """The error that every later call about a run that did not end well gets."""
    if run.failure is None:
        return RunCancelledError(
            f"Run {run.request_id} was cancelled; start a new one under another id.",
            {"request_id": run.request_id},
        )
    return class_of(run.failure["reason"])(run.failure["message"], run.failure["attributes"])


def needs_parts(config: StoreConfig, entry: RunEntry) -> bool:
    """Whether the parts of an attempt are about to be committed: its run's journal names them."""
    run = load(config, entry.tenant, entry.request_id) if entry.request_id else None
    if run is None or run.run_id != entry.run_id or run.commit is None:
        return False
    return not run.is_over and run.commit["attempt"] == entry.attempt


def clear_entry(config: StoreConfig, key: str) -> int:
    """Clears a dead attempt, as `registry.clear`, unless its parts are about to be committed."""
    entry = registry.read(config, key)
    return 0 if needs_parts(config, entry) else registry.clear(config, entry)


def forget(config: StoreConfig, tenant: str, name: str, older_than_seconds: float) -> bool:
    """Deletes a run by its name in the list, if it ended so long ago by the store's clock; whether it did."""
    request_id = id_of(name)
    journal = journal_of(config, tenant, request_id)
    run = load(config, tenant, request_id)
    if run is not None and name_of(run.started_us, request_id) == name:
        try:
            newest = journal.newest()
            age = journal.store.age_seconds(newest.key) if newest is not None else 0.0
        except KeyMissingError:
            return False
        if not run.is_over or age < older_than_seconds:
            return False
        # The first one before the last one: what is left of it then is no run, and no ended one either.
        *others, last = [key for _, key in journal.numbered()]
        for key in [*reversed(others), last]:
            journal.store.delete(key)
    elif run is None:
        _sweep_remnants(journal)
    listed_runs(config).remove(tenant, name)
    return True


def _owned(run: JournaledRun, attempt: str, queued: bool) -> JournaledRun:
    """A run that an attempt takes up, or begins to work on after its wait."""
    had = () if attempt == run.attempts[-1] else (attempt,)
    died = not run.is_queued and run.left != DRAINING
    return replace(
        run,
        attempts=(*run.attempts, *had),
        is_queued=queued,
        begun=run.begun + (not queued),
        deaths=0 if run.failure is not None else run.deaths + died,
        left="",
        progress=("", 0, 0),
        queue_place=0,
        failure=None,
        ended_us=0,
    )


def _sweep_remnants(journal: Journal) -> None:
    """Deletes records whose first one is gone: `forget` died amid them."""
    found = list(journal.numbered())
    if found and found[0][0] != 0:
        for _, key in found:
            journal.store.delete(key)


def _apply(run: JournaledRun, seq: int, record: Record) -> JournaledRun:
    kind, body = record["kind"], record["body"]
    run = replace(run, next_seq=seq + 1)
    match kind:
        case "alive":
            return replace(run, progress=tuple(body["progress"]), queue_place=body.get("queue_place", 0))
        case "epoch":
            return _owned(run, body["attempt"], body.get("queued", False))
        case "rest":
            return replace(run, left=body["reason"])
        case "cancel":
            return replace(run, is_cancelling=True)
        case "commit":
            return replace(run, commit=body, progress=("commit", 0, len(body["tables"])))
        case "done":
            return replace(run, done=body["result"], ended_us=body["ended_us"])
        case "failed":
            return replace(run, failure=body["failure"], ended_us=body["ended_us"])
        case "cancelled":
            return replace(run, is_cancelled=True, ended_us=body["ended_us"])
        case _:
            raise JournalFormatError(
                f"Run {run.request_id} has a record of unknown kind {kind!r}; use a newer server."
            )
