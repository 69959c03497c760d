"""Recovery at startup: rolls forward uploads that an earlier server left finished but not done."""

import asyncio

import structlog

from headrace_compute.errors import HeadraceError
from headrace_server.services import Services
from headrace_server.uploads import finish, index
from headrace_server.uploads import session as sessions
from headrace_server.uploads.records import journal_of

_log = structlog.get_logger(__name__)


async def recover(services: Services) -> None:
    """Rolls every unfinished finish forward; one that cannot be is logged and left for its client.

    Looks at the index and the newest record of what stands in it, not at uploads that are over.
    """
    await asyncio.to_thread(index.complete, services.config)
    entries = index.open_uploads(services.config).entries
    for tenant, upload_id in await asyncio.to_thread(lambda: list(entries())):
        try:
            await _recover(services, tenant, upload_id)
        except HeadraceError as error:
            _log.error("upload not rolled forward", upload_id=upload_id, tenant=tenant, reason=error.reason)


async def _recover(services: Services, tenant: str, upload_id: str) -> None:
    newest = await asyncio.to_thread(journal_of(services.config, tenant, upload_id).newest)
    if newest is None or newest.kind != "finish":
        return
    session = await asyncio.to_thread(sessions.load, services.config, tenant, upload_id)
    if session is not None:
        await finish.roll_forward(services, session)
        _log.info("upload rolled forward", upload_id=upload_id, tenant=tenant)
