"""Sweeping: deletes what an ended upload leaves behind.

Once a session has ended, no record can refer to anything new, so whatever its records
do not refer to is garbage. Only a stream that lost the upload
may still write a part late, so an upload that had more than one owner stays in the
index until it is old, and is swept once more.
"""

from headrace_compute.ingest.block_result import part_from_json
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_server.rows.options import UploadOptions
from headrace_server.uploads import index
from headrace_server.uploads import session as sessions
from headrace_server.uploads.records import journal_of, session_prefix
from headrace_server.uploads.session import Session
from headrace_server.uploads.spec import spec_of


def clear(config: StoreConfig, session: Session, *, late: bool = False) -> None:
    """Deletes what a done or aborted upload no longer needs; again is no error. Blocks.

    Kept are what its finish record names, and of the session the records with which a
    repeated call is answered and an old stream is kept out: all but block and alive.

    Args:
        late: Whether nobody can be at work on the upload any more.
    """
    if session.done is None and not session.aborted:
        raise ValueError(f"upload {session.upload_id} is not over")
    store = open_store(config)
    for key in _leftovers(config, session):
        store.delete(key)
    prefix = session_prefix(config, session.tenant, session.upload_id)
    lasting = {f"{seq:08d}" for seq in session.lasting}
    for key in list(store.list(prefix)):
        if key[len(prefix) :] not in lasting:
            store.delete(key)
    if late or len(session.lasting) == len(_records_of_one_owner(session)):
        index.open_uploads(config).remove(session.tenant, session.upload_id)


def clear_late(config: StoreConfig, tenant: str, upload_id: str) -> None:
    """As `clear`, for an upload that was over long ago."""
    session = sessions.load(config, tenant, upload_id)
    if session is not None:
        clear(config, session, late=True)


def forget(config: StoreConfig, tenant: str, upload_id: str) -> None:
    """Removes an upload that never opened a session from the index."""
    entries = index.open_uploads(config)
    entries.remove(tenant, upload_id)
    if journal_of(config, tenant, upload_id).newest() is not None:
        entries.add(tenant, upload_id)  # It came to one at this very moment.


def _leftovers(config: StoreConfig, session: Session) -> set[str]:
    """Keys of stored parts that no table and no answer needs."""
    options = UploadOptions.from_json(session.header)
    spec = spec_of(config, options, session.upload_id, session.started_us)
    store = open_store(config)
    # Its own parts bear its name. Others may be the table's: merges lay there of which it had the first file.
    found = {
        key
        for prefix in (spec.part_prefix, spec.rejects_prefix)
        for key in store.list(prefix)
        if key.startswith(f"{prefix}{session.upload_id}-")
    }
    found |= {part.key for block in session.blocks for part in block.result.parts}
    if session.finish is not None:
        found -= {part_from_json(part).key for part in session.finish["parts"]}
        found -= {part_from_json(part).key for group in session.finish["rejects"] for part in group}
    return found


def _records_of_one_owner(session: Session) -> tuple[str, ...]:
    """The lasting records of an upload that only ever one stream wrote, and itself ended."""
    if session.done is not None:
        return "open", "finish", "done"
    return ("open", "abort") if session.failure is not None else ()
