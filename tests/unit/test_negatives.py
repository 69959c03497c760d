"""Training data from stored interactions, against SEMANTICS.md in plain Python."""

import asyncio
import csv
import itertools
import math
import pickle
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute import cancellation
from headrace_compute.cancellation import StageCancelledError
from headrace_compute.errors import NoInteractionsError, NoPositivesError, StoreFullError
from headrace_compute.inputs.workers import admit_all
from headrace_compute.kernels import sampling
from headrace_compute.model import BUCKETS, DataFile, Shard, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_part, write_part
from headrace_compute.sink import PartSink
from headrace_compute.training import draws, negatives
from headrace_compute.training.dataset import Dataset, SplitRows
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.rows import TRAINING_SCHEMA
from headrace_compute.training.run import make_dataset
from headrace_compute.training.strategies import components

RETAIL = Path(__file__).parents[1] / "data" / "online_retail"
STRATEGIES = ("uniform", "popularity", "zipf", "mixed", "exposed")
SOURCES = {"mixed": {"uniform", "popularity"}, "exposed": {"popularity"}}
"""What rows that are drawn by weight may name, where that is not the strategy."""

EVERYTHING = SamplingParams(min_interactions_per_user=0, min_interactions_per_item=0)


class Inline:
    """Runs stages here, each value pickled on its way with read-only buffers, as Ray's store has them."""

    def __init__(self, config: StoreConfig) -> None:
        self.config = config

    async def run(self, stage: Callable[..., Any], *args: Any) -> Any:
        return self._carry(stage(self.config, *map(self._carry, args)))

    async def hold(self, stage: Callable[..., Any], *args: Any) -> Any:
        return await self.run(stage, *args)

    async def hold_each(self, count: int, stage: Callable[..., Any], *args: Any) -> Any:
        given = [self._carry(value) for value in stage(self.config, *map(self._carry, args))]
        assert len(given) == count
        return given

    async def put(self, value: Any) -> Any:
        return value

    def let_go(self, held: Sequence[Any]) -> None:
        pass

    def _carry(self, value: Any) -> Any:
        buffers: list[Any] = []
        data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


def bucket(user: str) -> int:
    return xxhash.xxh64_intdigest(user.encode()) % BUCKETS


def shards(count: int) -> Any:
    edges = [BUCKETS * edge // count for edge in range(count + 1)]
    return [Shard(first, last) for first, last in itertools.pairwise(edges)]


def store_rows(config: StoreConfig, rows: list[Any], files: int = 1) -> Any:
    """Stores rows of (user, item, type, time_us, rating), dealt out to some files."""
    stored = []
    for file in range(files):
        share = sorted(rows[file::files], key=lambda row: bucket(row[0]))
        columns = list(zip(*share, strict=True)) or [()] * 5
        table = pa.table(
            {
                "user_id": pa.array(columns[0], pa.string()),
                "item_id": pa.array(columns[1], pa.string()),
                "interaction_type": pa.array(columns[2], pa.string()),
                "timestamp": pa.array(columns[3], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
                "rating": pa.array(columns[4], pa.float64()),
                "bucket": pa.array(map(bucket, columns[0]), pa.int16()),
            }
        )
        part = write_part(open_store(config), f"raw-data/t/interactions/{uuid.uuid4().hex}.parquet", table)
        stored.append(DataFile(part.key, part.rows, part.size_bytes))
    return stored


def sample(
    root: Path,
    rows: list[Any],
    params: SamplingParams = SamplingParams(),  # noqa: B008
    *,
    catalog: Any = None,
    as_of_us: Any = None,
    plan: int = 2,
    files: int = 1,
) -> Any:
    """Runs everything; the result and the written table. A catalog has items, or a category for each."""
    config = StoreConfig(str(root))
    listed = None
    if catalog is not None:
        named = sorted(catalog.items() if isinstance(catalog, dict) else ((item, None) for item in catalog))
        columns = zip(*named, strict=True) if named else ((), ())
        listed = pa.table([pa.array(column, pa.string()) for column in columns], ["item_id", "category"])
    sink = PartSink(f"training-data/t/{uuid.uuid4().hex}/")
    run = make_dataset(
        Inline(config), store_rows(config, rows, files), listed, shards(plan), as_of_us, params, sink
    )
    dataset = asyncio.run(run)
    tables = [read_part(open_store(config), part.key) for part in dataset.parts]
    return dataset, pa.concat_tables(tables).combine_chunks()


class Expected:
    """What SEMANTICS.md, Training data and negatives, says of some rows; all but the draws."""

    def __init__(
        self, rows: list[Any], params: SamplingParams, catalog: Any = None, as_of_us: Any = math.inf
    ) -> None:
        source = {row for row in rows if row[3] < as_of_us}
        pairs = self.pairs = {(user, item) for user, item, *_ in source}
        core = self.core = self._core(set(pairs), params)
        first: dict[Any, Any] = {}
        for user, item, kind, time, _ in source:
            if (user, item) in core and kind in params.positive_types:
                first[user, item] = min(time, first.get((user, item), time))
        by_user = defaultdict(list)
        for (user, item), time in first.items():
            by_user[user].append((time, item))
        self.positives = []
        for user in sorted(by_user, key=lambda user: (bucket(user), user.encode())):
            newest = sorted(by_user[user], key=lambda seen: (-seen[0], seen[1].encode()))
            kept = newest[: params.max_interactions_per_user or None]
            self.positives += [
                (user, *seen) for seen in sorted(kept, key=lambda seen: (seen[0], seen[1].encode()))
            ]
        self.candidates = set(catalog or ()) or {item for _, item in pairs}
        self.categories = catalog if isinstance(catalog, dict) else {}
        self.since: dict[Any, Any] = {}
        for _, item, _, time, _ in source:
            self.since[item] = min(time, self.since.get(item, time))
        events = Counter(item for _, item, *_ in source)
        self.weights = self._weights(params, events)
        self.params = params
        self.totals: dict[Any, Any] = {}
        self.known = defaultdict(set)
        for user, item in pairs:
            self.known[user].add(item)
        kinds, views = defaultdict(set), defaultdict(list)
        for user, item, kind, time, _ in source:
            kinds[user, item].add(kind)
            views[user, item].append(time)
        self.viewed = {pair: min(views[pair]) for pair in pairs if kinds[pair] == {"view"}}

    def exposures(self, params: SamplingParams, user: str, time: int) -> set[Any]:
        """What the user has only viewed, at or before a time, of the candidates."""
        if params.strategy != "exposed":
            return set()
        seen = {item for (who, item), first in self.viewed.items() if who == user and first <= time}
        return seen & self.candidates

    def _weights(self, params: SamplingParams, events: Counter[Any]) -> dict[Any, float]:
        popular = {item: (1 + events[item]) ** params.alpha for item in self.candidates}
        ranked = sorted(self.candidates, key=lambda item: (-events[item], item.encode()))
        match params.strategy:
            case "uniform":
                return dict.fromkeys(self.candidates, 1.0)
            case "popularity" | "exposed":
                return popular
            case "zipf":
                return {item: rank**-params.zipf_exponent for rank, item in enumerate(ranked, 1)}
        share, total = params.uniform_share, sum(popular.values())
        return {item: share / len(popular) + (1 - share) * popular[item] / total for item in popular}

    @staticmethod
    def _core(core: Any, params: SamplingParams) -> Any:
        while True:
            of_user, of_item = Counter(user for user, _ in core), Counter(item for _, item in core)
            rich = {pair for pair in core if of_user[pair[0]] >= params.min_interactions_per_user}
            left = {pair for pair in rich if of_item[pair[1]] >= params.min_interactions_per_item}
            if left == core:
                return core
            core = left

    def free(self, user: str, time: Any = math.inf) -> Any:
        """What may be drawn for a positive of that time."""
        free = self.candidates - self.known[user]
        return (
            {item for item in free if self.since.get(item, math.inf) <= time}
            if self.params.available_only
            else free
        )

    def alike(self, user: str, time: Any, positive: str) -> Any:
        """Those of the positive's category; none if draws are not from there."""
        category = self.categories.get(positive)
        if category is None or not self.params.same_category_share:
            return set()
        return {item for item in self.free(user, time) if self.categories[item] == category}

    def probability(
        self, user: str, item: str, time: Any = math.inf, positive: Any = None, drawn: Any = ()
    ) -> Any:
        """Of an item for a positive that has drawn others already."""
        prob, alike = self._share((user, time), self.free, item), self.alike(user, time, positive)
        if alike <= set(drawn):
            return prob
        share = self.params.same_category_share
        of_alike = self._share((user, time, positive), self.alike, item) if item in alike else 0.0
        return share * of_alike + (1 - share) * prob

    def _share(self, key: Any, some: Callable[..., Any], item: str) -> float:
        """The weight of an item in that of some candidates."""
        if key not in self.totals:
            self.totals[key] = math.fsum(self.weights[candidate] for candidate in some(*key))
        return float(self.weights[item] / self.totals[key])


def group_id(user: str, item: str) -> int:
    digest = xxhash.xxh64_digest(user.encode() + b"\0" + item.encode())
    return int.from_bytes(digest, "big", signed=True)


def assert_right(table: pa.Table, expected: Any, params: SamplingParams) -> None:
    """Every row is what it must be; of the negatives, one of what they may be."""
    assert table.schema == TRAINING_SCHEMA
    rows = iter(table.to_pylist())
    for user, time, item in expected.positives:
        free, exposures = expected.free(user, time), expected.exposures(params, user, time)
        shared = {
            "user_id": user,
            "group_id": group_id(user, item),
            "timestamp": datetime.fromtimestamp(time // 1_000_000, UTC).replace(microsecond=time % 1_000_000),
            "split": None,
            "bucket": bucket(user),
        }
        positive = {"item_id": item, "label": 1.0, "negative_source": None, "sampling_prob": None}
        assert next(rows) == shared | positive
        exposed = min(params.negative_ratio, len(exposures))
        drawn = [next(rows) for _ in range(min(params.negative_ratio, exposed + len(free)))]
        items = [row["item_id"] for row in drawn]
        for place, row in enumerate(drawn):
            probability = (
                1 / len(exposures)
                if place < exposed
                else expected.probability(user, row["item_id"], time, item, items[exposed:place])
            )
            negative = {
                "item_id": row["item_id"],
                "label": 0.0,
                "negative_source": row["negative_source"],
                "sampling_prob": pytest.approx(probability, rel=1e-12),
            }
            assert row == shared | negative
            named = SOURCES.get(params.strategy, {params.strategy})
            assert row["negative_source"] in ({"exposed"} if place < exposed else named)
        assert len(set(items)) == len(drawn)
        assert set(items[:exposed]) <= exposures
        assert set(items[exposed:]) <= free
    assert next(rows, None) is None


def assert_counts(dataset: Any, expected: Any, params: SamplingParams) -> None:
    kept = [
        min(
            params.negative_ratio,
            len(expected.free(user, time)) + len(expected.exposures(params, user, time)),
        )
        for user, time, _ in expected.positives
    ]
    whole = SplitRows(
        None,
        positives=len(expected.positives),
        positives_outside_candidates=sum(
            item not in expected.candidates for _, _, item in expected.positives
        ),
        negatives=sum(kept),
        negatives_short=params.negative_ratio * len(kept) - sum(kept),
        positives_without_user=dataset.splits[0].positives_without_user,
        positives_without_item=dataset.splits[0].positives_without_item,
        positives_without_category=sum(
            expected.categories.get(item) is None for _, _, item in expected.positives
        )
        if params.same_category_share
        else 0,
    )
    assert replace(dataset, parts=()) == Dataset(
        parts=(),
        source_pairs=len(expected.pairs),
        core_pairs=len(expected.core),
        core_users=len({user for user, _ in expected.core}),
        core_items=len({item for _, item in expected.core}),
        candidates=len(expected.candidates),
        splits=(whole,),
        cuts_us=(),
    )


def generated_rows(seed: int, users: Any = 60, items: int = 40, count: int = 1500) -> list[Any]:
    rng = random.Random(seed)
    kinds = ("view", "click", "purchase", "like", "add_to_cart")
    rows = [
        (
            f"user é{rng.randrange(users)}",
            f"item {int(items * rng.random() ** 2)}",
            rng.choice(kinds),
            rng.randrange(200) * 1_000_000 + rng.randrange(2),
            rng.choice((None, None, 4.5)),
        )
        for _ in range(count)
    ]
    return rows + rng.sample(rows, count // 10)


identifiers = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=3)


@st.composite
def cases(draw: Any) -> Any:
    users = draw(st.lists(identifiers, min_size=1, max_size=8, unique=True))
    items = draw(st.lists(identifiers, min_size=1, max_size=12, unique=True))
    event = st.tuples(
        st.sampled_from(users),
        st.sampled_from(items),
        st.sampled_from(("view", "click", "purchase", "like", "add_to_cart")),
        st.integers(0, 9),
        st.sampled_from((None, 1.0, 5.0)),
    )
    params = SamplingParams(
        seed=draw(st.integers(0, 2**64 - 1)),
        negative_ratio=draw(st.integers(1, 6)),
        strategy=draw(st.sampled_from(STRATEGIES)),
        alpha=draw(st.sampled_from((0.0, 0.75, 4.0))),
        zipf_exponent=draw(st.sampled_from((0.0, 1.0, 1.3))),
        uniform_share=draw(st.sampled_from((0.0, 0.3, 1.0))),
        positive_types=draw(st.sampled_from((("click", "purchase", "like"), ("view",)))),
        max_interactions_per_user=draw(st.integers(0, 4)),
        min_interactions_per_user=draw(st.integers(0, 3)),
        min_interactions_per_item=draw(st.integers(0, 3)),
        available_only=draw(st.booleans()),
        same_category_share=draw(st.sampled_from((0.0, 0.25, 1.0))),
    )
    categories = st.sampled_from((None, "", "a", "b"))
    catalog = draw(st.none() | st.dictionaries(st.sampled_from(items) | identifiers, categories, max_size=8))
    as_of_us = draw(st.none() | st.integers(0, 10))
    return draw(st.lists(event, min_size=1, max_size=60)), params, catalog, as_of_us


@given(case=cases(), rng=st.randoms(use_true_random=False))
def test_any_rows_give_what_the_specification_says_in_any_order_and_sharding(
    tmp_path: Path, case: Any, rng: random.Random
) -> None:
    rows, params, catalog, as_of_us = case
    expected = Expected(rows, params, catalog, math.inf if as_of_us is None else as_of_us)
    if not expected.positives:
        with pytest.raises(NoPositivesError if expected.pairs else NoInteractionsError):
            sample(tmp_path, rows, params, catalog=catalog, as_of_us=as_of_us)
        return
    dataset, table = sample(tmp_path, rows, params, catalog=catalog, as_of_us=as_of_us)
    assert_right(table, expected, params)
    assert_counts(dataset, expected, params)
    shuffled = rng.sample(rows, len(rows))
    again, same = sample(tmp_path, shuffled, params, catalog=catalog, as_of_us=as_of_us, plan=5, files=3)
    assert same.equals(table)
    assert replace(again, parts=()) == replace(dataset, parts=())


@pytest.mark.parametrize("limits", [{}, {"available_only": True, "same_category_share": 0.5}])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shards_files_and_order_of_rows_change_nothing(tmp_path: Path, strategy: Any, limits: Any) -> None:
    rows = generated_rows(1)
    catalog = {item: item[-1] for _, item, *_ in rows} if limits else None
    params = SamplingParams(seed=9, strategy=strategy, **limits)
    dataset, table = sample(tmp_path, rows, params, catalog=catalog, plan=1)
    assert_right(table, Expected(rows, params, catalog), params)
    assert_counts(dataset, Expected(rows, params, catalog), params)
    for plan, files in ((2, 1), (7, 4), (64, 2)):
        mixed = random.Random(plan).sample(rows, len(rows))
        assert sample(tmp_path, mixed, params, catalog=catalog, plan=plan, files=files)[1].equals(table)


def test_equal_runs_write_equal_bytes(tmp_path: Path) -> None:
    parts = [sample(tmp_path, generated_rows(2))[0].parts for _ in range(2)]
    assert [part.checksum for part in parts[0]] == [part.checksum for part in parts[1]]


def test_small_parts_hold_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = generated_rows(3)
    whole, table = sample(tmp_path, rows)
    monkeypatch.setattr(negatives, "PART_ROWS", 100)
    dataset, same = sample(tmp_path, rows)
    assert same.equals(table)
    assert len(dataset.parts) > len(whole.parts)
    assert max(part.rows for part in dataset.parts) <= 100


def test_another_seed_draws_others(tmp_path: Path) -> None:
    rows = generated_rows(4)
    tables = [sample(tmp_path, rows, SamplingParams(seed=seed))[1] for seed in (0, 1)]
    positives = [table.filter(pa.compute.equal(table["label"], 1.0)) for table in tables]
    assert positives[0].equals(positives[1])
    assert not tables[0].equals(tables[1])


def test_other_users_change_nothing_while_candidates_weights_and_core_stay(tmp_path: Path) -> None:
    rows = generated_rows(5)
    catalog = sorted({row[1] for row in rows})
    params = replace(EVERYTHING, strategy="uniform")
    _, table = sample(tmp_path, rows, params, catalog=catalog)
    someone = rows[0][0]
    _, alone = sample(tmp_path, [row for row in rows if row[0] == someone], params, catalog=catalog)
    assert alone.equals(table.filter(pa.compute.equal(table["user_id"], someone)).combine_chunks())


def test_popular_items_are_drawn_as_often_as_their_weight_says(tmp_path: Path) -> None:
    rows = [(f"fan {fan}", f"hit {int(40 * (fan / 4000) ** 3):02}", "view", fan, None) for fan in range(4000)]
    rows += [(f"user {user}", "hit 00", "click", user, None) for user in range(3000)]
    params = replace(EVERYTHING, negative_ratio=1, seed=11)
    _, table = sample(tmp_path, rows, params)
    drawn = table.filter(pa.compute.equal(table["label"], 0.0))
    found = Counter(drawn["item_id"].to_pylist())
    expected = Expected(rows, params)
    free = expected.free("user 0")
    hits = {item: 3000 * expected.probability("user 0", item) for item in free}
    statistic = sum((found[item] - hits[item]) ** 2 / hits[item] for item in free)
    freedom = len(free) - 1
    assert sum(found.values()) == 3000
    assert statistic < freedom + 4.5 * math.sqrt(2 * freedom)


def test_a_user_who_knows_everything_keeps_bare_positives(tmp_path: Path) -> None:
    rows = [("all", f"i{item}", "click", item, None) for item in range(6)]
    rows += [("most", f"i{item}", "click", item, None) for item in range(4)]
    dataset, table = sample(tmp_path, rows, EVERYTHING)
    (whole,) = dataset.splits
    assert (whole.positives, whole.negatives, whole.negatives_short) == (10, 8, 32)
    most = table.filter(pa.compute.equal(table["user_id"], "most"))
    assert set(most.filter(pa.compute.equal(most["label"], 0.0))["item_id"].to_pylist()) == {"i4", "i5"}
    assert_right(table, Expected(rows, EVERYTHING), EVERYTHING)


def test_positives_outside_the_catalog_stay_and_are_counted(tmp_path: Path) -> None:
    rows = [("u", "gone", "click", 1, None), ("u", "kept", "click", 2, None)]
    dataset, table = sample(tmp_path, rows, EVERYTHING, catalog=["kept", "new"])
    assert dataset.splits[0].positives_outside_candidates == 1
    assert table["item_id"].to_pylist() == ["gone", "new", "kept", "new"]


def test_nothing_left_names_the_counts_and_the_settings(tmp_path: Path) -> None:
    rows = [("u", "x", "click", 1, None), ("v", "x", "click", 1, None)]
    with pytest.raises(NoPositivesError) as caught:
        sample(tmp_path, rows, SamplingParams(min_interactions_per_user=2, min_interactions_per_item=3))
    assert caught.value.attributes == {
        "pairs": "2",
        "core_pairs": "0",
        "min_interactions_per_user": "2",
        "min_interactions_per_item": "3",
    }
    assert "min_interactions_per_item = 3 keeps none. Lower the two settings, or" in caught.value.message
    with pytest.raises(NoPositivesError) as caught:
        sample(tmp_path, rows, replace(EVERYTHING, positive_types=("like",)))
    assert caught.value.attributes["core_pairs"] == "2"
    assert "keeps 2, none of them of a positive type (like). Lower the two" in caught.value.message


def test_nothing_before_as_of_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoInteractionsError) as caught:
        sample(tmp_path, [("u", "x", "click", 1_000_000, None)], catalog=["x"], as_of_us=1_000_000)
    assert caught.value.attributes == {"as_of": "1970-01-01T00:00:01Z"}


@pytest.mark.parametrize("files", [0, 1])
def test_no_rows_say_so(tmp_path: Path, files: int) -> None:
    with pytest.raises(NoInteractionsError) as caught:
        sample(tmp_path, [], files=files)
    assert caught.value.attributes == {"as_of": ""}


def test_progress_counts_the_shards_of_each_step(tmp_path: Path) -> None:
    config = StoreConfig(str(tmp_path))
    steps = []
    files = store_rows(config, generated_rows(6))
    run = make_dataset(
        Inline(config),
        files,
        None,
        shards(3),
        None,
        SamplingParams(),
        PartSink("training-data/t/"),
        lambda *step: steps.append(step),
    )
    asyncio.run(run)
    assert list(dict.fromkeys(step for step, _, _ in steps)) == ["read", "pairs", "core", "sample"]
    assert steps[:2] == [("read", 0, 1), ("read", 1, 1)]
    assert steps[2:6] == [("pairs", done, 3) for done in range(4)]
    assert steps[-1] == ("sample", 3, 3)


def weights_of(events: Sequence[int], **params: Any) -> list[float]:
    parts = components(SamplingParams(**params), pa.array(events, pa.int64()).to_numpy())
    return [sum(weights) for weights in zip(*(part.weights.tolist() for part in parts), strict=True)]


def test_weights_are_those_of_the_strategy() -> None:
    events = [0, 15, 3, 0]
    assert weights_of(events, strategy="uniform") == [1, 1, 1, 1]
    assert weights_of(events, strategy="popularity") == [1, 8, 2.0**1.5, 1]
    assert weights_of(events, strategy="popularity", alpha=0.0) == [1, 1, 1, 1]
    assert weights_of(events, strategy="zipf") == [1 / 3, 1, 1 / 2, 1 / 4]
    assert weights_of(events, strategy="zipf", zipf_exponent=2.0) == pytest.approx([1 / 9, 1, 1 / 4, 1 / 16])
    assert weights_of(events, strategy="zipf", zipf_exponent=0.0) == [1, 1, 1, 1]
    assert weights_of([0, 0], strategy="mixed") == pytest.approx([0.5, 0.5])
    assert weights_of([0, 2], strategy="mixed", alpha=1.0, uniform_share=0.2) == pytest.approx([0.3, 0.7])
    assert weights_of([0, 2], strategy="mixed", uniform_share=1.0) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("params", "same"),
    [
        ({"strategy": "popularity", "alpha": 0.0}, {"strategy": "uniform"}),
        ({"strategy": "zipf", "zipf_exponent": 0.0}, {"strategy": "uniform"}),
        ({"same_category_share": 0.0}, {}),
        # Nothing happens before any positive.
        ({"available_only": True, "seed": 3}, {"seed": 3}),
    ],
)
def test_some_parameters_draw_as_others_do(tmp_path: Path, params: Any, same: Any) -> None:
    rows = [("first", f"item {item:02}", "view", -1, None) for item in range(40)] + generated_rows(8)
    rows = [(user, item[:5] + item[5:].zfill(2), *rest) for user, item, *rest in rows]
    catalog = {f"item {item:02}": str(item % 3) for item in range(40)}
    tables = [
        sample(tmp_path, rows, SamplingParams(**options), catalog=catalog)[1] for options in (params, same)
    ]
    drawn = [table.drop_columns(["negative_source"]) for table in tables]
    assert drawn[0].equals(drawn[1])


def test_powers_of_ranks_are_right_to_the_last_digits() -> None:
    weights = weights_of(range(3_000, 0, -1), strategy="zipf", zipf_exponent=1.7)
    assert weights == pytest.approx([rank**-1.7 for rank in range(1, 3_001)], rel=1e-14)


def test_exposures_are_drawn_alike_often_and_before_all_others(tmp_path: Path) -> None:
    rows = [
        (f"user {user}", f"seen {item}", "view", item, None) for user in range(1_000) for item in range(5)
    ]
    # Of these one is viewed later, and one is bought after all.
    rows += [(f"user {user}", "seen 4", "purchase", 9, None) for user in range(1_000)]
    rows += [(f"user {user}", "own", "click", 2, None) for user in range(1_000)]
    params = replace(EVERYTHING, strategy="exposed", negative_ratio=2, seed=5)
    _, table = sample(
        tmp_path, rows, params, catalog=["own", "other", *(f"seen {item}" for item in range(5))]
    )
    own = table.filter(pa.compute.equal(table["timestamp"], table["timestamp"][0]))
    drawn = own.filter(pa.compute.equal(own["label"], 0.0))
    assert set(drawn["negative_source"].to_pylist()) == {"exposed"}
    assert set(drawn["sampling_prob"].to_pylist()) == {1 / 3}
    items = drawn["item_id"].to_pylist()
    pairs = Counter(zip(items[::2], items[1::2], strict=True))
    statistic = sum((pairs[pair] - 1_000 / 6) ** 2 / (1_000 / 6) for pair in pairs)
    assert set(pairs) == set(itertools.permutations(["seen 0", "seen 1", "seen 2"], 2))
    assert statistic < 5 + 4.5 * math.sqrt(2 * 5)


def test_rows_of_a_mixture_name_each_source_as_often_as_it_draws(tmp_path: Path) -> None:
    rows = [(f"fan {fan}", f"hit {int(9 * (fan / 900) ** 3)}", "view", fan, None) for fan in range(900)]
    rows += [(f"user {user}", "own", "click", user, None) for user in range(4000)]
    params = replace(EVERYTHING, strategy="mixed", uniform_share=0.4, negative_ratio=1, seed=3)
    _, table = sample(tmp_path, rows, params)
    drawn = table.filter(pa.compute.equal(table["label"], 0.0)).select(["item_id", "negative_source"])
    found = Counter(tuple(row.values()) for row in drawn.to_pylist())
    expected = Expected(rows, params)
    free = sorted(expected.free("user 0"))
    uniform = 0.4 / len(expected.candidates)
    total = sum(expected.weights[item] for item in free)
    hits = {(item, "uniform"): 4000 * uniform / total for item in free}
    hits |= {(item, "popularity"): 4000 * (expected.weights[item] - uniform) / total for item in free}
    statistic = sum((found[cell] - hits[cell]) ** 2 / hits[cell] for cell in hits)
    freedom = len(hits) - 1
    assert sum(found.values()) == 4000
    assert statistic < freedom + 4.5 * math.sqrt(2 * freedom)


def test_online_retail_gives_the_counts_of_its_readme(tmp_path: Path) -> None:
    with (RETAIL / "interactions.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            (
                row["user_id"],
                row["item_id"],
                row["interaction_type"],
                int(datetime.fromisoformat(row["timestamp"]).timestamp()) * 1_000_000,
                None,
            )
            for row in csv.DictReader(file)
            if row["user_id"] and row["interaction_type"] == "purchase"
        ]
    with (RETAIL / "items.csv").open(encoding="utf-8", newline="") as file:
        catalog = [row["item_id"] for row in csv.DictReader(file) if row["title"]]
    dataset, table = sample(tmp_path, rows, catalog=catalog)
    assert (len(rows), len(set(rows))) == (6_950 + 658, 6_950)
    assert (dataset.core_pairs, dataset.core_users, dataset.core_items) == (4_349, 239, 466)
    (whole,) = dataset.splits
    assert (whole.positives, whole.negatives, whole.negatives_short) == (4_264, 17_056, 0)
    assert dataset.candidates == 2_001
    assert_right(table, Expected(rows, SamplingParams(), catalog), SamplingParams())


def _many_rows(tmp_path: Path, admit: Any) -> Any:
    """A training set of 120,000 rows in parts of a store, if it is admitted."""
    rows = [(f"u{n % 500}", f"item-{n * n % 3001}", "click", n, None) for n in range(6_000)]
    config = StoreConfig(str(tmp_path))
    params = replace(EVERYTHING, negative_ratio=19)
    files = store_rows(config, rows)
    run = make_dataset(
        Inline(config), files, None, shards(3), None, params, PartSink("training-data/t/x/"), admit=admit
    )
    return asyncio.run(run)


def test_its_size_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_compute.training.run.FORECAST_ROWS", 1000)
    told: list[int] = []

    async def admit(needed_bytes: int, written_bytes: int) -> None:
        assert written_bytes == 0
        assert not (tmp_path / "training-data").exists()
        told.append(needed_bytes)

    made = _many_rows(tmp_path, admit)
    size = sum(part.size_bytes for part in made.parts)
    assert 0.9 * size < told[0] < 1.3 * size
    assert len(told) == 1


def test_without_room_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_compute.training.run.FORECAST_ROWS", 1000)

    async def refuse(needed_bytes: int, written_bytes: int) -> None:
        raise StoreFullError("full")

    with pytest.raises(StoreFullError):
        _many_rows(tmp_path, refuse)
    assert not (tmp_path / "training-data").exists()


def test_pieces_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _many_rows(tmp_path / "whole", admit_all)
    monkeypatch.setattr(negatives, "PIECE_ROWS", 700)
    pieces = _many_rows(tmp_path / "pieces", admit_all)
    assert [part.checksum for part in pieces.parts] == [part.checksum for part in whole.parts]


def test_a_stage_that_is_cancelled_while_it_draws_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "PIECE_ROWS", 700)
    drawn = 0
    draw = sampling.draw_negatives

    def counted(*args: Any) -> Any:
        nonlocal drawn
        drawn += 1
        return draw(*args)

    monkeypatch.setattr(draws, "draw_negatives", counted)
    cancellation.watch(lambda: drawn == 5)
    try:
        with pytest.raises(StageCancelledError):
            _many_rows(tmp_path, admit_all)
    finally:
        cancellation.watch(lambda: False)
    assert drawn == 5
    assert not (tmp_path / "training-data").exists()
