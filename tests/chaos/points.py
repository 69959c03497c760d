"""Points at which a fault can be made to happen: named places in the product, which knows nothing of them.

A point that no longer resolves is an error, in the server at its import and in a test.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["server", "worker"]
When = Literal["before", "after"]


@dataclass(frozen=True)
class Point:
    """A place in the product: before a call of a function, or after it has run and before its caller knows.

    Attributes:
        module, function: Where the function is defined; `Class.method` for methods.
        role: The kind of process whose calls count.
        only: Argument and value: other calls do not count.
    """

    module: str
    function: str
    when: When
    role: Role
    only: tuple[str, str] | None = None

    def resolve(self) -> Any:
        """The function itself; ImportError or AttributeError if the product has moved on."""
        return find(importlib.import_module(self.module), self.function)


def find(module: Any, function: str) -> Any:
    """The function of a module that has this qualified name."""
    found = module
    for name in function.split("."):
        found = getattr(found, name)
    return found


_SESSION = "headrace_server.uploads.session"
_COMMITS = "headrace_compute.delta.commits"
_DATA, _REJECTS = ("kind", "interactions"), ("kind", "rejects")

UPLOAD_POINTS: dict[str, Point] = {
    # A worker on a block. Its parts are written in this order: data, sidecar, rejects.
    "part.before": Point("headrace_compute.parts", "write_part", "before", "worker"),
    "part.after": Point("headrace_compute.parts", "write_part", "after", "worker"),
    "block.after": Point("headrace_compute.ingest.block", "ingest_block", "after", "worker"),
    "duplicates.after": Point("headrace_compute.ingest.duplicates", "drop_duplicates", "after", "worker"),
    # The coordinator and the session log.
    "open.after": Point(_SESSION, "open_session", "after", "server"),
    "block-record.before": Point(_SESSION, "append", "before", "server", ("kind", "block")),
    "block-record.after": Point(_SESSION, "append", "after", "server", ("kind", "block")),
    "finish-record.before": Point(_SESSION, "append", "before", "server", ("kind", "finish")),
    "finish-record.after": Point(_SESSION, "append", "after", "server", ("kind", "finish")),
    "done-record.before": Point(_SESSION, "append", "before", "server", ("kind", "done")),
    "done-record.after": Point(_SESSION, "append", "after", "server", ("kind", "done")),
    # The commits. A table's first one writes version 0 and then version 1.
    "rejects-commit.before": Point(_COMMITS, "commit", "before", "server", _REJECTS),
    "rejects-commit.after": Point(_COMMITS, "commit", "after", "server", _REJECTS),
    "data-commit.before": Point(_COMMITS, "commit", "before", "server", _DATA),
    "data-commit.after": Point(_COMMITS, "commit", "after", "server", _DATA),
    "version-0.after": Point(_COMMITS, "create_table", "after", "server"),
    "delta-write.before": Point("deltalake.table", "DeltaTable.create_write_transaction", "before", "server"),
    "delta-write.after": Point("deltalake.table", "DeltaTable.create_write_transaction", "after", "server"),
    # The store, as the coordinator uses it: session records.
    "create.before": Point("headrace_compute.objects.local", "LocalStore.create", "before", "server"),
    "create.after": Point("headrace_compute.objects.local", "LocalStore.create", "after", "server"),
    # The answer.
    "reply.before": Point("headrace_server.uploads.result", "result_message", "before", "server"),
    "reply.after": Point("headrace_server.uploads.stream", "UploadStream._end", "after", "server"),
}

_APPENDER = "headrace_compute.delta.appender"
_COMPACTION = "headrace_compute.delta.compaction"

INGEST_POINTS: dict[str, Point] = {
    # A group of small ingests: its parts, and the commits to data and rejects.
    "group.after": Point("headrace_compute.ingest.group", "ingest_group", "after", "worker"),
    "append.before": Point(_APPENDER, "LogAppender.append", "before", "server"),
    "append.after": Point(_APPENDER, "LogAppender.append", "after", "server"),
    # Upkeep of what many of them leave.
    "merge.after": Point("headrace_compute.delta.maintenance", "merge_files", "after", "worker"),
    "merge-commit.before": Point(_COMPACTION, "commit_merges", "before", "worker"),
    "merge-commit.after": Point(_COMPACTION, "commit_merges", "after", "worker"),
}

_RUNS = "headrace_server.runs.journals"

RUN_POINTS: dict[str, Point] = {
    # A run with a request_id, and its journal.
    "run-open.before": Point(_RUNS, "create", "before", "server"),
    "run-open.after": Point(_RUNS, "create", "after", "server"),
    "run-stage.after": Point("headrace_compute.workers.pool", "RunExecutor.run", "after", "server"),
    # The same, and stages whose results stay with the workers.
    "any-stage.after": Point("headrace_compute.workers.pool", "Pool.attempt", "after", "server"),
    "run-commit-record.before": Point(_RUNS, "append", "before", "server", ("kind", "commit")),
    "run-commit-record.after": Point(_RUNS, "append", "after", "server", ("kind", "commit")),
    "users-commit.after": Point(_COMMITS, "commit", "after", "server", ("kind", "user_features")),
    "items-commit.before": Point(_COMMITS, "commit", "before", "server", ("kind", "item_features")),
    "items-commit.after": Point(_COMMITS, "commit", "after", "server", ("kind", "item_features")),
    "statistics-commit.before": Point(_COMMITS, "commit", "before", "server", ("kind", "feature_statistics")),
    "statistics-commit.after": Point(_COMMITS, "commit", "after", "server", ("kind", "feature_statistics")),
    "ids-commit.after": Point(_COMMITS, "commit", "after", "server", ("kind", "dataset_users")),
    "training-commit.before": Point(_COMMITS, "commit", "before", "server", ("kind", "training_data")),
    "training-commit.after": Point(_COMMITS, "commit", "after", "server", ("kind", "training_data")),
    "run-done-record.before": Point(_RUNS, "append", "before", "server", ("kind", "done")),
    "run-done-record.after": Point(_RUNS, "append", "after", "server", ("kind", "done")),
}

POINTS = UPLOAD_POINTS | INGEST_POINTS | RUN_POINTS
