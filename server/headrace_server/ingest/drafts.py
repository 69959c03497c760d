"""The drafts of one table's small ingests: groups share one, so that it costs them nothing.

A draft is entered before the parts of its first group, and taken out when all its groups have ended and every
part of them is named by a commit. One that may have left others stays for the sweeper.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from headrace_compute.delta import drafts, tables
from headrace_compute.delta.drafts import Draft
from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig

GROUPS = 1_024
"""Groups that share a draft. Whoever clears it reads their commits."""

SECONDS = 3600.0
"""How long groups begin in a draft: far less than the age at which it counts as a dead server's."""


@dataclass
class OpenDraft:
    """A draft, and who writes in it.

    Attributes:
        is_doubtful: Whether it may have parts that no commit names.
    """

    draft: Draft
    began: float = field(default_factory=time.monotonic)
    groups: int = 0
    under_way: int = 0
    is_doubtful: bool = False

    @property
    def is_used_up(self) -> bool:
        """Whether the next group is to have another one."""
        return self.groups >= GROUPS or time.monotonic() - self.began > SECONDS


class Drafts:
    """Drafts in which the groups of one table are written.

    Args:
        table_keys: Tables that get parts of them.
    """

    def __init__(self, config: StoreConfig, table_keys: Sequence[str]) -> None:
        self._config = config
        self._versions = dict.fromkeys(table_keys, 0)
        self._open: OpenDraft | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def group(self) -> AsyncIterator[OpenDraft]:
        """The draft of the next group, while that is under way; doubtful if it fails.

        Raises:
            HeadraceError: The store cannot be written.
        """
        draft = await self._next()
        try:
            yield draft
        except BaseException:
            draft.is_doubtful = True
            raise
        finally:
            draft.under_way -= 1
            if draft is not self._open:
                await self._end(draft)

    async def close(self) -> None:
        """Takes out what no group needs any more."""
        draft, self._open = self._open, None
        if draft is not None:
            await self._end(draft)

    async def _next(self) -> OpenDraft:
        async with self._lock:
            if self._open is None or self._open.is_used_up:
                await self.close()
                self._open = OpenDraft(await asyncio.to_thread(self._begin))
            self._open.groups += 1
            self._open.under_way += 1
            return self._open

    def _begin(self) -> Draft:
        for key, version in self._versions.items():
            self._versions[key] = tables.newest_version(self._config, key, version)
        draft = Draft(secrets.token_hex(8), dict(self._versions))
        drafts.begin(self._config, draft)
        return draft

    async def _end(self, draft: OpenDraft) -> None:
        if not draft.under_way and not draft.is_doubtful:
            with suppress(HeadraceError):  # Then the sweeper does it.
                await asyncio.to_thread(drafts.end, self._config, draft.draft.id)
