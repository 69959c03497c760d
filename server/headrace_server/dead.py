"""What the dead left: parts of runs, small ingests and compactions whose server died before their commit.

Each of these is entered in an index before its first part is written, and taken out when it leaves none that
no commit names. Every server looks at the entries when it starts and then in the background. A run that is
alive renews its entry, and of others none is used for much more than an hour; so an entry that is old by the
store's clock is a dead one's, whichever server it was on.
"""

import asyncio
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import structlog

from headrace_compute.delta import drafts
from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyMissingError, open_store
from headrace_server.runs import journals, registry

LEFT_SECONDS = 86_400.0
"""Age of an entry above which it is a dead one's: far more than it takes to renew one or be done with it."""

HALF_SECONDS = 3600.0
"""Nobody takes so long to write one object."""

PAUSE_SECONDS = 3600.0

_log = structlog.get_logger(__name__)


class _Index(NamedTuple):
    """Where entries are, and what to do with one of the dead.

    Attributes:
        entries: Their keys.
        clear: Deletes what is left, and the entry; returns how many parts.
    """

    entries: Callable[[StoreConfig], Iterator[str]]
    clear: Callable[[StoreConfig, str], int]


_INDEXES: Mapping[str, _Index] = {
    "runs": _Index(registry.entries, journals.clear_entry),
    "drafts": _Index(drafts.entries, drafts.clear),
}


async def clear_dead(config: StoreConfig) -> None:
    """Clears what is left, before this server has entries of its own: in a local folder nobody has others."""
    await sweep(config, LEFT_SECONDS if config.s3 else -math.inf)


async def sweep_on(config: StoreConfig) -> None:
    """Sweeps until it is cancelled."""
    while True:
        # Servers started together must not sweep together.
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))
        await sweep(config, LEFT_SECONDS)
        try:
            await asyncio.to_thread(open_store(config).clear_halves, HALF_SECONDS)
        except HeadraceError as error:
            _log.error("what is half written stays", reason=error.reason, message=error.message)


async def sweep(config: StoreConfig, older_than_seconds: float) -> None:
    """Clears what is that old; what fails is logged, and left for the next time."""
    for name, index in _INDEXES.items():
        try:
            for key in await asyncio.to_thread(list, index.entries(config)):
                await _visit(config, index, key, older_than_seconds)
        except HeadraceError as error:
            _log.error("what the dead left is not swept", of=name, reason=error.reason, message=error.message)


async def _visit(config: StoreConfig, index: _Index, key: str, older_than_seconds: float) -> None:
    try:
        if await asyncio.to_thread(open_store(config).age_seconds, key) < older_than_seconds:
            return
        parts = await asyncio.to_thread(index.clear, config, key)
        _log.info("what a dead one left is cleared", entry=key, parts=parts)
    except (HeadraceError, KeyMissingError) as error:
        _log.warning("what a dead one left is not cleared", entry=key, exc_info=error)
