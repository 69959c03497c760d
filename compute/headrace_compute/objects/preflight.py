"""Preflight checks of a store, made at every server start.

Sessions and commits are ordered by one primitive, `create`. A store that takes the
condition and ignores it would lose rows in silence, so it is raced once at every start.
"""

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from headrace_compute.errors import StoreDeniedError, StoreUnavailableError
from headrace_compute.objects.faults import fault_in, store_error
from headrace_compute.objects.interface import ObjectStore
from headrace_compute.objects.keys import KeyExistsError

RACERS = 64

RACES = 3
"""Races that may end without a winner, which happens if its answer was lost on the way."""


def check_create(store: ObjectStore, folder: str) -> None:
    """Lets many writers create one new object at once: exactly one may win, and its content must stay.

    Args:
        store: The store to check.
        folder: Where the object goes, under a name nobody else has; it is deleted afterwards.

    Raises:
        StoreDeniedError: several won, or the object is another's: creates are not conditional.
        StoreUnavailableError: race after race had no winner.
    """
    for _ in range(RACES):
        key = f"{folder}/{uuid.uuid4().hex}"
        try:
            winners = _race(store, key)
            kept = store.get(key)
        finally:
            store.delete(key)
        if len(winners) > 1 or (winners and kept != _mark(winners[0])):
            raise StoreDeniedError(
                f"The store let {len(winners)} of {RACERS} writers create one and the same object: "
                f"it ignores If-None-Match and would lose rows. Use a store with conditional puts.",
                {"bucket": folder.partition("/")[0], "code": "UnconditionalPut"},
            )
        if winners:
            return
    raise StoreUnavailableError(f"The store lost its answers to every create below {folder}.")


def check_access(store: ObjectStore, folder: str) -> None:
    """Writes, reads, lists and deletes an object, and looks for a table, each the way it is done later.

    Raises:
        StoreDeniedError: a right is missing, or one of the ways does not lead to the store.
    """
    key = f"{folder}/{uuid.uuid4().hex}"
    store.create(key, _mark(0))
    try:
        with closing(store.open(key)) as file:
            file.read()
        next(store.list(folder), None)
        _look_for_table(store, key)
    finally:
        store.delete(key)


def _race(store: ObjectStore, key: str) -> list[int]:
    """The numbers of the writers whose create succeeded, as they saw it."""
    start = Barrier(RACERS)

    def create(number: int) -> bool:
        start.wait()
        try:
            store.create(key, _mark(number))
        except KeyExistsError:
            return False
        return True

    with ThreadPoolExecutor(RACERS) as threads:
        won = list(threads.map(create, range(RACERS)))
    return [number for number, one in enumerate(won) if one]


def _mark(number: int) -> bytes:
    return b"%d" % number


def _look_for_table(store: ObjectStore, key: str) -> None:
    """Asks through deltalake's own client, which finds proxies, authorities and keys in its own way."""
    try:
        DeltaTable(store.uri(key), storage_options=store.storage_options())
    except TableNotFoundError:
        pass
    except (DeltaError, OSError) as error:
        fault = fault_in(str(error))
        if fault and fault.kind == "denied":
            raise store_error(fault, "read", key) from None
        raise StoreUnavailableError(
            f"The library deltalake cannot reach the store: {fault.code if fault else type(error).__name__}. "
            f"It alone goes by HTTP_PROXY and HTTPS_PROXY; name the store's host in NO_PROXY."
        ) from None
