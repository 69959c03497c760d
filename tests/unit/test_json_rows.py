"""Stored rows as JSON, a page at a time."""

import json
from pathlib import Path

import pyarrow as pa

from headrace_compute.inputs.reading import read_json, unpacked
from headrace_compute.model import DataFile, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part


def test_pages_hold_rows_in_order_whatever_their_values(tmp_path: Path) -> None:
    config = StoreConfig(str(tmp_path))
    titles = ["a\nb", "", '"', None, "\u2028", "é\r\n", "x" * 5_000]
    table = pa.table({"title": titles, "n": pa.array(range(7), pa.int64())})
    part = write_part(open_store(config), "raw-data/acme/items/p.parquet", table)
    file = DataFile(part.key, part.rows, part.size_bytes)
    pages = read_json(config, file, 0, ["title", "n"], 6, 4)
    rows = [[json.loads(row) for row in unpacked(page)] for page in pages]
    assert [len(page) for page in rows] == [4, 2]
    assert [row for page in rows for row in page] == [
        {"title": title, "n": str(n)} for n, title in enumerate(titles[:6])
    ]
