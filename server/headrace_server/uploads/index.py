"""The index of uploads that have not ended, so that no server has to read every session.

An entry is an object `{raw bucket}/_headrace/open/{tenant}/{upload_id}`. It is there before
its session's first record and until everything the upload leaves behind is swept.
All functions block: call them in a thread.
"""

from collections.abc import Iterator

from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyExistsError, open_store


def entry_key(config: StoreConfig, tenant: str, upload_id: str) -> str:
    """The key of an upload's entry."""
    return f"{_root(config)}/{tenant}/{upload_id}"


def add(config: StoreConfig, tenant: str, upload_id: str) -> bool:
    """Enters an upload; whether it was not there before."""
    try:
        open_store(config).create(entry_key(config, tenant, upload_id), b"")
    except KeyExistsError:
        return False
    return True


def restore(config: StoreConfig, tenant: str, upload_id: str) -> None:
    """Enters an upload again: for want of a session its entry may be under removal at this moment."""
    open_store(config).put(entry_key(config, tenant, upload_id), b"")


def remove(config: StoreConfig, tenant: str, upload_id: str) -> None:
    """Takes an upload out."""
    open_store(config).delete(entry_key(config, tenant, upload_id))


def entries(config: StoreConfig) -> Iterator[tuple[str, str]]:
    """Tenant and upload_id of every upload that is not over, in order."""
    store = open_store(config)
    for tenant in store.children(_root(config)):
        for upload_id in store.children(f"{_root(config)}/{tenant}"):
            yield tenant, upload_id


def complete(config: StoreConfig) -> None:
    """Enters every session there is, once for a store: version 0.1 kept no index."""
    store = open_store(config)
    mark, sessions = f"{config.raw}/_headrace/indexed", f"{config.raw}/_headrace/uploads"
    if store.exists(mark):
        return
    for tenant in store.children(sessions):
        for upload_id in store.children(f"{sessions}/{tenant}"):
            add(config, tenant, upload_id)
    store.put(mark, b"")


def _root(config: StoreConfig) -> str:
    return f"{config.raw}/_headrace/open"
