"""Pairs, the item index and the k-core, against sets in plain Python."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.inputs.exchange import encode_rows
from headrace_compute.inputs.numbering import number_items
from headrace_compute.kernels.core import NEVER_US, choose_positives, core_members
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import BUCKETS, Shard, StoreConfig
from headrace_compute.training.core import CoreRound, core_round, survivors
from headrace_compute.training.fold import fold_shard
from headrace_compute.training.items import TimedCounts, build_index
from headrace_compute.training.parameters import SamplingParams

NOWHERE = StoreConfig("/nonexistent")
PARAMS = SamplingParams(positive_types=("click", "purchase", "like"))


def interactions(rows: Any) -> Any:
    """Rows of (user, item, type, second, rating) as a table."""
    users, items, kinds, seconds, ratings = zip(*rows, strict=True) if rows else ([],) * 5
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "item_id": pa.array(items, pa.string()),
            "interaction_type": pa.array(kinds, pa.string()),
            "timestamp": pa.array(
                [datetime.fromtimestamp(second, UTC) for second in seconds], pa.timestamp("us", tz="UTC")
            ),
            "rating": pa.array(ratings, pa.float64()),
        }
    )


def views(*pairs: Any) -> Any:
    return [(user, item, "view", 0, None) for user, item in pairs]


def folded(*shards: Any) -> Any:
    """The items of some shards' rows, numbered, and what each shard gives."""
    read = [encode_rows(interactions(rows)) for rows in shards]
    numbering = number_items(NOWHERE, None, *(items for items, _ in read))
    nothing = encode_rows(interactions([]))[1]
    shares = [[part if part is mine else nothing for _, part in read] for _, mine in read]
    plan = Shard(0, BUCKETS)
    return numbering, [tuple(fold_shard(NOWHERE, plan, PARAMS, None, numbering, *share)) for share in shares]


def pairs_of(rows: Any) -> Any:
    """The item_ids, the pairs and the positives of one shard."""
    numbering, [(*_, pairs, positives)] = folded(rows)
    return numbering.item_ids, pairs, positives


def unfold(item_ids: Any, pairs: Any, positives: Any) -> Any:
    """{(user, item): time of its first positive event or None}, in the order they lie."""
    items = item_ids.take(pa.array(pairs.items)).to_pylist()
    users = np.array(positives.users.to_pylist())
    times: dict[Any, Any] = dict.fromkeys(
        zip(np.repeat(users, np.diff(pairs.starts)).tolist(), items, strict=True)
    )
    first = positives.pairs
    for user, item, time_us in zip(
        np.repeat(users, np.diff(first.starts)).tolist(),
        item_ids.take(pa.array(first.items)).to_pylist(),
        first.first_us.tolist(),
        strict=True,
    ):
        assert (user, item) in times
        times[user, item] = time_us // 1_000_000
    return times


def find_core(shards: Any, min_per_user: int, min_per_item: int) -> Any:
    """Runs rounds as a run does, on the rows of each shard; the last round and the ids of its items."""
    numbering, shares = folded(*shards)
    alive = np.ones(len(numbering), np.bool_)
    while True:
        total = CoreRound(np.zeros(alive.size, np.int64))
        for *_, pairs, _ in shares:
            total.add(*core_round(NOWHERE, pairs, alive, min_per_user))
        left = survivors(alive, total, min_per_item)
        if np.array_equal(left, alive):
            return total, set(numbering.item_ids.filter(pa.array(total.counts > 0)).to_pylist())
        alive = left


def core_of(pairs: Any, min_per_user: int, min_per_item: int) -> Any:
    """The k-core, one offending pair at a time."""
    pairs = set(pairs)
    while True:
        users = [user for user, _ in pairs]
        items = [item for _, item in pairs]
        poor = {
            pair
            for pair in pairs
            if users.count(pair[0]) < min_per_user or items.count(pair[1]) < min_per_item
        }
        if not poor:
            return pairs
        pairs.remove(min(poor))


def test_a_pair_keeps_the_time_of_its_first_positive_event() -> None:
    rows = [
        ("ann", "x", "view", 1, None),
        ("ann", "x", "like", 9, None),
        ("ann", "x", "click", 5, None),
        ("ann", "y", "view", 2, None),
        ("bob", "x", "purchase", 3, 4.0),
    ]
    assert unfold(*pairs_of(rows)) == {("ann", "x"): 5, ("ann", "y"): None, ("bob", "x"): 3}


def test_pairs_lie_by_bucket_then_user_then_item_in_byte_order() -> None:
    users = ["z", "ä", "a", "\U0001f600", "Z", "b"]
    items = ["é", "f", "\U0001f600", "\uffee", "A"]
    item_ids, pairs, positives = pairs_of(views(*((user, item) for user in users for item in items)))
    hashes = bucket_of(xxh64_strings(pa.array(users))).tolist()
    by_user = sorted(zip(hashes, [user.encode() for user in users], strict=True))
    by_item = sorted(item.encode() for item in items)
    expected = [(user.decode(), item.decode()) for _, user in by_user for item in by_item]
    assert list(unfold(item_ids, pairs, positives)) == expected
    assert positives.buckets.tolist() == sorted(hashes)


def test_events_count_duplicates_once() -> None:
    rows = [
        ("ann", "x", "view", 1, None),
        ("ann", "x", "view", 1, None),
        ("ann", "x", "view", 1, 3.0),
        ("ann", "x", "view", 2, None),
        ("ann", "y", "view", 1, None),
        ("ann", "z", "view", 5, None),
    ]
    numbering, [(counts, *_)] = folded(rows)
    assert numbering.item_ids.to_pylist() == ["x", "y", "z"]
    assert (counts.numbers.tolist(), counts.events.tolist()) == ([0, 1, 2], [3, 1, 1])
    assert counts.first_us.tolist() == [1_000_000, 1_000_000, 5_000_000]


def counts_of(first_us: int = 0, **events: int) -> Any:
    """The items of a batch, and what a shard that has all of its rows counts; all have one first time."""
    return pa.array(list(events)), list(events.values()), first_us


def index_of(catalog: Any, *shards: Any, categories: bool = False) -> Any:
    numbering = number_items(NOWHERE, catalog, *(items for items, _, _ in shards))
    counts = []
    for places, (_, events, first_us) in zip(numbering.places, shards, strict=True):
        order = np.argsort(places)
        counts.append(
            TimedCounts(places[order], np.array(events)[order], np.full(order.size, first_us, np.int64))
        )
    return build_index(NOWHERE, numbering, catalog if categories else None, *counts)


def test_candidates_are_the_catalog_if_it_has_rows() -> None:
    catalog = pa.table({"item_id": ["a", "d"], "title": ["A", "D"]})
    index = index_of(catalog, counts_of(7, b=2, d=1), counts_of(3, d=5, c=1))
    assert index.item_ids.to_pylist() == ["a", "b", "c", "d"]
    assert index.events.tolist() == [0, 2, 1, 6]
    assert index.first_us.tolist() == [NEVER_US, 7, 3, 3]
    assert index.item_ids.take(pa.array(index.candidates)).to_pylist() == ["a", "d"]


def test_categories_are_numbered_in_the_order_of_their_names() -> None:
    catalog = pa.table({"item_id": list("abcde"), "category": ["z", None, "a", "z", ""]})
    assert index_of(catalog, counts_of(d=1, x=1), categories=True).categories.tolist() == [2, -1, 1, 2, 0, -1]
    unnamed = pa.table({"item_id": ["a", "b"], "category": pa.nulls(2, pa.string())})
    assert index_of(unnamed, counts_of(a=1), categories=True).categories.tolist() == [-1, -1]
    empty = pa.table({"item_id": pa.array([], pa.string()), "category": pa.array([], pa.string())})
    assert index_of(empty, counts_of(a=1), categories=True).categories.tolist() == [-1]


@pytest.mark.parametrize("catalog", [None, pa.table({"item_id": pa.array([], pa.string())})])
def test_candidates_are_every_item_of_the_source_without_a_catalog(catalog: Any) -> None:
    index = index_of(catalog, counts_of(b=2, a=1))
    assert index.item_ids.to_pylist() == ["a", "b"]
    assert index.events.tolist() == [1, 2]
    assert index.candidates.tolist() == [0, 1]


def test_the_core_falls_in_chains() -> None:
    # z2 has one user; without it u3 is poor, then z1, then u2, until the square is left.
    square = [(user, item) for user in ("u0", "u1") for item in ("s0", "s1")]
    chain = [("u2", "s1"), ("u2", "z1"), ("u3", "z1"), ("u3", "z2")]
    total, items = find_core([views(*square, *chain)], 2, 2)
    assert (total.pairs, total.users, total.items, items) == (4, 2, 2, {"s0", "s1"})


@pytest.mark.parametrize(("minimum", "pairs"), [(0, 3), (1, 3), (2, 0)])
def test_zero_and_one_switch_the_core_off(minimum: int, pairs: Any) -> None:
    total, _ = find_core([views(("a", "x"), ("b", "x"), ("c", "y"))], minimum, minimum)
    assert total.pairs == pairs


@given(
    st.sets(st.tuples(st.integers(0, 11), st.integers(0, 9)), min_size=1, max_size=70),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(1, 4),
)
def test_core_is_the_fixed_point_however_users_are_sharded(
    pairs: Any, min_per_user: int, min_per_item: int, shards: Any
) -> None:
    named = {(f"u{user}", f"i{item}") for user, item in pairs}
    split = [views(*(pair for pair in named if int(pair[0][1:]) % shards == part)) for part in range(shards)]
    total, items = find_core(split, min_per_user, min_per_item)
    expected = core_of(named, min_per_user, min_per_item)
    assert total.pairs == len(expected)
    assert total.users == len({user for user, _ in expected})
    assert items == {item for _, item in expected}


@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=12), min_size=1, max_size=5),
    st.integers(0, 6),
    st.integers(0, 4),
    st.sets(st.integers(0, 11)),
)
def test_positives_are_each_users_newest_in_order_of_time_and_item(
    users: Any, cap: int, minimum: int, dead: Any
) -> None:
    alive = np.array([item not in dead for item in range(12)])
    starts = np.cumsum([0, *map(len, users)]).astype(np.int64)
    items = np.array([item for times in users for item in range(len(times))], np.int32)
    times = [time for user in users for time in user]
    pairs = np.array([pair for pair, time in enumerate(times) if time is not None], np.int32)
    firsts = np.searchsorted(pairs, starts)
    first_us = np.array([time for time in times if time is not None], np.int64)
    expected = []
    for user, seen in enumerate(users):
        living = [item for item in range(len(seen)) if item not in dead]
        if len(living) < minimum:
            continue
        positives = [(seen[item], item) for item in living if seen[item] is not None]
        newest = sorted(positives, key=lambda positive: (-positive[0], positive[1]))
        expected += [(user, *positive) for positive in sorted(newest[: cap or None])]
    members = core_members(starts, items, alive, minimum)
    chosen, owners = choose_positives(firsts, items[pairs], first_us, members, alive, cap)
    found = zip(owners.tolist(), first_us[chosen].tolist(), items[pairs[chosen]].tolist(), strict=True)
    assert list(found) == expected


@pytest.mark.parametrize("count", [31, 32, 33, 34, 500])
def test_many_positives_of_a_user_are_in_order_of_time_and_item(count: int) -> None:
    rng = np.random.default_rng(count)
    first_us = rng.integers(0, count // 3, count)
    everyone = np.ones(1, np.bool_), np.ones(count, np.bool_)
    starts, items = np.array([0, count]), np.arange(count, dtype=np.int32)
    chosen, owners = choose_positives(starts, items, first_us, *everyone, 0)
    assert chosen.tolist() == sorted(range(count), key=lambda item: (first_us[item], item))
    assert owners.tolist() == [0] * count
