"""The registry of runs under way, so that the parts of one that died are found and deleted.

An entry is an object `{raw bucket}/_headrace/runs/{tenant}/{run_id}` that names the tables for which the run
writes parts. It is there before the first of them, and until the run is committed or its parts are deleted.
All functions block: call them in a thread.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headrace_compute.delta import tables
from headrace_compute.model import Kind, StoreConfig
from headrace_compute.objects.store import open_store


@dataclass(frozen=True)
class RunEntry:
    """A run as its entry tells of it.

    Attributes:
        outputs: Kind of what it writes by the key of the table.
    """

    tenant: str
    run_id: str
    outputs: Mapping[str, Kind]

    def part_prefix(self, table_key: str) -> str:
        """What the keys of all its parts of a table begin with, and no others."""
        return f"{table_key}/{self.run_id}-"

    def transaction(self, table_key: str) -> str:
        """The Delta transaction of its commit to a table."""
        return f"{self.run_id}/{self.outputs[table_key]}"


def entry_key(config: StoreConfig, tenant: str, run_id: str) -> str:
    """The key of a run's entry."""
    return f"{_root(config)}/{tenant}/{run_id}"


def add(config: StoreConfig, run: RunEntry) -> None:
    """Enters a run, which must not have written anything."""
    open_store(config).create(entry_key(config, run.tenant, run.run_id), _encoded(run))


def renew(config: StoreConfig, run: RunEntry) -> None:
    """Writes a run's entry anew: it has the age of a run that is alive."""
    open_store(config).put(entry_key(config, run.tenant, run.run_id), _encoded(run))


def remove(config: StoreConfig, run: RunEntry) -> None:
    """Takes a run out that leaves nothing behind."""
    open_store(config).delete(entry_key(config, run.tenant, run.run_id))


def read(config: StoreConfig, key: str) -> RunEntry:
    """The run of an entry.

    Raises:
        KeyMissingError: There is no such entry.
    """
    _, tenant, run_id = key.rsplit("/", 2)
    return RunEntry(tenant, run_id, json.loads(open_store(config).get(key))["outputs"])


def entries(config: StoreConfig) -> Iterator[str]:
    """The keys of all entries, in order."""
    return open_store(config).list(_root(config))


def clear_entry(config: StoreConfig, key: str) -> int:
    """Clears the run of an entry, as `clear`."""
    return clear(config, read(config, key))


def clear(config: StoreConfig, run: RunEntry) -> int:
    """Deletes what a run that is over wrote and did not commit, and its entry; returns how many parts.

    Nobody may write or commit for the run any more. Again is no error.
    """
    store = open_store(config)
    deleted = 0
    for table_key in run.outputs:
        # All parts of a run are in its one commit to the table, or none is.
        if tables.has_transaction(config, table_key, run.transaction(table_key)):
            continue
        prefix = run.part_prefix(table_key)
        for name in store.children(table_key):
            if (key := f"{table_key}/{name}").startswith(prefix):
                store.delete(key)
                deleted += 1
    remove(config, run)
    return deleted


def _encoded(run: RunEntry) -> bytes:
    return json.dumps({"outputs": dict(run.outputs)}).encode()


def _root(config: StoreConfig) -> str:
    return f"{config.raw}/_headrace/runs"
