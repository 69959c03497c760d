"""Recovery at start: what a former server left finished but not done is rolled forward."""

import asyncio

import structlog

from headrace_compute.errors import HeadraceError
from headrace_server.services import Services
from headrace_server.uploads import finish
from headrace_server.uploads import session as sessions
from headrace_server.validation import sweep_scratch

_log = structlog.get_logger(__name__)


async def recover(services: Services) -> None:
    """Rolls every unfinished finish forward; one that cannot be is logged and left for its client."""
    await sweep_scratch(services.config)
    for session in await asyncio.to_thread(sessions.left_finishing, services.config):
        try:
            await finish.roll_forward(services, session)
        except HeadraceError as error:
            _log.error("upload not rolled forward", upload_id=session.upload_id, reason=error.reason)
        else:
            _log.info("upload rolled forward", upload_id=session.upload_id, tenant=session.tenant)
