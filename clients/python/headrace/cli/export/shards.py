"""A training set as Parquet or CSV files, which common tools open, and a manifest of them."""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from headrace.arrow import np, pa
from headrace.cli.export.dataset import Dataset
from headrace.cli.export.file import write_batches

ROWS_PER_SHARD = 1_000_000
"""Unless it is said how many shards there shall be."""

ALL = "all"
"""Names the files of a training set without splits."""

_CARD = """---
configs:
- config_name: default
  data_files:
{files}---
# {name}

Version {version} of the training set `{name}` of `{tenant}`, {rows:,} rows, exported by Headrace.
`manifest.json` lists the files.

| tool | opens it with |
|---|---|
| DuckDB | `SELECT * FROM '{first}'` |
| Polars | `polars.scan_{format}("{first}")` |
| Ray Data | `ray.data.read_{format}("data")` |
| Hugging Face datasets | `datasets.load_dataset(".")` |
"""


def write_shards(dataset: Dataset, folder: Path, format: str, shards: int | None) -> dict[str, Any]:
    """Writes `data/{split}-{number}-of-{shards}.{format}`, manifest.json and README.md; returns the manifest.

    Args:
        dataset: What to write.
        folder: Where to.
        format: parquet or csv.
        shards: Of each split; a positive and its negatives are never parted, and what gets none of them is
            not written. Default one a million rows.
    """
    (folder / "data").mkdir()
    splits = {
        split or ALL: _write_split(dataset, split, folder, format, shards or -(-rows // ROWS_PER_SHARD) or 1)
        for split, rows in dataset.splits.items()
    }
    manifest = {
        "tenant": dataset.tenant,
        "dataset": dataset.name,
        "version": dataset.version,
        "format": format,
        "rows": dataset.rows,
        "splits": splits,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(manifest), encoding="utf-8")
    return manifest


def cut(batches: Iterable[pa.RecordBatch], rows: int, shards: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches by the number of their shard, which begins with the first positive behind its share of rows.

    Args:
        batches: In the order of the table. Of one without `label` shards begin at any row.
        rows: Of all batches.
        shards: How many there are. Those that get no rows are passed over, unless there are none at all: then
            the first has a batch without any.
    """
    shard, seen = 0, 0
    for batch in batches:
        begins, begin = seen + _group_begins(batch), 0
        while shard + 1 < shards:
            place = np.searchsorted(begins, rows * (shard + 1) // shards)
            if place == begins.size:
                break
            end = int(begins[place]) - seen
            if end > begin:
                yield shard, batch.slice(begin, end - begin)
            shard, begin = shard + 1, end
        yield shard, batch.slice(begin)
        seen += batch.num_rows


def _group_begins(batch: pa.RecordBatch) -> np.ndarray:
    if "label" not in batch.schema.names:
        return np.arange(batch.num_rows)
    begins: np.ndarray = np.flatnonzero(batch.column("label").to_numpy(zero_copy_only=False) == 1.0)
    return begins


def _write_split(dataset: Dataset, split: str, folder: Path, format: str, shards: int) -> dict[str, Any]:
    """Writes the shards of a split one after another; what the manifest says of it."""
    files = []
    for shard, pieces in groupby(cut(dataset.batches(split), dataset.splits[split], shards), itemgetter(0)):
        path = f"data/{split or ALL}-{shard:05d}-of-{shards:05d}.{format}"
        with (folder / path).open("wb") as file:
            rows = write_batches((batch for _, batch in pieces), file, f".{format}")
        files.append({"path": path, "rows": rows, "bytes": (folder / path).stat().st_size})
    return {"rows": dataset.splits[split], "files": files}


def _card(manifest: dict[str, Any]) -> str:
    # Hugging Face knows no rows that are in no split: they are train. Nor can it load a split without rows.
    lines = [
        f"  - split: {'train' if split == ALL else split}\n    path: data/{split}-*.{manifest['format']}\n"
        for split, told in manifest["splits"].items()
        if told["rows"]
    ]
    first = f"data/{next(iter(manifest['splits']))}-*.{manifest['format']}"
    return _CARD.format(files="".join(lines), name=manifest["dataset"], first=first, **manifest)
