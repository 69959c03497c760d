"""The registry of attempts at runs, so that the parts of one that died are found and deleted.

An entry is an object `{raw bucket}/_headrace/runs/{tenant}/{attempt}` that names the tables for which the
attempt writes parts. It is there before the first of them, and until they are committed or deleted.
A run without a request_id has one attempt, of the same id. All functions block: call them in a thread.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headrace_compute.delta import tables
from headrace_compute.model import Kind, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_server.journal.index import Index
from headrace_server.runs import statistics

ATTEMPT = "headrace.attempt"
"""Key of a commit's metadata that names the attempt whose parts it has; runs of one attempt have none."""


@dataclass(frozen=True)
class RunEntry:
    """An attempt at a run, as its entry tells of it.

    Attributes:
        attempt: Its id; that of the run, if the run ends with its call.
        outputs: Kind of what it writes by the key of the table.
        run_id: The run's; the same for all attempts.
        request_id: What the run was started with; empty if it ends with its call.
    """

    tenant: str
    attempt: str
    outputs: Mapping[str, Kind]
    run_id: str
    request_id: str = ""

    def part_prefix(self, table_key: str) -> str:
        """What the keys of all its parts of a table begin with, and no others."""
        return f"{table_key}/{self.attempt}-"


def entry_of(tenant: str, run_id: str, outputs: Mapping[str, Kind]) -> RunEntry:
    """The one attempt of a run that ends with its call."""
    return RunEntry(tenant, run_id, outputs, run_id)


def transaction(run_id: str, kind: Kind) -> str:
    """The Delta transaction of a run's commit to its table of a kind: the same for all attempts."""
    return f"{run_id}/{kind}"


def entry_key(config: StoreConfig, tenant: str, attempt: str) -> str:
    """The key of an attempt's entry."""
    return _index(config).key(tenant, attempt)


def add(config: StoreConfig, entry: RunEntry) -> None:
    """Enters an attempt, which must not have written anything."""
    open_store(config).create(entry_key(config, entry.tenant, entry.attempt), _encoded(entry))


def renew(config: StoreConfig, entry: RunEntry) -> None:
    """Writes an entry anew: it has the age of an attempt that is alive."""
    open_store(config).put(entry_key(config, entry.tenant, entry.attempt), _encoded(entry))


def remove(config: StoreConfig, tenant: str, attempt: str) -> None:
    """Takes an attempt out that leaves nothing behind."""
    _index(config).remove(tenant, attempt)


def read(config: StoreConfig, key: str) -> RunEntry:
    """The attempt of an entry.

    Raises:
        KeyMissingError: There is no such entry.
    """
    _, tenant, attempt = key.rsplit("/", 2)
    found = json.loads(open_store(config).get(key))
    run_id, request_id = found.get("run_id", attempt), found.get("request_id", "")
    return RunEntry(tenant, attempt, found["outputs"], run_id, request_id)


def entries(config: StoreConfig) -> Iterator[str]:
    """The keys of all entries, in order."""
    return (_index(config).key(tenant, attempt) for tenant, attempt in _index(config).entries())


def clear(config: StoreConfig, entry: RunEntry) -> int:
    """Deletes what an attempt that is over wrote and nobody committed, and its entry; returns how many parts.

    Nobody may write for it any more, nor commit what it wrote. Again is no error. The statistics of what was
    committed are recorded, if it died before they were.
    """
    deleted = clear_parts(config, entry)
    found = {key: _commit(config, entry, key) for key in entry.outputs}
    versions = {key: commit[0] for key, commit in found.items() if commit is not None}
    recording = statistics.recording(config, entry.tenant, entry.run_id, versions)
    if recording is not None:
        recording.make(config)
    remove(config, entry.tenant, entry.attempt)
    return deleted


def clear_parts(config: StoreConfig, entry: RunEntry) -> int:
    """As `clear`, but for the entry: somebody may still write."""
    store = open_store(config)
    deleted = 0
    for table_key in entry.outputs:
        # All parts of an attempt are in the run's one commit to the table, or none is.
        if _commit(config, entry, table_key) is not None:
            continue
        prefix = entry.part_prefix(table_key)
        for name in store.children(table_key):
            if (key := f"{table_key}/{name}").startswith(prefix):
                store.delete(key)
                deleted += 1
    return deleted


def _commit(config: StoreConfig, entry: RunEntry, table_key: str) -> tuple[int, dict[str, str]] | None:
    """The commit of an attempt's parts to a table: its version, and what it says of itself."""
    found = tables.find_commit(config, table_key, transaction(entry.run_id, entry.outputs[table_key]))
    return found if found and found[1].get(ATTEMPT, entry.attempt) == entry.attempt else None


def _encoded(entry: RunEntry) -> bytes:
    found = {"outputs": dict(entry.outputs), "run_id": entry.run_id, "request_id": entry.request_id}
    return json.dumps(found).encode()


def _index(config: StoreConfig) -> Index:
    return Index(config, "runs")
