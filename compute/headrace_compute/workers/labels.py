"""Names of actors and tasks, for people who look at Ray's dashboard."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from headrace_compute.model import Batch, Block, DataFile, Piece, Shard, Snapshot, UploadSpec

NOBODY = "-"
"""Stands for the tenant of what is done for none."""


class ActorNames:
    """Names of actors of one kind: `{owner}/{kind}/{number}`, the second of a number with `.2`, and so on.

    Ray knows no two actors by one name, and one that has ended for a while yet.
    """

    def __init__(self, owner: str, kind: str) -> None:
        self._prefix = f"{owner}/{kind}"
        self._starts: Counter[int] = Counter()

    def next(self, number: int) -> str:
        """The name of the actor that is started next under a number."""
        self._starts[number] += 1
        starts = self._starts[number]
        return f"{self._prefix}/{number}" + (f".{starts}" if starts > 1 else "")


def task_name(stage: Callable[..., Any], tenant: str, args: Sequence[Any]) -> str:
    """`user_shard acme interactions buckets 0-511`: stage, tenant, and of the arguments what says on what."""
    return " ".join([stage.__name__, tenant or NOBODY, *dict.fromkeys(filter(None, map(_subject, args)))])


def _subject(arg: Any) -> str:
    match arg:
        case UploadSpec():
            return arg.data_type
        case Block():
            return f"block {arg.index}"
        case Batch():
            return f"{_subject(arg.files)} batch {arg.number}"
        case Shard():
            return f"buckets {arg.first}-{arg.last - 1}"
        case Snapshot():
            return _table(arg.table_key)
        case DataFile():
            return _table(arg.key.rpartition("/")[0])
        case Piece():
            return _subject(arg.file)
        case [DataFile() as first, *_]:
            return _subject(first)
    return ""


def _table(key: str) -> str:
    """`datasets/mine` of `training-data/acme/datasets/mine`."""
    return "/".join(key.split("/")[2:])
