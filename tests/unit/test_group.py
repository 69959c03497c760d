"""Small ingests that share a validation, against the same rows in blocks of their own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import StoreFullError
from headrace_compute.ingest.block import ingest_block
from headrace_compute.ingest.group import GroupSpec, RowFormat, ingest_group
from headrace_compute.model import Block, Part, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part
from headrace_compute.report import report_of

STARTED_US, LATEST_US = 1_767_225_600_000_000, 1_767_312_000_000_000

Row = tuple[str | None, str | None, str | None, str | None, float | None]

rows = st.tuples(
    st.sampled_from(["a", "a", "b", "u\x01", None]),
    st.sampled_from(["i", "i", "x" * 257, None]),
    st.sampled_from(["view", "view", "like", "buy", None]),
    st.sampled_from(["2025-01-01", "2025-01-01T00:00:00Z", "2027-01-01", "2025-02-30", None]),
    st.sampled_from([None, 4.0, 6.0, float("inf")]),
)
Object = dict[str, Any]

values = st.sampled_from(["a", "i", "view", "2025-01-01", "", None, 7, 4.5, True, [1], {"a": None}])
objects = st.dictionaries(
    st.sampled_from(
        ["user_id", "item_id", "interaction_type", "timestamp", "rating", "colour", " ", "x" * 300]
    ),
    values,
) | st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["a", "b", 7]),
        "item_id": st.just("i"),
        "interaction_type": st.just("view"),
        "timestamp": st.just("2025-01-01"),
    },
    optional={"rating": st.sampled_from([None, 4, float("nan"), "4"]), "colour": values},
)

uploads = st.lists(st.lists(rows, min_size=1, max_size=25), min_size=1, max_size=4)


def table(found: list[Row]) -> pa.Table:
    texts = [pa.array([row[place] for row in found], pa.string()) for place in range(4)]
    ratings = pa.array([row[4] for row in found], pa.float64())
    return pa.table([*texts, ratings], ["user_id", "item_id", "interaction_type", "timestamp", "rating"])


def lines(found: Sequence[Object]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in found)


def stored(config: StoreConfig, *parts: Part | None) -> list[dict[str, Any]]:
    found = [row for part in parts if part for row in read_part(open_store(config), part.key).to_pylist()]
    return sorted(found, key=lambda row: (row["row_number"], row.get("column", ""), row.get("code", "")))


def test_a_group_that_the_store_has_no_room_for_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StoreConfig(str(tmp_path))
    store = open_store(config)
    real = type(store).create

    def full(self: Any, key: str, data: bytes) -> None:
        if key.startswith("rejects/"):
            raise StoreFullError("no room")
        real(self, key, data)

    monkeypatch.setattr(type(store), "create", full)
    spec = GroupSpec(
        "g", "interactions", "raw-data/g/", "rejects/g/true/", "rejects/g/false/", STARTED_US, LATEST_US
    )
    found: list[Row] = [("a", "i", "view", "2025-01-01", None), ("a", "i", "buy", "2025-01-01", None)]
    with pytest.raises(StoreFullError):
        ingest_group(config, spec, [("up", 2)], table(found))
    assert list(store.list("raw-data/")) == []


@given(uploads)
def test_each_ingest_of_a_group_is_judged_and_stored_as_if_it_were_alone(
    tmp_path_factory: pytest.TempPathFactory, group: list[list[Row]]
) -> None:
    _compare(StoreConfig(str(tmp_path_factory.mktemp("store"))), "rows", group, table)


@given(st.lists(st.lists(objects, min_size=1, max_size=15), min_size=1, max_size=4))
def test_so_is_each_ingest_of_json_objects(
    tmp_path_factory: pytest.TempPathFactory, group: list[list[Object]]
) -> None:
    _compare(StoreConfig(str(tmp_path_factory.mktemp("store"))), "json_lines", group, lines)


def _compare(config: StoreConfig, format: RowFormat, group: list[list[Any]], payload: Any) -> None:
    """Has a group ingested together and each of its uploads alone."""
    spec = GroupSpec(
        "g",
        "interactions",
        "raw-data/g/",
        "rejects/g/true/",
        "rejects/g/false/",
        STARTED_US,
        LATEST_US,
        format,
    )
    ids = [f"up{place}" for place in range(len(group))]
    sizes = [(upload_id, len(found)) for upload_id, found in zip(ids, group, strict=True)]
    together = ingest_group(config, spec, sizes, payload([row for found in group for row in found]))
    data = stored(config, together.data)
    published, unpublished = stored(config, together.published), stored(config, together.unpublished)
    for upload_id, found, report in zip(ids, group, together.reports, strict=True):
        count = len(found)
        alone = ingest_block(
            config,
            UploadSpec(
                upload_id, "interactions", "raw-data/b/", "rejects/b/", "side/b/", STARTED_US, LATEST_US
            ),
            Block(0, format, 0, count, 0, count, 0),
            payload(found),
            "0",
        )
        assert report == report_of(alone.findings)
        assert [row for row in data if row["upload_id"] == upload_id] == stored(config, alone.data)
        mine, others = (published, unpublished) if alone.accepted else (unpublished, published)
        assert [row for row in mine if row["upload_id"] == upload_id] == stored(config, *alone.rejects)
        assert not [row for row in others if row["upload_id"] == upload_id]
