"""Giving up an upload that can never succeed: closed for good, its cause kept, its bytes deleted."""

import asyncio
from collections.abc import Iterable

from headrace_compute.errors import HeadraceError
from headrace_compute.model import StoreConfig
from headrace_compute.storage.store import open_store
from headrace_server.services import Services
from headrace_server.uploads import session as sessions
from headrace_server.uploads.session import Session, session_prefix, staged_prefix


async def give_up(services: Services, session: Session, error: HeadraceError) -> Session:
    """Closes an open upload because of an error that every retry would meet again.

    The abort record comes first: whoever asks for the upload afterwards, also one
    whose first answer was lost, is told the same error.

    Raises:
        FencedError: A newer stream took over.
    """
    failure = {"error": type(error).__name__, "message": error.message, "attributes": error.attributes}
    session = await asyncio.to_thread(
        sessions.append, services.config, session, "abort", {"failure": failure}
    )
    await asyncio.to_thread(delete_content, services.config, session)
    return session


def delete_content(config: StoreConfig, session: Session) -> None:
    """Deletes what an upload without commits has stored besides its records. May be repeated."""
    store = open_store(config)
    delete_staged(config, session)
    for key in _part_keys(session):
        store.delete(key)
    store.delete_all(f"{session_prefix(config, session.tenant, session.upload_id)}sidecars/")


def delete_staged(config: StoreConfig, session: Session) -> None:
    """Deletes a stream's staged bytes, which nothing needs once its blocks are persisted."""
    if session.staged:
        open_store(config).delete_all(staged_prefix(config, session.tenant, session.upload_id))


def _part_keys(session: Session) -> Iterable[str]:
    for block in session.blocks:
        parts = (block.result.data, *block.result.rejects)
        yield from (part.key for part in parts if part is not None)
