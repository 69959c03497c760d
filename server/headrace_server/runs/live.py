"""The runs that are under way on this server, and how far they have come."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from headrace.v1 import run_pb2

QUEUED = "queued"
"""What progress names in place of a stage while a run waits for its turn."""


class LiveRun:
    """A run under way here.

    Attributes:
        name: Its request_id, or its run_id if it has none.
        progress: How far it has come; empty before its first stage.
        is_queued: Whether it waits for its turn.
        heard: Called with each progress, if anybody is to hear of each.
        is_unwanted: Set when somebody here has asked for its end.
    """

    def __init__(self, tenant: str, kind: str, run_id: str, request_id: str, started_us: int) -> None:
        self.tenant = tenant
        self.kind = kind
        self.run_id = run_id
        self.request_id = request_id
        self.started_us = started_us
        self.name = request_id or run_id
        self.progress = run_pb2.RunProgress()
        self.is_queued = False
        self.heard: Callable[[run_pb2.RunProgress], None] | None = None
        self.is_unwanted = asyncio.Event()
        self._changed = asyncio.Event()

    def report(self, stage: str, done: int, total: int) -> None:
        """Takes progress."""
        self.is_queued = False
        self._tell(run_pb2.RunProgress(stage=stage, shards_done=done, shards_total=total))

    def queue(self, place: int) -> None:
        """Takes its place among the runs of its tenant that wait."""
        self.is_queued = True
        self._tell(run_pb2.RunProgress(stage=QUEUED, queue_place=place))

    def begin(self) -> None:
        """Takes that its turn has come; what it reads is looked up first."""
        self.report("read", 0, 0)

    async def changed(self, seconds: float) -> None:
        """Waits for progress, or for the end, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def ended(self) -> None:
        """Wakes whoever waits for progress: there is no more."""
        self._wake()

    def _tell(self, progress: run_pb2.RunProgress) -> None:
        self.progress = progress
        if self.heard is not None:
            self.heard(progress)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class LiveRuns:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], LiveRun] = {}

    def find(self, tenant: str, name: str) -> LiveRun | None:
        """The run that has a name, if it is here."""
        return self._runs.get((tenant, name))

    def of_tenant(self, tenant: str) -> list[LiveRun]:
        """A tenant's runs that are here."""
        return [run for run in self._runs.values() if run.tenant == tenant]

    @contextmanager
    def joined(self, run: LiveRun) -> Iterator[LiveRun]:
        """Lists a run for as long as the context lasts."""
        key = run.tenant, run.name
        self._runs[key] = run
        try:
            yield run
        finally:
            # A run that failed may have begun again by now.
            if self._runs.get(key) is run:
                del self._runs[key]
            run.ended()
