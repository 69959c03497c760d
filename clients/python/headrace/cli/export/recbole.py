"""A training set as RecBole's atomic files: https://recbole.io/docs/user_guide/data/atomic_files.html."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from headrace.arrow import pa, pc
from headrace.cli.export.dataset import WHOLE, Dataset
from headrace.errors import TableNotFoundError

SEPARATOR = "\x1f"
"""Between the values of a sequence: ids may have spaces, but no control characters."""

HISTORY = "history"

RENAMED = {HISTORY: "item_id_list", "history_timestamps": "timestamp_list"}
"""Columns by the names under which RecBole's sequential models look for them."""

CATALOG = {"title": "token_seq", "category": "token", "brand": "token", "price": "float"}

_FIRST = ("user_id", "item_id", "timestamp")
_LEFT_OUT = {
    "label",
    "group_id",
    "negative_source",
    "sampling_prob",
    "split",
    "bucket",
    "user_index",
    "item_index",
    "history_index",
}
_READ_AS_MISSING = {
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
    *("NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}
"""Texts that pandas, with which RecBole reads its files, takes for no value."""

_CONFIG = """# run_recbole(model="BPR", dataset="{name}", config_file_list=["{path}/{name}/{name}.yaml"])
data_path: {path}
USER_ID_FIELD: user_id
ITEM_ID_FIELD: item_id
TIME_FIELD: timestamp
seq_separator: "\\x1f"
load_col:
  inter: [{inter}]
  user: [{user}]
  item: [{item}]
"""


def write_recbole(dataset: Dataset, folder: Path, final: Path) -> dict[str, Any]:
    """Writes `{name}/{name}.inter`, or one of each split, `.user`, `.item`, `.yaml`; returns what there is.

    The interactions are the positives: RecBole draws its negatives by itself. With a column of histories,
    those that have none are left out, since RecBole's sequential models fail on them. Items are all that the
    training set names, also as negatives, with what the tenant's newest catalog says of them. Integers of ids
    stand beside them and are not loaded: RecBole has its own, and models would take ours for a feature.

    Args:
        dataset: What to write.
        folder: Where to.
        final: What the folder will be called, for the configuration.

    Raises:
        ValueError: RecBole cannot read the dataset.
    """
    if WHOLE not in dataset.splits and len(dataset.splits) != 3:
        raise ValueError(
            f"The training set has the splits {', '.join(dataset.splits)}; RecBole takes train, valid and "
            "test, or none. Make it with two cuts."
        )
    if empty := [split for split, rows in dataset.splits.items() if not rows]:
        raise ValueError(
            f"Split {empty[0]} of the training set has no rows, and RecBole needs some of each. Make it with "
            "cuts that have positives between and behind them."
        )
    stem = folder / dataset.name / dataset.name
    stem.parent.mkdir()
    users, items, interactions = Named("user"), Named("item"), dict[str, int]()
    inter: list[str] = []
    for split in dataset.splits:
        rows = Positives(dataset.batches(split), users, items)
        interactions[split or "all"] = _write(Path(f"{stem}{split and '.'}{split}.inter"), rows.header, rows)
        inter = rows.header
    user = ["user_id:token", "positives:float"]
    _write_ids(stem.with_suffix(".user"), users, user, {name: [n] for name, n in users.rows.items()})
    item, described = _catalog(dataset, items)
    _write_ids(stem.with_suffix(".item"), items, item, described)
    config = _CONFIG.format(
        name=dataset.name, path=final.absolute(), inter=_names(inter), user=_names(user), item=_names(item)
    )
    if WHOLE not in dataset.splits:
        config += f"benchmark_filename: [{', '.join(dataset.splits)}]\n"
    if f"{RENAMED[HISTORY]}:token_seq" in inter:
        config += f"alias_of_item_id: [{RENAMED[HISTORY]}]\n"
    stem.with_suffix(".yaml").write_text(config, encoding="utf-8")
    return {"users": len(users.rows), "items": len(items.rows), "interactions": interactions}


@dataclass
class Named:
    """The users, or items, that are named.

    Attributes:
        rows: How often each is.
        indices: The integer of each; empty if they have none.
    """

    entity: str
    rows: Counter[str] = field(default_factory=Counter)
    indices: dict[str, int] = field(default_factory=dict)

    def take(self, batch: pa.RecordBatch) -> None:
        """Counts those of some rows."""
        ids = batch.column(f"{self.entity}_id").to_pylist()
        self.rows.update(ids)
        if f"{self.entity}_index" in batch.schema.names:
            self.indices.update(zip(ids, batch.column(f"{self.entity}_index").to_pylist(), strict=True))


class Positives:
    """The positives of a split, row by row.

    Args:
        batches: Of the split, at least one.
        users: Takes those of the positives.
        items: Takes those of all rows, also the negatives.

    Attributes:
        header: The fields, with their types.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch], users: Named, items: Named) -> None:
        self._first = next(batches)
        self._rest = batches
        self._users = users
        self._items = items
        names = self._first.schema.names
        if missing := [name for name in (*_FIRST, "label") if name not in names]:
            raise ValueError(f"The table has no column {missing[0]!r}; RecBole takes training sets alone.")
        self._columns = [*_FIRST, *(name for name in names if name not in {*_FIRST, *_LEFT_OUT})]
        self.header = [
            f"{RENAMED.get(name, name)}:{_field_type(self._first.schema.field(name).type)}"
            for name in self._columns
        ]

    def __iter__(self) -> Iterator[Sequence[str]]:
        yield from self._rows(self._first)
        for batch in self._rest:
            yield from self._rows(batch)

    def _rows(self, batch: pa.RecordBatch) -> Iterator[Sequence[str]]:
        positive = batch.filter(pc.equal(batch.column("label"), 1.0))
        if HISTORY in self._columns:
            positive = positive.filter(pc.greater(pc.list_value_length(positive.column(HISTORY)), 0))
        self._users.take(positive)
        self._items.take(batch)
        columns = [map(_text, positive.column(name).to_pylist()) for name in self._columns]
        return zip(*columns, strict=True)


def _catalog(dataset: Dataset, items: Named) -> tuple[list[str], dict[str, list[str]]]:
    """The fields of `.item`, and what each item has: of its last row in the newest catalog, if it has any."""
    order = ("ingested_at", "upload_id", "row_number")
    columns = ["item_id", *CATALOG, *order]
    last: dict[str, tuple[tuple[Any, ...], list[Any]]] = {}
    try:
        for batch in dataset.client.read_batches(dataset.tenant, "items", columns=columns):
            for row in batch.to_pylist():
                key = tuple(row[name] for name in order)
                item = row["item_id"]
                if item in items.rows and (item not in last or last[item][0] < key):
                    last[item] = key, [row[name] for name in CATALOG]
    except TableNotFoundError:
        return ["item_id:token"], {item: [] for item in items.rows}
    unknown = (), [None] * len(CATALOG)
    described = {}
    for item in items.rows:
        title, *others = last.get(item, unknown)[1]
        described[item] = [_text((title or "").split()), *map(_text, others)]
    return ["item_id:token", *(f"{name}:{kind}" for name, kind in CATALOG.items())], described


def _field_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_field_type(kind.value_type)}_seq"
    return "token" if pa.types.is_string(kind) else "float"


def _text(value: Any) -> str:
    """A value as RecBole reads it: times are seconds since 1970, no value is empty."""
    if isinstance(value, list):
        return SEPARATOR.join(map(_text, value))
    if isinstance(value, datetime):
        return repr(value.timestamp())
    return "" if value is None else str(value)


def _names(header: Sequence[str]) -> str:
    return ", ".join(field.rpartition(":")[0] for field in header)


def _write_ids(file: Path, named: Named, header: Sequence[str], values: Mapping[str, Sequence[Any]]) -> None:
    """Writes the atomic file of users, or of items, with their integers behind the fields, if they have any.

    Raises:
        ValueError: RecBole would take an id for none, and its rows with it.
    """
    if missing := sorted(_READ_AS_MISSING.intersection(values)):
        raise ValueError(
            f"There is the {named.entity}_id {missing[0]!r}, which RecBole reads as a missing value; export "
            "as parquet or csv."
        )
    names = sorted(values)
    if not named.indices:
        _write(file, header, ([name, *values[name]] for name in names))
        return
    rows = ([name, *values[name], named.indices[name]] for name in names)
    _write(file, [*header, f"{named.entity}_index:token"], rows)


def _write(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Writes an atomic file; how many rows it has."""
    count = 0
    with file.open("w", encoding="utf-8", newline="") as text:
        text.write("\t".join(header) + "\n")
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        for row in rows:
            writer.writerow(row)
            count += 1
    return count
