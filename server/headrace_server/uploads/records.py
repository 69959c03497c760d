"""Records: where the journal of an upload, its session log, lies, and in which formats.

A server reads its own format version and the one before:

1  as version 0.1 wrote it
2  block and finish bodies have `crc32c`, null where it is not known; kinds abort and alive
"""

from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_server.journal.log import Journal

READABLE_VERSIONS = (1, 2)


def session_prefix(config: StoreConfig, tenant: str, upload_id: str) -> str:
    """Key prefix of a session's records."""
    return f"{config.raw}/_headrace/uploads/{tenant}/{upload_id}/"


def journal_of(config: StoreConfig, tenant: str, upload_id: str) -> Journal:
    """The records of a session. The newest is never swept: of others, block, staged and alive records are."""
    prefix = session_prefix(config, tenant, upload_id)
    return Journal(open_store(config), prefix, "upload", READABLE_VERSIONS)
