"""The index of uploads that have not ended."""

from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_server.journal.index import Index


def open_uploads(config: StoreConfig) -> Index:
    """The uploads that are not over."""
    return Index(config, "open")


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
