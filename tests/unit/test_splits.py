"""Splits of training data, against docs/semantics.md in plain Python."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from harness.sampling import NO_CORE, bucket, core_of, first_positives, make, views_of
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import NoInteractionsError, NoPositivesError
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.split import LEAVE_LAST_OUT, TEMPORAL, Split

KINDS = ("view", "click", "purchase", "like", "add_to_cart")


class Expected:
    """What the specification says of a split run; all but which negatives are drawn."""

    def __init__(self, rows: list[Any], params: SamplingParams, catalog: Any) -> None:
        rows = sorted(set(rows))
        names, views, self.cuts = views_of(rows, params)
        train = views[0]
        self.core = core_of(
            {row[:2] for row in train}, params.min_interactions_per_user, params.min_interactions_per_item
        )
        users, items = {user for user, _ in self.core}, {item for _, item in self.core}
        events = Counter(row[1] for row in train)
        candidates = set(catalog or ()) or set(events)
        self.weights = {item: (1 + events[item]) ** params.alpha for item in candidates}
        self.since: dict[str, float] = dict.fromkeys(candidates, math.inf if params.available_only else 0)
        for row in train if params.available_only else ():
            self.since[row[1]] = min(row[3], self.since.get(row[1], math.inf))
        self.splits = {}
        earlier: dict[Any, int] = {}
        for name, seen in zip(names, views, strict=True):
            positives = first_positives(seen, params.positive_types)
            own = {pair: time for pair, time in positives.items() if pair not in earlier}
            kept = {pair: time for pair, time in own.items() if pair[0] in users and pair[1] in items}
            if name == "train" and params.max_interactions_per_user:
                kept = dict(
                    pair
                    for user in users
                    for pair in sorted(
                        ((pair, time) for pair, time in kept.items() if pair[0] == user),
                        key=lambda each: (-each[1], each[0][1].encode()),
                    )[: params.max_interactions_per_user]
                )
            known = {(user, item) for user, item, *_ in seen}
            dropped = [pair for pair in own if pair[0] not in users]
            others = [pair for pair in own if pair[0] in users and pair[1] not in items]
            self.splits[name] = kept, known, len(dropped), len(others)
            earlier = positives

    def check(self, dataset: Any, table: pa.Table, params: SamplingParams) -> None:
        rows = iter(table.to_pylist())
        row: Any = next(rows, None)
        assert dataset.cuts_us == self.cuts
        assert [split.name for split in dataset.splits] == list(self.splits)
        for made, (name, (kept, known, without_user, without_item)) in zip(
            dataset.splits, self.splits.items(), strict=True
        ):
            ratio = params.negative_ratio
            if name != "train" and params.eval_negative_ratio is not None:
                ratio = params.eval_negative_ratio
            in_order = sorted(
                (bucket(user), user.encode(), time, item.encode(), user, item)
                for (user, item), time in kept.items()
            )
            drawn = 0
            for _, _, time, _, user, item in in_order:
                assert (row["split"], row["user_id"], row["item_id"], row["label"]) == (name, user, item, 1.0)
                assert row["timestamp"].timestamp() * 1_000_000 == pytest.approx(time)
                group, row = row["group_id"], next(rows, None)
                free = [
                    item for item in self.weights if (user, item) not in known and self.since[item] <= time
                ]
                total = math.fsum(self.weights[item] for item in free)
                found = []
                for _ in range(min(ratio, len(free))):
                    assert (row["split"], row["group_id"], row["label"]) == (name, group, 0.0)
                    assert row["sampling_prob"] == pytest.approx(self.weights[row["item_id"]] / total)
                    found.append(row["item_id"])
                    row = next(rows, None)
                assert set(found) <= set(free)
                assert len(set(found)) == len(found)
                drawn += len(found)
            assert (made.positives, made.negatives) == (len(kept), drawn)
            assert made.negatives_short == ratio * len(kept) - drawn
            assert (made.positives_without_user, made.positives_without_item) == (without_user, without_item)
        assert row is None


splits = st.one_of(
    st.just(Split(LEAVE_LAST_OUT)),
    st.lists(st.integers(1, 12), min_size=1, max_size=2, unique=True).map(
        lambda cuts: Split(TEMPORAL, cuts_us=tuple(sorted(cuts)))
    ),
    st.lists(st.sampled_from((0.1, 0.29, 0.5, 0.7, 0.8, 0.9)), min_size=1, max_size=2, unique=True).map(
        lambda shares: Split(TEMPORAL, fractions=tuple(sorted(shares)))
    ),
)


@st.composite
def cases(draw: Any) -> Any:
    users, items = [f"u{n}" for n in range(6)], [f"i{n}" for n in range(9)]
    event = st.tuples(
        st.sampled_from(users), st.sampled_from(items), st.sampled_from(KINDS), st.integers(0, 12)
    )
    params = SamplingParams(
        seed=draw(st.integers(0, 2**64 - 1)),
        negative_ratio=draw(st.integers(1, 4)),
        max_interactions_per_user=draw(st.integers(0, 3)),
        min_interactions_per_user=draw(st.integers(0, 2)),
        min_interactions_per_item=draw(st.integers(0, 2)),
        split=draw(splits),
        eval_negative_ratio=draw(st.none() | st.integers(1, 7)),
        available_only=draw(st.booleans()),
    )
    catalog = draw(st.none() | st.lists(st.sampled_from([*items, "new"]), max_size=8, unique=True))
    return draw(st.lists(event, min_size=1, max_size=60)), params, catalog


@given(case=cases())
def test_every_split_is_what_the_specification_says(tmp_path: Path, case: Any) -> None:
    rows, params, catalog = case
    if not first_positives(rows, params.positive_types):
        with pytest.raises((NoPositivesError, NoInteractionsError)):
            make(tmp_path, rows, params, catalog=catalog)
        return
    expected = Expected(rows, params, catalog)
    if not expected.splits["train"][0]:
        with pytest.raises((NoPositivesError, NoInteractionsError)):
            make(tmp_path, rows, params, catalog=catalog)
        return
    dataset, table = make(tmp_path, rows, params, catalog=catalog)
    expected.check(dataset, table, params)
    again, same = make(tmp_path, rows[::-1], params, catalog=catalog, plan=5)
    assert same.equals(table)
    assert replace(again, parts=()) == replace(dataset, parts=())


@pytest.mark.parametrize("strategy", ["uniform", "popularity", "zipf", "mixed", "exposed"])
@given(case=cases(), cut=st.integers(1, 12))
def test_train_is_a_run_without_a_split_as_of_the_first_cut(
    tmp_path: Path, strategy: str, case: Any, cut: int
) -> None:
    rows, params, catalog = case
    params = replace(params, strategy=strategy, split=None)
    cuts = Split(TEMPORAL, cuts_us=(cut, cut + 2))
    try:
        plain, expected = make(tmp_path, rows, params, catalog=catalog, as_of_us=cut)
    except (NoInteractionsError, NoPositivesError) as error:
        with pytest.raises(type(error)):
            make(tmp_path, rows, replace(params, split=cuts), catalog=catalog)
        return
    dataset, table = make(tmp_path, rows, replace(params, split=cuts), catalog=catalog)
    train = table.filter(pc.equal(table["split"], "train"))
    assert train.drop_columns("split").equals(expected.drop_columns("split"))
    assert table.slice(0, len(train)).equals(train)
    assert (dataset.core_pairs, dataset.candidates) == (plain.core_pairs, plain.candidates)


@given(case=cases(), extra=st.integers(1, 5), cut=st.integers(1, 11))
def test_the_ratio_of_evaluation_and_later_rows_leave_train_as_it_is(
    tmp_path: Path, case: Any, extra: int, cut: int
) -> None:
    rows, params, catalog = case
    params = replace(params, split=Split(TEMPORAL, cuts_us=(cut,)))
    try:
        _, table = make(tmp_path, rows, params, catalog=catalog)
    except (NoInteractionsError, NoPositivesError):
        return
    later = [("u0", "i0", "purchase", cut), ("u1", "late", "like", cut + 1), ("someone", "i1", "view", 12)]
    more = replace(params, eval_negative_ratio=params.negative_ratio + extra)
    _, other = make(tmp_path, rows + later, more, catalog=catalog)
    trains = [each.filter(pc.equal(each["split"], "train")) for each in (table, other)]
    assert trains[0].equals(trains[1])


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            Split(TEMPORAL, cuts_us=(5,)),
            "Train sees no interactions: none is before the first cut, 1970-01-01T00:00:00.000005Z. "
            "Choose a later cut, or a larger fraction.",
        ),
        (
            Split(LEAVE_LAST_OUT),
            "Train sees no interactions: each pair is one of its user's last two positives and is held out. "
            "Upload more, or split by time.",
        ),
    ],
)
def test_a_train_that_sees_nothing_is_told_why(tmp_path: Path, split: Split, message: str) -> None:
    rows = [("u", "a", "click", 5), ("u", "b", "click", 6)]
    with pytest.raises(NoInteractionsError) as caught:
        make(tmp_path, rows, replace(NO_CORE, split=split))
    assert caught.value.message == message
