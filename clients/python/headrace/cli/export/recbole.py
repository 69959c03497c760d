"""A training set as RecBole's atomic files: https://recbole.io/docs/user_guide/data/atomic_files.html."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
    training set names, also as negatives, with what the tenant's newest catalog says of them.

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
    stem = folder / dataset.name / dataset.name
    stem.parent.mkdir()
    positives, items, interactions = Counter[str](), Counter[str](), dict[str, int]()
    inter: list[str] = []
    for split in dataset.splits:
        rows = Positives(dataset.batches(split), positives, items)
        interactions[split or "all"] = _write(Path(f"{stem}{split and '.'}{split}.inter"), rows.header, rows)
        inter = rows.header
    _check_ids("user_id", positives)
    _check_ids("item_id", items)
    user = ["user_id:token", "positives:float"]
    _write(stem.with_suffix(".user"), user, sorted(positives.items()))
    item, described = _catalog(dataset, items)
    _write(stem.with_suffix(".item"), item, described)
    config = _CONFIG.format(
        name=dataset.name, path=final.absolute(), inter=_names(inter), user=_names(user), item=_names(item)
    )
    if WHOLE not in dataset.splits:
        config += f"benchmark_filename: [{', '.join(dataset.splits)}]\n"
    if f"{RENAMED[HISTORY]}:token_seq" in inter:
        config += f"alias_of_item_id: [{RENAMED[HISTORY]}]\n"
    stem.with_suffix(".yaml").write_text(config, encoding="utf-8")
    return {"users": len(positives), "items": len(items), "interactions": interactions}


class Positives:
    """The positives of a split, row by row.

    Args:
        batches: Of the split, at least one.
        users: Takes the positives of each user.
        items: Takes the rows of each item, also as a negative.

    Attributes:
        header: The fields, with their types.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch], users: Counter[str], items: Counter[str]) -> None:
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
        self._users.update(positive.column("user_id").to_pylist())
        self._items.update(batch.column("item_id").to_pylist())
        columns = [map(_text, positive.column(name).to_pylist()) for name in self._columns]
        return zip(*columns, strict=True)


def _catalog(dataset: Dataset, items: Counter[str]) -> tuple[list[str], Iterator[Sequence[str]]]:
    """The fields of `.item`, and each item's values: of its last row in the newest catalog, if it has any."""
    order = ("ingested_at", "upload_id", "row_number")
    columns = ["item_id", *CATALOG, *order]
    last: dict[str, tuple[tuple[Any, ...], list[Any]]] = {}
    try:
        for batch in dataset.client.read_batches(dataset.tenant, "items", columns=columns):
            for row in batch.to_pylist():
                key = tuple(row[name] for name in order)
                item = row["item_id"]
                if item in items and (item not in last or last[item][0] < key):
                    last[item] = key, [row[name] for name in CATALOG]
    except TableNotFoundError:
        return ["item_id:token"], ([item] for item in sorted(items))
    unknown = (), [None] * len(CATALOG)

    def rows() -> Iterator[Sequence[str]]:
        for item in sorted(items):
            title, *others = last.get(item, unknown)[1]
            yield [item, _text((title or "").split()), *map(_text, others)]

    return ["item_id:token", *(f"{name}:{kind}" for name, kind in CATALOG.items())], rows()


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


def _check_ids(field: str, ids: Iterable[str]) -> None:
    """RecBole would take such an id for none, and its rows with it."""
    if missing := sorted(_READ_AS_MISSING.intersection(ids)):
        raise ValueError(
            f"There is the {field} {missing[0]!r}, which RecBole reads as a missing value; export as parquet "
            "or csv."
        )


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
