"""The current catalog is the last whole row per item."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.inputs.catalog import CATALOG_SCHEMA, current_catalog, latest_items
from headrace_compute.model import BUCKETS, DataFile, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part

ITEMS_SCHEMA = pa.schema(
    [
        *CATALOG_SCHEMA,
        ("description", pa.string()),
        ("ingested_at", pa.timestamp("us", tz="UTC")),
        ("upload_id", pa.string()),
        ("row_number", pa.int64()),
    ]
)


def item(name: str, title: str, ingested: int, upload: str, row: int, **more: Any) -> dict[str, Any]:
    return {
        "item_id": name,
        "title": title,
        "bucket": xxhash.xxh64_intdigest(name.encode()) % BUCKETS,
        "ingested_at": datetime.fromtimestamp(ingested, UTC),
        "upload_id": upload,
        "row_number": row,
        **more,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ITEMS_SCHEMA)


def test_later_ingestion_wins_over_upload_id_and_row_number() -> None:
    latest = latest_items(table(item("i", "new", 2, "a", 0), item("i", "old", 1, "b", 9)))
    assert latest["title"].to_pylist() == ["new"]


def test_upload_id_decides_within_one_instant_by_bytes() -> None:
    latest = latest_items(table(item("i", "upper", 1, "Z", 9), item("i", "lower", 1, "a", 0)))
    assert latest["title"].to_pylist() == ["lower"]


def test_row_number_decides_within_one_upload_as_a_number() -> None:
    latest = latest_items(table(item("i", "ten", 1, "a", 10), item("i", "nine", 1, "a", 9)))
    assert latest["title"].to_pylist() == ["ten"]


def test_a_row_is_taken_whole_nulls_included() -> None:
    latest = latest_items(
        table(item("i", "old", 1, "a", 0, brand="b", price=3.0), item("i", "new", 2, "b", 0, category="c"))
    )
    assert latest.schema == CATALOG_SCHEMA
    assert latest.select(["title", "category", "price", "brand"]).to_pylist() == [
        {"title": "new", "category": "c", "price": None, "brand": None}
    ]


def test_the_catalog_is_read_from_parts(tmp_path: Path) -> None:
    config = StoreConfig(str(tmp_path))
    files = []
    for upload in range(2):
        rows = [item(f"i{n}", f"t{upload}", upload, "u", n) for n in range(20)]
        rows.sort(key=lambda row: row["bucket"])
        part = write_part(open_store(config), f"raw-data/acme/items/{upload}.parquet", table(*rows))
        files.append(DataFile(part.key, part.rows, part.size_bytes))
    whole = current_catalog(config, files)
    assert whole["item_id"].to_pylist() == sorted(f"i{n}" for n in range(20))
    assert set(whole["title"].to_pylist()) == {"t1"}
    assert current_catalog(config, []).equals(CATALOG_SCHEMA.empty_table())


ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(["u", "v", "é"]), st.integers(0, 3)),
    unique=True,
    min_size=1,
)


@given(ROWS)
def test_any_order_of_rows_gives_the_same_catalog(keys: list[tuple[str, int, str, int]]) -> None:
    rows = [item(name, f"{at}/{upload}/{row}", at, upload, row) for name, at, upload, row in keys]
    wanted: dict[str, tuple[int, bytes, int]] = {}
    for name, at, upload, row in keys:
        wanted[name] = max(wanted.get(name, (-1, b"", 0)), (at, upload.encode(), row))
    for some in (rows, rows[::-1]):
        latest = latest_items(table(*some))
        assert dict(zip(latest["item_id"].to_pylist(), latest["title"].to_pylist(), strict=True)) == {
            name: f"{at}/{upload.decode()}/{row}" for name, (at, upload, row) in sorted(wanted.items())
        }
