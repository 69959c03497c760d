"""Plots how often each item is drawn as a negative, strategy by strategy, beside what docs/semantics.md says.

    python clients/python/examples/plot_negatives.py [--address HOST:PORT] [-o docs/negatives.svg]

It uploads the shop of `headrace generate`, samples first draws (one negative a positive) with several seeds,
and computes the expected share of each item from the interactions alone: over all positives the mean of the
probability with which the formula draws the item for that user. `chi²/df` is near 1 where the two agree, or
below, as users' chances differ.
"""

import argparse
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import Client
from headrace.connection import DEFAULT_ADDRESS
from headrace.sample import Sample, generate

SHOP = Sample(users=1_000, items=400, interactions=100_000, seed=1)
SEEDS = 40
ALPHA, EXPONENT, UNIFORM_SHARE = 0.75, 1.0, 0.5
"""The defaults of the parameters."""

WIDTH, HEIGHT, MARGIN = 330, 230, 46
"""Of a panel, in pixels."""

DRAWN, EXPECTED = "#2a78d6", "#1a1a1a"


@dataclass(frozen=True)
class Shop:
    """The source by number.

    Attributes:
        users, items: Sorted ids.
        events: int64 (items).
        known: bool (users, items), whether there is any event.
        first_view_us: int64 (users, items), of pairs with views and nothing else; elsewhere the largest.
    """

    users: pa.Array
    items: pa.Array
    events: np.ndarray
    known: np.ndarray
    first_view_us: np.ndarray


def numbers(ids: pa.Array, column: pa.ChunkedArray) -> np.ndarray:
    """The number of each id."""
    found: np.ndarray = pc.index_in(column, ids).to_numpy()
    return found


def read_shop(client: Client, tenant: str) -> Shop:
    """The interactions, and the catalog that candidates are from."""
    columns = ["user_id", "item_id", "interaction_type", "timestamp"]
    rows = client.read_table(tenant, "interactions", columns=columns)
    items = client.read_table(tenant, "items", columns=["item_id"])["item_id"].unique().sort()
    users = rows["user_id"].unique().sort()
    user, item = numbers(users, rows["user_id"]), numbers(items, rows["item_id"])
    is_view = pc.equal(rows["interaction_type"], "view").to_numpy()
    shape, never = (len(users), len(items)), np.iinfo(np.int64).max
    known, acted = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    first_view_us = np.full(shape, never)
    known[user, item] = True
    acted[user[~is_view], item[~is_view]] = True
    np.minimum.at(first_view_us, (user, item), rows["timestamp"].cast(pa.int64()).to_numpy())
    first_view_us[acted] = never
    return Shop(users, items, np.bincount(item, minlength=len(items)), known, first_view_us)


def popularity(shop: Shop) -> np.ndarray:
    """(1 + events)^alpha."""
    weights: np.ndarray = (1.0 + shop.events) ** ALPHA
    return weights


def zipf(shop: Shop) -> np.ndarray:
    """rank^-exponent."""
    weights = np.empty(len(shop.items))
    weights[np.argsort(-shop.events, kind="stable")] = np.arange(1, len(shop.items) + 1) ** -EXPONENT
    return weights


def mixed(shop: Shop) -> np.ndarray:
    """Uniform and popularity, each normalised."""
    popular = popularity(shop)
    weights: np.ndarray = UNIFORM_SHARE / len(popular) + (1.0 - UNIFORM_SHARE) * popular / popular.sum()
    return weights


WEIGHTS: dict[str, Callable[[Shop], np.ndarray]] = {
    "uniform": lambda shop: np.ones(len(shop.items)),
    "popularity": popularity,
    "zipf": zipf,
    "mixed": mixed,
    "exposed": popularity,
}


def expected(shop: Shop, strategy: str, users: np.ndarray, times_us: np.ndarray) -> np.ndarray:
    """How many first draws of some positives each item should have, in the mean.

    Args:
        users, times_us: Of each positive.
    """
    free = np.where(shop.known, 0.0, WEIGHTS[strategy](shop))
    chances = free / free.sum(axis=1, keepdims=True)
    if strategy != "exposed":
        found: np.ndarray = np.bincount(users, minlength=len(shop.users)) @ chances
        return found
    exposures = shop.first_view_us[users] <= times_us[:, None]
    counts = exposures.sum(axis=1, keepdims=True)
    each = np.where(counts > 0, exposures / np.maximum(1, counts), chances[users])
    total: np.ndarray = each.sum(axis=0)
    return total


def draws(client: Client, tenant: str, shop: Shop, strategy: str) -> tuple[np.ndarray, np.ndarray]:
    """How often each item was drawn, and how often it should have been, over all seeds."""
    drawn, theory = np.zeros(len(shop.items)), np.zeros(len(shop.items))
    for seed in range(SEEDS):
        made = client.sample_negatives(tenant, strategy=strategy, negative_ratio=1, seed=seed)
        columns = ["user_id", "item_id", "label", "timestamp"]
        data = client.training_data(tenant, version=made.output.version, columns=columns)
        rows = pa.Table.from_batches(list(data))
        positive = rows.filter(pc.equal(rows["label"], 1.0))
        negative = rows.filter(pc.equal(rows["label"], 0.0))
        drawn += np.bincount(numbers(shop.items, negative["item_id"]), minlength=len(shop.items))
        times_us = positive["timestamp"].cast(pa.int64()).to_numpy()
        theory += expected(shop, strategy, numbers(shop.users, positive["user_id"]), times_us)
    return drawn, theory


def chi2(drawn: np.ndarray, theory: np.ndarray) -> float:
    """Pearson's statistic for each degree of freedom."""
    return float(((drawn - theory) ** 2 / theory).sum() / (len(drawn) - 1))


def panel(title: str, shop: Shop, drawn: np.ndarray, theory: np.ndarray) -> str:
    """One strategy: shares over the rank by events, both in powers of ten; 1 is an equal share."""
    order = np.argsort(-shop.events, kind="stable")
    scale = len(order) / theory.sum()
    ranks = np.log10(np.arange(1, len(order) + 1))
    low, high = -1.5, 2.0

    def x(rank: float) -> float:
        return MARGIN + rank / ranks[-1] * (WIDTH - MARGIN - 12)

    def y(share: float) -> float:
        return 30 + (high - np.clip(share, low, high)) / (high - low) * (HEIGHT - 30 - 36)

    parts = [f'<text x="{MARGIN}" y="18" class="title">{title}</text>']
    parts.append(f'<text x="{WIDTH - 12}" y="18" text-anchor="end">chi²/df {chi2(drawn, theory):.2f}</text>')
    for power in (-1, 0, 1, 2):
        line = y(power)
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - 12}" y1="{line:.1f}" y2="{line:.1f}" class="grid"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{line + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for rank in (1, 10, 100):
        parts.append(
            f'<text x="{x(np.log10(rank)):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{rank}</text>'
        )
    for rank, share in zip(ranks, np.log10(np.maximum(drawn[order] * scale, 1e-9)), strict=True):
        parts.append(f'<circle cx="{x(rank):.1f}" cy="{y(share):.1f}" r="1.8" class="drawn"/>')
    line = " ".join(
        f"{x(rank):.1f},{y(share):.1f}"
        for rank, share in zip(ranks, np.log10(theory[order] * scale), strict=True)
    )
    return "\n".join([*parts, f'<polyline points="{line}" class="theory"/>'])


def picture(panels: list[str], first_draws: int) -> str:
    """All strategies, three a row, and how to read them."""
    columns, rows = 3, -(-len(panels) // 3)
    style = (
        "text{font:11px sans-serif;fill:#444}.title{font-weight:bold;font-size:13px;fill:#1a1a1a}"
        f".grid{{stroke:#e4e4e4}}.drawn{{fill:{DRAWN};fill-opacity:.55}}"
        f".theory{{fill:none;stroke:{EXPECTED};stroke-width:1.2}}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * WIDTH} {rows * HEIGHT}">',
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, content in enumerate(panels):
        place = f"{number % columns * WIDTH},{number // columns * HEIGHT}"
        parts.append(f'<g transform="translate({place})">{content}</g>')
    left, top = (len(panels) % columns) * WIDTH + MARGIN, (rows - 1) * HEIGHT + 46
    legend = (
        "x: rank of the item by its events",
        "y: share of the draws; 1 is an equal share",
        f"dots: drawn, {first_draws:,} first draws",
        "line: by the formula, less what users know",
    )
    for number, text in enumerate(legend):
        parts.append(f'<text x="{left}" y="{top + 20 * number}">{text}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    """Uploads, samples, plots."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--address", default=DEFAULT_ADDRESS)
    options.add_argument("-o", "--output", type=Path, default=Path("docs/negatives.svg"))
    given = options.parse_args()
    tenant = f"plot-{uuid.uuid4().hex[:8]}"
    with Client(given.address) as client, tempfile.TemporaryDirectory() as folder:
        made = generate(SHOP, Path(folder))
        client.upload(tenant, "items", made.items)
        client.upload(tenant, "interactions", made.interactions)
        shop, panels, total = read_shop(client, tenant), [], 0
        for strategy in WEIGHTS:
            drawn, theory = draws(client, tenant, shop, strategy)
            panels.append(panel(strategy, shop, drawn, theory))
            total = int(drawn.sum())
            print(f"{strategy:10}  {total:,} first draws, chi²/df {chi2(drawn, theory):.2f}")
    given.output.write_text(picture(panels, total), encoding="utf-8")


if __name__ == "__main__":
    main()
