"""The tenure of an attempt: it holds the journal of its run until the outcome is fixed, or others have it."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog

from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_server.runs import journals
from headrace_server.runs.journals import JournaledRun, OvertakenError
from headrace_server.runs.live import LiveRun

LOOK_SECONDS = 1.0
"""How often it looks whether somebody has asked for the run's end, or taken it up.

While the run waits for its turn it hears of that when it appends its next record, unless it was asked here.
"""

ALIVE_SECONDS = 3.0
"""How often it appends a record, if only to say that it is alive; see `keeper.STILL_SECONDS`."""

_log = structlog.get_logger(__name__)


class Tenure:
    """What an attempt that owns a run does with its journal.

    Args:
        run: The run, owned by the attempt.
        live: How far it has come.
    """

    def __init__(self, config: StoreConfig, run: JournaledRun, live: LiveRun) -> None:
        self.run = run
        self._config = config
        self._journal = journals.journal_of(config, run.tenant, run.request_id)
        self._live = live
        self._appending = asyncio.Lock()
        self._last_beat: int | None = None

    async def append(self, kind: str, body: Mapping[str, Any]) -> JournaledRun:
        """Appends a record.

        Raises:
            OvertakenError: The attempt no longer owns the run.
        """
        async with self._appending:
            self.run = await asyncio.to_thread(journals.append, self._config, self.run, kind, body)
            return self.run

    async def hold(self) -> None:
        """Says that the attempt is alive until the run's outcome is fixed.

        Raises:
            OvertakenError: The attempt no longer owns the run, or is to stop it.
        """
        beat_at = time.monotonic() + ALIVE_SECONDS
        asked = self._live.is_unwanted
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await asked.wait()
            looks = asked.is_set() or not self.run.is_queued
            asked.clear()
            async with self._appending:
                if self.run.commit is not None:
                    return
                try:
                    if time.monotonic() >= beat_at:
                        beat_at = time.monotonic() + ALIVE_SECONDS
                        await asyncio.to_thread(self._beat)
                    elif looks and await asyncio.to_thread(self._is_overtaken):
                        raise OvertakenError
                except HeadraceError as error:
                    _log.warning("the run's journal cannot be reached", reason=error.reason)

    def _is_overtaken(self) -> bool:
        return self._journal.find(self.run.next_seq) is not None

    def _beat(self) -> None:
        progress = self._live.progress
        told = progress.stage, progress.shards_done, progress.shards_total
        attempt = self.run.attempts[-1]
        body = {"attempt": attempt, "progress": told, "queue_place": progress.queue_place}
        seq = self.run.next_seq
        self.run = journals.append(self._config, self.run, "alive", body)
        # The one before says nothing any more. Numbers of other records stay taken, so that nobody who
        # owned the run before can take one for free.
        if self._last_beat is not None:
            self._journal.store.delete(self._journal.key(self._last_beat))
        self._last_beat = seq
