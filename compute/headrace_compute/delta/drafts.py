"""Drafts: parts that are written before the commit that names them, and found where that commit never came.

A draft is an object `{raw bucket}/_headrace/drafts/{id}`. It tells into which tables its writer puts parts
whose names begin with its id, and a version of each table before all commits that may name them. It is there
before the first of them, and until each is named by a commit or deleted. All functions block.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from headrace_compute.delta.log import actions_at, newest_entry
from headrace_compute.delta.receipts import Group
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import KeyExistsError, ObjectStore, open_store


@dataclass(frozen=True)
class Draft:
    """Parts that are being written.

    Attributes:
        id: What their names begin with, and no others.
        versions: A version of each table that is older than all commits of these parts, by the table's key.
    """

    id: str
    versions: Mapping[str, int]

    @property
    def prefix(self) -> str:
        """What the names of its parts begin with."""
        return f"{self.id}-"


def begin(config: StoreConfig, draft: Draft) -> None:
    """Enters a draft. One that is there stays: it is the same writer's, and tells of older versions."""
    try:
        open_store(config).create(
            entry_key(config, draft.id), json.dumps({"versions": dict(draft.versions)}).encode()
        )
    except KeyExistsError:
        return


def end(config: StoreConfig, draft_id: str) -> None:
    """Takes out a draft that leaves no part which no commit names."""
    open_store(config).delete(entry_key(config, draft_id))


def entry_key(config: StoreConfig, draft_id: str) -> str:
    """The key of a draft."""
    return f"{_root(config)}/{draft_id}"


def entries(config: StoreConfig) -> Iterator[str]:
    """The keys of all drafts."""
    for draft_id in open_store(config).children(_root(config)):
        yield entry_key(config, draft_id)


def clear(config: StoreConfig, key: str) -> int:
    """Deletes the parts of a draft that no commit names, and the draft; returns how many.

    Nobody may write or commit for it any more. Costs a list of each table's files, and if some bear its name
    a look at each version since it began.

    Raises:
        KeyMissingError: There is no such draft.
        StoreUnavailableError: The log of a table has a gap; nothing was deleted.
    """
    store = open_store(config)
    versions = json.loads(store.get(key))["versions"]
    draft = Draft(key.rpartition("/")[2], versions)
    written = {part for table_key in versions for part in _written(store, table_key, draft)}
    if written:
        written -= {part for table_key in versions for part in _named(store, table_key, draft)}
    for part in sorted(written):
        store.delete(part)
    end(config, draft.id)
    return len(written)


def _written(store: ObjectStore, table_key: str, draft: Draft) -> Iterator[str]:
    """Keys of a draft's parts of a table, in the folders of partitions too."""
    for name in store.children(table_key):
        if name.startswith(draft.prefix):
            yield f"{table_key}/{name}"
        elif "=" in name:
            yield from _written(store, f"{table_key}/{name}", draft)


def _named(store: ObjectStore, table_key: str, draft: Draft) -> Iterator[str]:
    """Keys of parts that versions since a draft began have added, or that they say are still to be added."""
    for version in range(draft.versions[table_key] + 1, newest_entry(store, table_key) + 1):
        for action in actions_at(store, table_key, version):
            if add := action.get("add"):
                yield f"{table_key}/{unquote(add['path'])}"
            elif info := action.get("commitInfo"):
                group = Group.from_info(info)
                if group is not None and group.rejects:
                    yield group.rejects["key"]


def _root(config: StoreConfig) -> str:
    return f"{config.raw}/_headrace/drafts"
