"""The sweeper: expires and deletes abandoned uploads.

Every server has one. It visits the uploads of the index, a bounded number a round, and
is never needed for correctness: giving an upload up is a record like any other, so it
cannot hit a stream that is alive without that stream hearing of it.
"""

import asyncio
import random
import time
from bisect import bisect_right
from itertools import islice

import structlog

from headrace_compute.errors import HeadraceError
from headrace_compute.objects.store import KeyMissingError, open_store
from headrace_server import metrics
from headrace_server.journal.log import Newest
from headrace_server.services import Services
from headrace_server.uploads import finish, sweep
from headrace_server.uploads import session as sessions
from headrace_server.uploads.index import list_earlier, open_uploads
from headrace_server.uploads.records import journal_of

VISITS = 100
"""Uploads visited in a round."""

ENTRIES = 100_000
"""Entries of the index looked at in a round."""

LEFT_SECONDS = 60.0
"""Age of a finish record above which its server is assumed to be gone."""

_log = structlog.get_logger(__name__)

Upload = tuple[str, str]


class Sweeper:
    """Visits the uploads of the index. Ages come from the store's clock and our own monotonic one."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._config = services.config
        self._index = open_uploads(services.config)
        self._ttl = services.settings.upload_ttl_seconds
        self._after: Upload = ("", "")
        self._seen: dict[Upload, tuple[int, float]] = {}

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        pause = min(300.0, self._ttl / 10)
        await self._list_earlier()
        while True:
            # Servers started together must not sweep together.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            try:
                await self.sweep()
            except HeadraceError as error:
                _log.error("uploads are not swept", reason=error.reason, message=error.message)

    async def sweep(self) -> None:
        """Visits a bounded number of uploads; the next call goes on behind them."""
        listed = await asyncio.to_thread(lambda: list(islice(self._index.entries(), ENTRIES)))
        self._seen = {upload: self._seen[upload] for upload in listed if upload in self._seen}
        first = bisect_right(listed, self._after)
        for upload in [*listed[first:], *listed[:first]][:VISITS]:
            self._after = upload
            try:
                await self._visit(upload)
            except (HeadraceError, KeyMissingError) as error:
                _log.warning("upload not swept", tenant=upload[0], upload_id=upload[1], exc_info=error)

    async def _list_earlier(self) -> None:
        try:
            await asyncio.to_thread(list_earlier, self._config)
        except HeadraceError as error:
            # The next server to start tries again.
            _log.error("earlier uploads are not listed", reason=error.reason, message=error.message)

    async def _visit(self, upload: Upload) -> None:
        if self._services.live.has(*upload):
            return
        newest = await asyncio.to_thread(journal_of(self._config, *upload).newest)
        key = self._index.key(*upload) if newest is None else newest.key
        age = await asyncio.to_thread(open_store(self._config).age_seconds, key)
        if newest is None:
            if age > self._ttl:
                await asyncio.to_thread(sweep.forget, self._config, *upload)
        elif newest.kind == "finish":
            if age > min(LEFT_SECONDS, self._ttl):
                await self._roll_forward(upload)
        elif newest.kind in ("done", "abort"):
            if age > self._ttl:
                await asyncio.to_thread(sweep.clear_late, self._config, *upload)
        elif self._rests(upload, newest) and age > self._ttl:
            await self._expire(upload)

    def _rests(self, upload: Upload, newest: Newest) -> bool:
        """Whether we have seen an upload unchanged for longer than any stream leaves it so.

        No clock but ours is asked, and that only for a span: a server whose clock is off by
        a day does not give an upload up that another server has a stream of.
        """
        now = time.monotonic()
        seq, since = self._seen.get(upload, (-1, now))
        if seq != newest.seq:
            self._seen[upload] = (newest.seq, now)
            return False
        return now - since > 2 * self._services.settings.alive_seconds

    async def _roll_forward(self, upload: Upload) -> None:
        session = await asyncio.to_thread(sessions.load, self._config, *upload)
        if session is not None:
            await finish.roll_forward(self._services, session)
            _log.info("upload rolled forward", tenant=upload[0], upload_id=upload[1])

    async def _expire(self, upload: Upload) -> None:
        session = await asyncio.to_thread(sessions.load, self._config, *upload)
        if session is None or session.finish is not None:
            return
        session = await asyncio.to_thread(sessions.abort, self._config, session, "expired")
        metrics.UPLOADS_ABORTED.labels("expired").inc()
        _log.info("upload expired", tenant=upload[0], upload_id=upload[1])
        await asyncio.to_thread(sweep.clear, self._config, session)
