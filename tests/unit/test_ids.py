"""Ids as integers, against docs/semantics.md in plain Python."""

import asyncio
import itertools
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xxhash

from headrace_compute.inputs.workers import InProcess
from headrace_compute.model import BUCKETS, DataFile, Part, Shard, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part
from headrace_compute.sink import PartSink
from headrace_compute.training.numbered import IdTables
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.run import make_dataset
from headrace_compute.training.split import TEMPORAL, Split
from headrace_compute.training.vocabulary import read_vocabulary, write_new_ids

PARAMS = SamplingParams(min_interactions_per_user=2, min_interactions_per_item=2, with_indices=True)

Event = tuple[str, str, str, int]
"""user, item, type, time in microseconds."""


def bucket(user: str) -> int:
    return xxhash.xxh64_intdigest(user.encode()) % BUCKETS


class Shop:
    """A tenant with its two vocabularies."""

    def __init__(self, root: Path) -> None:
        self.config = StoreConfig(str(root))
        self.workers = InProcess(self.config)
        self.files: dict[str, list[DataFile]] = {"user": [], "item": []}

    async def having(self, entity: Any, claims: Sequence[Any]) -> Any:
        key = f"vocabularies/{entity}/{uuid.uuid4().hex}.parquet"
        part = await self.workers.run(write_new_ids, entity, self.files[entity], key, *claims)
        if part is not None:
            self.files[entity].append(DataFile(part.key, part.rows, part.size_bytes))
        return await self.workers.hold(read_vocabulary, entity, self.files[entity])

    def vocabulary(self, entity: Any) -> dict[str, int]:
        found = read_vocabulary(self.config, entity, self.files[entity])
        assert [bucket(name) for name in found[0].to_pylist()] == found["bucket"].to_pylist()
        return dict(zip(found[0].to_pylist(), found[1].to_pylist(), strict=True))

    def make(
        self, events: Sequence[Event], params: SamplingParams = PARAMS, catalog: Any = None, plan: int = 2
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows, the users and the items of a training set."""
        stored = sorted(events, key=lambda event: bucket(event[0]))
        users, items, kinds, times = zip(*stored, strict=True)
        table = pa.table(
            {
                "user_id": pa.array(users),
                "item_id": pa.array(items),
                "interaction_type": pa.array(kinds),
                "timestamp": pa.array(times, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
                "rating": pa.nulls(len(stored), pa.float64()),
                "bucket": pa.array(map(bucket, users), pa.int16()),
            }
        )
        part = write_part(open_store(self.config), f"raw/{uuid.uuid4().hex}.parquet", table)
        listed = None if catalog is None else pa.table({"item_id": pa.array(sorted(catalog), pa.string())})
        edges = [BUCKETS * edge // plan for edge in range(plan + 1)]
        shards = [Shard(first, last) for first, last in itertools.pairwise(edges)]
        file = DataFile(part.key, part.rows, part.size_bytes)
        prefix = f"made/{uuid.uuid4().hex}/"
        sinks = [PartSink(f"{prefix}{name}/") for name in ("rows", "users", "items")]
        ids = IdTables(self, sinks[1], sinks[2]) if params.with_indices else None
        dataset = asyncio.run(
            make_dataset(self.workers, [file], listed, shards, None, params, sinks[0], ids=ids)
        )
        return tuple(map(self._rows, (dataset.parts, dataset.users, dataset.items)))  # type: ignore[return-value]

    def _rows(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        store = open_store(self.config)
        return [row for part in parts for row in read_part(store, part.key).to_pylist()]


def events_of(seed: int, count: int, users: Sequence[str], items: Sequence[str]) -> list[Event]:
    some = random.Random(seed)
    kinds = ("view", "click", "purchase")
    return [
        (some.choice(users), some.choice(items), some.choice(kinds), some.randrange(1, 10**6))
        for _ in range(count)
    ]


USERS, ITEMS = [f"u{n}" for n in range(40)], [f"i{n}" for n in range(30)]
EVENTS = events_of(1, 300, USERS, ITEMS)


def firsts(events: Sequence[Event], place: int) -> dict[str, int]:
    """The time of each id's first event."""
    found: dict[str, int] = {}
    for user, item, _, time in events:
        name = (user, item)[place]
        found[name] = min(time, found.get(name, time))
    return found


def expected_order(ids: set[str], events: Sequence[Event], place: int) -> list[str]:
    first = firsts(events, place)
    return sorted(ids, key=lambda name: (first.get(name, 2**63), name.encode()))


@pytest.mark.parametrize("plan", [1, 7])
def test_ids_are_numbered_by_their_first_event_and_rows_have_their_numbers(tmp_path: Path, plan: int) -> None:
    shop, catalog = Shop(tmp_path), [*ITEMS[5:], "never seen", "Never"]
    rows, users, items = shop.make(EVENTS, catalog=catalog, plan=plan)
    of_users, of_items = shop.vocabulary("user"), shop.vocabulary("item")
    with_rows = {row["user_id"] for row in rows}
    seen = {event[1] for event in EVENTS}
    for found, ids, place in ((of_users, with_rows, 0), (of_items, seen | set(catalog), 1)):
        assert found == {name: n + 1 for n, name in enumerate(expected_order(ids, EVENTS, place))}
    for row in rows:
        assert row["user_index"] == of_users[row["user_id"]]
        assert row["item_index"] == of_items[row["item_id"]]
    positives = [row for row in rows if row["label"] == 1.0]
    for table, entity, vocabulary, place in ((users, "user", of_users, 0), (items, "item", of_items, 1)):
        counts, first = Counter(row[f"{entity}_id"] for row in positives), firsts(EVENTS, place)
        assert [row[f"{entity}_index"] for row in table] == sorted(vocabulary.values())
        for row in table:
            name = row[f"{entity}_id"]
            seen_at = row["first_seen"]
            assert row[f"{entity}_index"] == vocabulary[name]
            assert row["count"] == counts[name]
            assert (None if seen_at is None else seen_at.microsecond) == first.get(name)


def test_rows_are_those_of_a_run_without_indices(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    plain, users, items = shop.make(EVENTS, replace(PARAMS, with_indices=False))
    assert (users, items) == ([], [])
    rows, _, _ = shop.make(EVENTS)
    left = [{name: value for name, value in row.items() if not name.endswith("_index")} for row in rows]
    assert left == plain


def test_histories_have_the_integers_of_their_items(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    rows, _, _ = shop.make(EVENTS, replace(PARAMS, history=5, history_timestamps=True), catalog=ITEMS[:9])
    of_items = shop.vocabulary("item")
    assert any(len(row["history"]) == 5 for row in rows)
    for row in rows:
        assert row["history_index"] == [of_items[name] for name in row["history"]]


def test_an_id_keeps_its_integer_whatever_comes(tmp_path: Path) -> None:
    """New ids, other parameters, events before all others: what had an integer has the same one."""
    shop = Shop(tmp_path)
    shop.make(EVENTS)
    before = {entity: shop.vocabulary(entity) for entity in ("user", "item")}
    newcomers = events_of(
        2, 60, [*USERS[:10], "u-new", "u-newer", "a-first"], [*ITEMS[:10], "i-new", "a-first"]
    )
    earlier = [(user, item, kind, -time) for user, item, kind, time in newcomers]
    rows, users, _ = shop.make([*EVENTS, *earlier], replace(PARAMS, seed=7, strategy="uniform"))
    for entity, place in (("user", 0), ("item", 1)):
        now, had = shop.vocabulary(entity), before[entity]
        assert {name: now[name] for name in had} == had
        new = now.keys() - had.keys()
        assert new
        order = expected_order(set(new), [*EVENTS, *earlier], place)
        assert [now[name] for name in order] == list(range(len(had) + 1, len(now) + 1))
    again, users_again, _ = shop.make([*EVENTS, *earlier], replace(PARAMS, seed=7, strategy="uniform"))
    assert (again, users_again) == (rows, users)
    _, users, items = shop.make(EVENTS, replace(PARAMS, min_interactions_per_user=8))
    assert {row["user_id"] for row in users} < set(before["user"])
    assert {row["item_id"]: row["item_index"] for row in items} == before["item"]


def test_splits_share_their_indices_and_counts_are_those_of_train(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    params = replace(PARAMS, split=Split(TEMPORAL, fractions=(0.5, 0.75)), eval_negative_ratio=9)
    rows, users, items = shop.make(EVENTS, params)
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    train = [row for row in rows if row["split"] == "train" and row["label"] == 1.0]
    for table, entity in ((users, "user"), (items, "item")):
        counts = Counter(row[f"{entity}_id"] for row in train)
        assert {row[f"{entity}_id"]: row["count"] for row in table if row["count"]} == counts
        indices = {row[f"{entity}_id"]: row[f"{entity}_index"] for row in table}
        assert {(row[f"{entity}_id"], row[f"{entity}_index"]) for row in rows} <= set(indices.items())
    assert {row["user_id"] for row in users} == {row["user_id"] for row in rows}
