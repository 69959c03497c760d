"""A run under way: entered before it writes, and cleared of what it wrote if it ends without its commits."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

from headrace_compute.errors import HeadraceError, UnavailableError
from headrace_compute.inputs.workers import Admit
from headrace_compute.model import Part, Snapshot
from headrace_compute.sink import PartSink
from headrace_compute.workers.pool import RunExecutor
from headrace_server.rpc import call_log
from headrace_server.runs import registry
from headrace_server.runs.job import MadeTable
from headrace_server.runs.outputs import commit_output
from headrace_server.services import Services

RENEW_SECONDS = 3600.0
"""How often the entry of a run is written anew; see `sweeper.LEFT_SECONDS`."""

_log = structlog.get_logger(__name__)


class Run:
    """A run that is entered.

    Args:
        entry: Its entry in the registry.
        executor: Runs its stages.
        admit: Asks for room for what it will write.

    Attributes:
        entering: Done when it is entered, which goes on though the caller is cancelled.
    """

    def __init__(
        self, services: Services, entry: registry.RunEntry, executor: RunExecutor, admit: Admit
    ) -> None:
        self._services = services
        self._entry = entry
        self.executor = executor
        self.admit = admit
        self.entering = asyncio.ensure_future(asyncio.to_thread(registry.add, services.config, entry))
        self._commits: list[asyncio.Future[Snapshot]] = []
        self._is_handed_over = False

    def part_prefix(self, table_key: str) -> str:
        """What the keys of its parts of a table must begin with."""
        return self._entry.part_prefix(table_key)

    def sink(self, table_key: str) -> PartSink:
        """Where the rows of a table go."""
        return PartSink(self.part_prefix(table_key))

    async def commit(self, table: MadeTable[Part], lineage: Mapping[str, str]) -> Snapshot:
        """Makes parts the newest version of a table; goes on to its end though the caller is cancelled."""
        metadata = {**lineage, "headrace.run_id": self._entry.run_id}
        transaction = registry.transaction(self._entry.run_id, table.kind)
        commit = commit_output(self._services, self._entry.tenant, table, transaction, metadata)
        self._commits.append(asyncio.ensure_future(commit))
        return await asyncio.shield(self._commits[-1])

    def hand_over(self) -> None:
        """Leaves its parts to a journal, which is about to name them: they are not deleted in any case."""
        self._is_handed_over = True

    def take_back(self) -> None:
        """Undoes that: the journal has not named them, or nobody will commit them."""
        self._is_handed_over = False

    async def renew(self) -> None:
        """Keeps the entry young until it is cancelled."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await asyncio.to_thread(registry.renew, self._services.config, self._entry)
            except HeadraceError as error:
                _log.warning("run not renewed", run_id=self._entry.run_id, reason=error.reason)

    async def close(self, committed: bool) -> None:
        """Removes the entry of a committed run, and of any other all that it wrote."""
        config = self._services.config
        await asyncio.wait({self.entering})
        if committed:
            await asyncio.to_thread(registry.remove, config, self._entry.tenant, self._entry.attempt)
            return
        if self._is_handed_over:
            return
        await self.executor.ended()
        outcomes = await asyncio.gather(*self._commits, return_exceptions=True)
        if any(isinstance(outcome, UnavailableError) for outcome in outcomes):
            return  # The store may still take that commit: the sweeper looks when it is old.
        deleted = await asyncio.to_thread(registry.clear, config, self._entry)
        _log.info("run cleared", tenant=self._entry.tenant, run_id=self._entry.run_id, parts=deleted)


@asynccontextmanager
async def begun(services: Services, executor: RunExecutor, entry: registry.RunEntry) -> AsyncIterator[Run]:
    """Enters an attempt for as long as the context lasts, at whose end all its tables must be committed.

    Args:
        executor: Runs its stages.
    """
    call_log.note(run_id=entry.run_id)
    committed = False
    with services.room.entered() as admit:
        run = Run(services, entry, executor, admit)
        renewing = asyncio.ensure_future(run.renew())
        try:
            await asyncio.shield(run.entering)
            yield run
            committed = True
        finally:
            renewing.cancel()
            # It ends though the caller is cancelled again, or does not wait.
            await asyncio.shield(services.spawn(run.close(committed)))
