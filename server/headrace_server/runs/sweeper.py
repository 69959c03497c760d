"""The sweeper of runs: deletes what runs wrote whose server died before their commit.

Every server sweeps when it starts and then in the background. A run that is alive renews its entry,
so one whose entry is old by the store's clock is dead, whichever server it was on.
"""

import asyncio
import math
import random

import structlog

from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyMissingError, open_store
from headrace_server.runs import registry

LEFT_SECONDS = 86_400.0
"""Age of an entry above which its run is dead: far more than it takes to renew one."""

PAUSE_SECONDS = 3600.0

_log = structlog.get_logger(__name__)


async def clear_dead(config: StoreConfig) -> None:
    """Deletes what dead runs left. Before this server has runs of its own: in a local folder all are dead."""
    await sweep(config, LEFT_SECONDS if config.s3 else -math.inf)


async def sweep_on(config: StoreConfig) -> None:
    """Sweeps until it is cancelled."""
    while True:
        # Servers started together must not sweep together.
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))
        await sweep(config, LEFT_SECONDS)


async def sweep(config: StoreConfig, older_than_seconds: float) -> None:
    """Deletes what runs left whose entries are that old; what fails is logged, and left for the next time."""
    try:
        for tenant, run_id in await asyncio.to_thread(lambda: list(registry.entries(config))):
            await _visit(config, tenant, run_id, older_than_seconds)
    except HeadraceError as error:
        _log.error("runs are not swept", reason=error.reason, message=error.message)


async def _visit(config: StoreConfig, tenant: str, run_id: str, older_than_seconds: float) -> None:
    try:
        key = registry.entry_key(config, tenant, run_id)
        if await asyncio.to_thread(open_store(config).age_seconds, key) < older_than_seconds:
            return
        run = await asyncio.to_thread(registry.read, config, tenant, run_id)
        parts = await asyncio.to_thread(registry.clear, config, run)
        _log.info("dead run cleared", tenant=tenant, run_id=run_id, parts=parts)
    except (HeadraceError, KeyMissingError) as error:
        _log.warning("run not swept", tenant=tenant, run_id=run_id, exc_info=error)
