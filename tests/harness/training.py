"""Training sets laid into a server's store as they are wanted, without a run."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from harness.server import Server
from headrace import Client
from headrace.v1 import run_pb2
from headrace_compute.delta import tables
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part

RATIO = 4
"""Negatives of each positive."""

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("label", pa.float64()),
        ("group_id", pa.int64()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("split", pa.string()),
    ]
)


def lay_dataset(
    server: Server, tenant: str, dataset: str, parts: Sequence[tuple[str | None, int]], generation: int = 0
) -> Mapping[str | None, list[str]]:
    """Commits a version of a training set.

    Args:
        parts: For each its split, None for no splits, and how many groups it has, of 1 + RATIO rows each.
        generation: Rows of another one have other users.

    Returns:
        For each split the rows in the order of the table, as `{user_id} {item_id}`; no two rows are equal.
    """
    config = StoreConfig(str(server.data_dir))
    key = tables.dataset_key(config, tenant, dataset)
    stored, rows_of = [], dict[str | None, list[str]]()
    for number, (split, groups) in enumerate(parts):
        table = _rows(f"g{generation}p{number}", split, groups)
        name = f"{key}/{generation}-{number:04}.parquet"
        stored.append(write_part(open_store(config), name, table, stats=("split",)))
        pairs = zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)
        rows_of.setdefault(split, []).extend(f"{user} {item}" for user, item in pairs)
    tables.commit(
        config,
        key,
        kind="training_data",
        schema=SCHEMA,
        parts=stored,
        mode="overwrite",
        transaction=f"test-{generation}",
        metadata={},
    )
    return rows_of


def sample_without_valid(client: Client, tenant: str, dataset: str) -> run_pb2.NegativesResult:
    """Has a run make a training set of two cuts, between which nothing happens."""
    rows = [(f"u{user}", f"i{user + n}", month) for user in range(9) for n, month in enumerate((1, 2, 5))]
    client.ingest_interactions(
        tenant,
        [
            {"user_id": u, "item_id": i, "interaction_type": "click", "timestamp": f"2026-0{month}-01"}
            for u, i, month in rows
        ],
    )
    client.ingest_items(tenant, [{"item_id": f"i{number}", "title": "x"} for number in range(20)])
    made = client.sample_negatives(
        tenant,
        dataset=dataset,
        min_interactions_per_user=0,
        min_interactions_per_item=0,
        split={"cuts": [datetime(2026, month, 1, tzinfo=UTC) for month in (3, 4)]},
    )
    assert [warning.code for warning in made.warnings] == ["EMPTY_SPLIT"]
    return made


def _rows(part: str, split: str | None, groups: int) -> pa.Table:
    size = 1 + RATIO
    numbers = range(groups * size)
    return pa.table(
        [
            [f"{part}-u{number // size // 3}" for number in numbers],
            [f"i{number}" for number in numbers],
            [float(number % size == 0) for number in numbers],
            [number // size for number in numbers],
            pa.array([number // size for number in numbers], pa.int64()).cast(SCHEMA.field("timestamp").type),
            pa.array([split] * (groups * size), pa.string()),
        ],
        schema=SCHEMA,
    )
