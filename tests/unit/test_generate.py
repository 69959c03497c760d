"""Sample data: deterministic, as described, and dirty in every way that is asked for."""

import csv
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace.sample import DEFAULT_END, Sample, generate

Rows = list[dict[str, str]]

SMALL = Sample(users=300, items=200, interactions=3_000, seed=5)


def rows_of(file: Path) -> Rows:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        return list(csv.DictReader(opened))


def made(sample: Sample, folder: Path) -> tuple[Rows, Rows]:
    files = generate(sample, folder)
    return rows_of(files.items), rows_of(files.interactions)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, Rows]:
    """The items and interactions that `headrace generate` makes without options."""
    return made(Sample(), tmp_path_factory.mktemp("default"))


def test_equal_samples_give_equal_bytes_and_other_seeds_other_bytes(tmp_path: Path) -> None:
    sample = Sample(users=300, items=200, interactions=3_000, seed=5, dirty=0.05)
    first, second = generate(sample, tmp_path / "a"), generate(sample, tmp_path / "b")
    for name in ("items", "interactions", "expected"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()
    other = generate(Sample(users=300, items=200, interactions=3_000, seed=6), tmp_path / "c")
    assert other.interactions.read_bytes() != first.interactions.read_bytes()


def test_files_have_exactly_as_many_records_as_asked(tmp_path: Path) -> None:
    items, interactions = made(SMALL, tmp_path)
    assert (len(items), len(interactions)) == (200, 3_000)
    items, interactions = made(Sample(users=300, items=200, interactions=3_000, dirty=0.1), tmp_path)
    assert len(items) == 200
    assert len(interactions) == 3_000


def test_defaults_are_those_of_the_specification(default: tuple[Rows, Rows]) -> None:
    items, interactions = default
    assert (len(items), len(interactions)) == (5_000, 100_000)
    assert len({row["user_id"] for row in interactions}) > 9_000
    assert len({row["category"] for row in items}) == 12


def test_interactions_lie_in_the_ninety_days_before_end_in_order(tmp_path: Path) -> None:
    end = datetime(2025, 3, 1, 12, tzinfo=UTC)
    _, interactions = made(Sample(users=50, items=40, interactions=2_000, end=end), tmp_path)
    times = [datetime.fromisoformat(row["timestamp"]) for row in interactions]
    assert end - timedelta(days=90) <= min(times)
    assert max(times) < end
    assert times == sorted(times)
    assert DEFAULT_END.year == 2026


def test_popularity_is_skewed_so_that_a_fifth_of_the_items_draws_four_fifths(
    default: tuple[Rows, Rows],
) -> None:
    counts = sorted(Counter(row["item_id"] for row in default[1]).values(), reverse=True)
    assert sum(counts[:1_000]) / sum(counts) == pytest.approx(0.8, abs=0.05)


def test_the_funnel_narrows(default: tuple[Rows, Rows]) -> None:
    kinds = Counter(row["interaction_type"] for row in default[1])
    assert kinds["view"] > kinds["click"] > kinds["add_to_cart"] > kinds["purchase"] > 0
    assert kinds["like"] > 0


def test_ratings_are_on_some_purchases_only_and_in_range(default: tuple[Rows, Rows]) -> None:
    rated = [row for row in default[1] if row["rating"]]
    purchases = [row for row in default[1] if row["interaction_type"] == "purchase"]
    assert {row["interaction_type"] for row in rated} == {"purchase"}
    assert 0 < len(rated) < len(purchases)
    assert all(1 <= float(row["rating"]) <= 5 for row in rated)


def test_users_have_tastes(default: tuple[Rows, Rows]) -> None:
    items, interactions = default
    category = {row["item_id"]: row["category"] for row in items}
    by_user: dict[str, Counter[str]] = defaultdict(Counter)
    for row in interactions:
        by_user[row["user_id"]][category[row["item_id"]]] += 1
    busy = [counts for counts in by_user.values() if counts.total() >= 10]
    favourite_two = sum(sum(n for _, n in counts.most_common(2)) for counts in busy)
    assert favourite_two / sum(counts.total() for counts in busy) > 0.6


def test_at_least_half_the_users_survive_the_default_sampling(default: tuple[Rows, Rows]) -> None:
    pairs = {(row["user_id"], row["item_id"]) for row in default[1]}
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        kept = {(user, item) for user, item in pairs if users[user] >= 5 and items[item] >= 5}
        if kept == pairs:
            break
        pairs = kept
    positives = {
        row["user_id"]
        for row in default[1]
        if row["interaction_type"] in ("click", "purchase", "like")
        and (row["user_id"], row["item_id"]) in pairs
    }
    assert len(positives) >= 5_000


def test_clean_data_keeps_the_contract_and_has_no_duplicates(default: tuple[Rows, Rows]) -> None:
    items, interactions = default
    assert len({tuple(row.values()) for row in interactions}) == len(interactions)
    assert len({row["item_id"] for row in items}) == len(items)
    assert all(row["title"] and float(row["price"]) >= 0 for row in items)
    assert {row["item_id"] for row in interactions} <= {row["item_id"] for row in items}


def judged(line: list[str], columns: list[str]) -> set[tuple[str, str]]:
    """The rules a record breaks, as SEMANTICS states them, for the faults the generator knows."""
    if len(line) != len(columns):
        return {("", "WRONG_FIELD_COUNT")}
    limits = {
        "user_id": 256,
        "item_id": 256,
        "title": 1024,
        "category": 256,
        "brand": 256,
        "description": 16_384,
    }
    required = {"user_id", "item_id", "interaction_type", "timestamp", "title"}
    broken = set()
    if line[0].endswith(" (new)"):
        # What a lenient reader makes of text behind a closing quote.
        return {("", "BAD_QUOTE")}
    for column, value in zip(columns, line, strict=True):
        data = value.encode(errors="surrogateescape")
        if not data:
            if column in required:
                broken.add((column, "MISSING"))
            continue
        if len(data) > limits.get(column, len(data)):
            broken.add((column, "TOO_LONG"))
        if b"\xff" in data or (column in ("user_id", "item_id") and any(byte < 32 for byte in data)):
            broken.add((column, "BAD_TEXT"))
        if column == "interaction_type" and value not in ("view", "click", "purchase", "like", "add_to_cart"):
            broken.add((column, "NOT_IN_SET"))
        if column == "timestamp":
            try:
                if datetime.fromisoformat(value) > datetime(2100, 1, 1, tzinfo=UTC):
                    broken.add((column, "FUTURE_TIMESTAMP"))
            except ValueError:
                broken.add((column, "BAD_TIMESTAMP"))
        if column in ("rating", "price"):
            try:
                number = float(value)
                if number != number or abs(number) == float("inf"):
                    broken.add((column, "BAD_NUMBER"))
                elif not (1 <= number <= 5 if column == "rating" else number >= 0):
                    broken.add((column, "OUT_OF_RANGE"))
            except ValueError:
                broken.add((column, "BAD_NUMBER"))
    return broken


@pytest.mark.parametrize("rate", [0.001, 0.2])
@pytest.mark.parametrize("name", ["items", "interactions"])
def test_expected_counts_are_what_an_independent_reader_finds(tmp_path: Path, name: str, rate: float) -> None:
    files = generate(Sample(users=300, items=500, interactions=3_000, seed=2, dirty=rate), tmp_path)
    expected = json.loads(files.expected.read_text())[name]
    with getattr(files, name).open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        header, *lines = csv.reader(opened)
    checks: Counter[tuple[str, str]] = Counter()
    accepted: set[tuple[str, ...]] = set()
    for line in lines:
        broken = judged(line, header)
        if not broken and tuple(line) in accepted:
            broken = {("", "DUPLICATE")}
        checks.update(broken)
        if not broken:
            accepted.add(tuple(line))
    assert expected["rows_received"] == len(lines)
    assert expected["rows_accepted"] == len(accepted)
    assert expected["rows_rejected"] == len(lines) - len(accepted)
    assert expected["rows_duplicate"] == checks["", "DUPLICATE"]
    assert {(c["column"], c["code"]): c["failing_rows"] for c in expected["checks"]} == checks


def test_every_reject_code_that_csv_can_have_occurs_at_any_rate(tmp_path: Path) -> None:
    files = generate(Sample(users=300, items=200, interactions=3_000, dirty=0.0001), tmp_path)
    codes = {check["code"] for checks in files.counts.values() for check in checks["checks"]}
    assert codes == {
        "MISSING",
        "TOO_LONG",
        "BAD_TEXT",
        "NOT_IN_SET",
        "BAD_TIMESTAMP",
        "FUTURE_TIMESTAMP",
        "BAD_NUMBER",
        "OUT_OF_RANGE",
        "BAD_QUOTE",
        "WRONG_FIELD_COUNT",
        "DUPLICATE",
    }


def test_the_rate_is_kept(tmp_path: Path) -> None:
    files = generate(Sample(users=300, items=200, interactions=3_000, dirty=0.1), tmp_path)
    assert files.counts["interactions"]["rows_rejected"] == 300


def test_too_few_records_to_be_dirty_in_every_way_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 records, too few .* make \d+"):
        generate(Sample(interactions=3, dirty=0.1), tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"users": 0}, {"interactions": 0}, {"seed": -1}, {"dirty": 0.6}, {"dirty": -0.1}]
)
def test_what_cannot_be_made_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sample(**wrong)


def test_one_user_one_item_one_interaction_can_be_made(tmp_path: Path) -> None:
    items, interactions = made(Sample(users=1, items=1, interactions=1), tmp_path)
    assert len(items) == len(interactions) == 1


def test_slices_of_time_join_without_gap_or_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.sample.files.SLICE_ROWS", 700)
    _, interactions = made(Sample(users=50, items=40, interactions=3_000), tmp_path)
    times = [datetime.fromisoformat(row["timestamp"]) for row in interactions]
    assert len(times) == 3_000
    assert all(before < after for before, after in pairwise(times))
    assert max(after - before for before, after in pairwise(times)) < timedelta(days=1)
