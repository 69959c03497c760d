"""The rows of a version as they are stored, section by section.

A version's order is that of its rows, not of its files: whoever compacts a table may put these in any order,
one behind the other. So the rows of a section are pieced together from fragments, what there is of them in a
row in some file, in the order of their first rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Literal, NamedTuple

import pyarrow as pa

from headrace_compute import cancellation
from headrace_compute.columns import BUCKET
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.errors import PartLostError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import ObjectStore, open_store
from headrace_compute.parts import read_pieces
from headrace_compute.proof.digest import SPLIT, Digest, Run, Section, runs_of

PIECE_ROWS = 1 << 17
"""Rows of a file that are in memory at a time."""

Direction = Literal["ascending", "descending"]
Order = Mapping[str, tuple[pa.DataType, Direction]]

ORDERS: Mapping[str, Order] = {
    "user_features": {"user_id": (pa.string(), "ascending")},
    "item_features": {"item_id": (pa.string(), "ascending")},
    "dataset_users": {"user_index": (pa.int64(), "ascending")},
    "dataset_items": {"item_index": (pa.int64(), "ascending")},
    "training_data": {
        "user_id": (pa.string(), "ascending"),
        "timestamp": (TIMESTAMP, "ascending"),
        # Of two fragments of a group, the one that begins with its positive is the first.
        "label": (pa.float64(), "descending"),
        "item_id": (pa.string(), "ascending"),
    },
}
"""The columns that the rows of a section are in the order of, by kind of table."""


class StoredSection(NamedTuple):
    """What a version has of a section.

    Attributes:
        files: Keys of the files that have some of it.
    """

    digest: Digest
    files: tuple[str, ...]


def read_fragments(config: StoreConfig, key: str, kind: str) -> pa.Table:
    """Digests the rows of a file.

    Returns:
        For each of its fragments, in their order: its section, the columns of the order as its first row has
        them, file, rows, and the value of their digest.

    Raises:
        PartLostError: The file is gone, or holds something else than rows of such a table.
    """
    firsts, digests = [_firsts_schema(kind).empty_table()], list[Digest]()
    for section, runs in _fragments(open_store(config), key):
        digest = Digest()
        for run in runs:
            if not digest.rows:
                firsts.append(_first(key, section, run.rows, kind))
            digest = digest.then(run.digest)
        digests.append(digest)
    columns = {
        "file": pa.array([key] * len(digests), pa.string()),
        "rows": pa.array([digest.rows for digest in digests], pa.int64()),
        "value": pa.array([digest.value for digest in digests], pa.int64()),
    }
    table = pa.concat_tables(firsts)
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def gather_sections(config: StoreConfig, kind: str, *fragments: pa.Table) -> dict[Section, StoredSection]:
    """What a version has of each section, from the fragments of its files; at least one file."""
    found: dict[Section, StoredSection] = {}
    table = _in_order(pa.concat_tables(fragments), kind).select([BUCKET, SPLIT, "file", "rows", "value"])
    for bucket, split, file, rows, value in zip(
        *(column.to_pylist() for column in table.columns), strict=True
    ):
        section = Section(bucket, split)
        digest, files = found.get(section, StoredSection(Digest(), ()))
        others = () if file in files else (file,)
        found[section] = StoredSection(digest.then(Digest(rows, value)), (*files, *others))
    return found


def read_section(store: ObjectStore, kind: str, section: Section, files: Sequence[str]) -> pa.Table:
    """All rows of a section, in their order.

    Args:
        files: Keys of those that have some of it, at least one.

    Raises:
        PartLostError: As `read_fragments`; or they have none.
    """
    firsts, pieces = [], []
    for key in files:
        for found, runs in _fragments(store, key):
            if found == section:
                pieces.append(pa.concat_tables(run.rows for run in runs))
                firsts.append(_first(key, section, pieces[-1], kind))
    if not pieces:
        raise PartLostError(f"Rows of bucket {section.bucket} are gone from the store.", {"part": files[0]})
    numbered = pa.concat_tables(firsts).append_column("number", pa.array(range(len(firsts))))
    order = _in_order(numbered, kind)["number"].to_pylist()
    return pa.concat_tables([pieces[number] for number in order], promote_options="permissive")


def _fragments(store: ObjectStore, key: str) -> Iterator[tuple[Section, Iterator[Run]]]:
    """The fragments of a file: the section of each, and its rows."""
    return groupby(_runs(store, key), lambda run: run.section)


def _runs(store: ObjectStore, key: str) -> Iterator[Run]:
    for piece in read_pieces(store, key, PIECE_ROWS):
        cancellation.check()
        with _readable(key):
            runs = list(runs_of(piece))
        yield from runs


def _first(key: str, section: Section, rows: pa.Table, kind: str) -> pa.Table:
    """What a fragment is sorted by; columns that it lacks are null."""
    schema, row = _firsts_schema(kind), rows.slice(0, 1)
    found = {name: row[name] for name in ORDERS[kind] if name in row.column_names}
    found |= {BUCKET: pa.chunked_array([[section.bucket]]), SPLIT: pa.chunked_array([[section.split]])}
    columns = [found.get(field.name, pa.nulls(1)) for field in schema]
    with _readable(key):
        cast = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.table(cast, schema=schema)


def _firsts_schema(kind: str) -> pa.Schema:
    order = {name: column for name, (column, _) in ORDERS[kind].items()}
    return pa.schema({BUCKET: pa.int64(), SPLIT: pa.string(), **order})


def _in_order(fragments: pa.Table, kind: str) -> pa.Table:
    order = [(name, direction) for name, (_, direction) in ORDERS[kind].items()]
    return fragments.sort_by([(BUCKET, "ascending"), (SPLIT, "ascending"), *order])


@contextmanager
def _readable(key: str) -> Iterator[None]:
    """Blames the file for rows that are not those of a table of ours."""
    try:
        yield
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise PartLostError(
            f"The part {key} is damaged: its columns are not those of a table of Headrace.", {"part": key}
        ) from error
