"""The index of uploads that have not ended, and the listing of all."""

from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_server.journal.index import Index
from headrace_server.journal.listing import Listing, name_of
from headrace_server.uploads.records import journal_of


def open_uploads(config: StoreConfig) -> Index:
    """The uploads that are not over."""
    return Index(config, "open")


def listed_uploads(config: StoreConfig) -> Listing:
    """All uploads, but for those that version 0.2 began and `list_earlier` has not come to."""
    return Listing(config, "upload-list")


def list_earlier(config: StoreConfig) -> None:
    """Enters every upload into the listing, once for a store: version 0.2 kept none."""
    store, uploads = open_store(config), listed_uploads(config)
    mark, sessions = f"{config.raw}/_headrace/uploads-listed", f"{config.raw}/_headrace/uploads"
    if store.exists(mark):
        return
    for tenant in store.children(sessions):
        for upload_id in store.children(f"{sessions}/{tenant}"):
            opened = journal_of(config, tenant, upload_id).find(0)
            if opened is not None:
                uploads.add(tenant, name_of(opened["body"]["started_us"], upload_id))
    store.put(mark, b"")


def complete(config: StoreConfig) -> None:
    """Enters every session there is, once for a store: version 0.1 kept no index."""
    store, index = open_store(config), open_uploads(config)
    mark, sessions = f"{config.raw}/_headrace/indexed", f"{config.raw}/_headrace/uploads"
    if store.exists(mark):
        return
    for tenant in store.children(sessions):
        for upload_id in store.children(f"{sessions}/{tenant}"):
            index.add(tenant, upload_id)
    store.put(mark, b"")
