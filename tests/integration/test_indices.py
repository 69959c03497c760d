"""Ids as integers over a real channel: with_indices, vocabularies, two servers at once."""

import random
import threading
from typing import Any

import pytest
from harness.server import Server
from typer.testing import CliRunner

from headrace import Client
from headrace.cli.app import app
from headrace.errors import InputGoneError, InvalidArgumentError, WrongTableKindError

OPTIONS: dict[str, Any] = {
    "min_interactions_per_user": 2,
    "min_interactions_per_item": 2,
    "with_indices": True,
}


def events(seed: int, count: int, prefix: str = "", users: int = 60, items: int = 40) -> list[dict[str, Any]]:
    some = random.Random(seed)
    return [
        {
            "user_id": f"{prefix}u{some.randrange(users)}",
            "item_id": f"{prefix}i{some.randrange(items)}",
            "interaction_type": some.choice(["view", "click", "like", "purchase"]),
            "timestamp": f"2026-01-{some.randrange(1, 29):02}T{some.randrange(24):02}:30:00",
        }
        for _ in range(count)
    ]


def indices(client: Client, tenant: str, table: str, **options: Any) -> dict[str, int]:
    """The index of each id of a table."""
    found = client.read_table(tenant, table, **options)
    return dict(zip(found[0].to_pylist(), found[1].to_pylist(), strict=True))


def test_ids_keep_their_integers_after_an_upload_with_new_ones(client: Client, tenant: str) -> None:
    """A tenth of the items of the second upload are new, and earlier than all others."""
    client.ingest_interactions(tenant, events(1, 900))
    first = client.sample_negatives(tenant, dataset="small", **OPTIONS)
    assert (first.users.table, first.items.table) == ("small_users", "small_items")
    assert (first.user_vocabulary.version, first.item_vocabulary.version) == (1, 1)
    before = {table: indices(client, tenant, table) for table in ("user_vocabulary", "item_vocabulary")}
    assert sorted(before["item_vocabulary"].values()) == list(range(1, 41))
    late = [{**row, "timestamp": "2025-01-01"} for row in events(2, 40, "new-", items=4)]
    client.ingest_interactions(tenant, [*late, *events(3, 300)])
    second = client.sample_negatives(tenant, dataset="large", seed=9, history=3, **OPTIONS)
    assert (second.user_vocabulary.version, second.item_vocabulary.version) == (2, 2)
    for table, had in before.items():
        now = indices(client, tenant, table)
        assert {name: now[name] for name in had} == had
        assert sorted(now.values()) == list(range(1, len(now) + 1))
        assert len(now) > len(had)
    assert len(indices(client, tenant, "item_vocabulary")) == 44
    rows = client.read_table(tenant, "large")
    for entity in ("user", "item"):
        of_ids = indices(client, tenant, f"large_{entity}s")
        assert [of_ids[name] for name in rows[f"{entity}_id"].to_pylist()] == rows[
            f"{entity}_index"
        ].to_pylist()
        known = indices(client, tenant, f"{entity}_vocabulary")
        assert {name: known[name] for name in of_ids} == of_ids
    again = client.sample_negatives(tenant, dataset="large", seed=9, history=3, **OPTIONS)
    assert again.item_vocabulary.version == 2
    assert client.read_table(tenant, "large", version=1) == client.read_table(tenant, "large", version=2)
    kinds = {table.name: table.kind for table in client.list_tables(tenant)}
    assert (kinds["large_users"], kinds["large_items"]) == ("dataset_users", "dataset_items")
    for table in ("small", "small_users", "small_items", "large", "large_users", "large_items"):
        assert not client.verify(tenant, table, version=1).HasField("difference")


def test_a_durable_run_makes_the_same_tables(client: Client, tenant: str) -> None:
    client.ingest_interactions(tenant, events(4, 400))
    alone = client.sample_negatives(tenant, dataset="alone", **OPTIONS)
    durable = client.sample_negatives(
        tenant, dataset="durable", request_id="5f3a1c2e-0b7d-4c1e-9a55-7f0c3f0e8a11", **OPTIONS
    )
    for entity in ("users", "items"):
        one, other = (client.read_table(tenant, f"{dataset}_{entity}") for dataset in ("alone", "durable"))
        assert one == other
        assert getattr(durable, entity).rows == getattr(alone, entity).rows == one.num_rows
    assert client.read_table(tenant, "alone") == client.read_table(tenant, "durable")
    assert durable.user_vocabulary == alone.user_vocabulary
    assert not client.verify(tenant, "durable_items").HasField("difference")


def test_runs_at_once_never_give_one_integer_to_two_ids(client: Client, tenant: str) -> None:
    """Each of them has ids that the others lack; which is numbered first is anyone's guess."""
    for number in range(4):
        client.ingest_interactions(tenant, events(number, 300, f"t{number}-", users=20, items=10))
    versions = {number: number + 1 for number in range(4)}
    failures: list[Exception] = []

    def make(number: int) -> None:
        try:
            with Client(client.address) as own:
                version = versions[number]
                own.sample_negatives(tenant, dataset=f"d{number}", interactions_version=version, **OPTIONS)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not failures
    for entity in ("user", "item"):
        known = indices(client, tenant, f"{entity}_vocabulary")
        assert sorted(known.values()) == list(range(1, len(known) + 1))
        for number in range(4):
            of_ids = indices(client, tenant, f"d{number}_{entity}s")
            assert of_ids == {name: known[name] for name in of_ids}


def test_what_cannot_have_indices_says_so(client: Client, server: Server, tenant: str) -> None:
    client.ingest_interactions(tenant, events(5, 300))
    with pytest.raises(InvalidArgumentError, match="at most 57 characters"):
        client.sample_negatives(tenant, dataset="x" * 58, **OPTIONS)
    for reserved in ("user_vocabulary", "item_vocabulary"):
        with pytest.raises(InvalidArgumentError, match=reserved):
            client.sample_negatives(tenant, dataset=reserved)
    client.sample_negatives(tenant, dataset="taken_users", min_interactions_per_user=0)
    with pytest.raises(WrongTableKindError, match="taken_users"):
        client.sample_negatives(tenant, dataset="taken", **OPTIONS)
    assert "taken" not in {table.name for table in client.list_tables(tenant)}
    command = ["negatives", "--with-indices", "--min-interactions-per-user", "2", "--dataset", "cli"]
    told = CliRunner().invoke(app, [*command, "--tenant", tenant, "--address", server.address])
    assert told.exit_code == 0, told.output
    assert {"cli_users", "cli_items"} <= set(told.output.split())
    assert {"cli", "cli_users", "cli_items"} <= {table.name for table in client.list_tables(tenant)}
    vocabulary = server.data_dir / "training-data" / tenant / "item_vocabulary"
    part = sorted(vocabulary.glob("*.parquet"))[0]
    kept = part.read_bytes()
    part.unlink()
    try:
        with pytest.raises(InputGoneError) as caught:
            client.verify(tenant, "cli")
    finally:
        part.write_bytes(kept)
    assert (caught.value.metadata["table"], caught.value.metadata["version"]) == ("item_vocabulary", "1")
