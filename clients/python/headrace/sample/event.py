"""The interactions of the made-up shop: a funnel, spread over the days.

Every visit is a view. Some views go on to a click; some clicks to a like, or
into the cart; some carts to a purchase; some purchases are rated. Evenings are
busier than nights. No two interactions have the same time, so none is a duplicate.
"""

from dataclasses import dataclass

from headrace.arrow import np, pa, pc
from headrace.sample.draw import Flags, Floats, Ints
from headrace.sample.shop import Shop, visits

COLUMNS = ("user_id", "item_id", "interaction_type", "timestamp", "rating")
TYPES = ("view", "click", "like", "add_to_cart", "purchase")

CLICK, LIKE, CART, PURCHASE, RATED = 0.24, 0.15, 0.25, 0.5, 0.6
"""Chance of each step, once the step before it was taken."""

LATEST_MS = np.array([0, 60_000, 120_000, 300_000, 1_200_000])
"""How long after the visit each type happens, at the latest."""

DAY_MS = 86_400_000
HOUR_WEIGHTS = np.array([3, 2, 1, 1, 1, 2, 3, 5, 6, 7, 7, 7, 8, 8, 7, 7, 8, 9, 11, 13, 14, 12, 9, 5])
"""How busy each hour of a day is, UTC."""

RATINGS = ("", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5", "5.0")


@dataclass(frozen=True)
class Slice:
    """Some of the interactions: `rows` of them, in [first_ms, end_ms), milliseconds since the epoch."""

    number: int
    rows: int
    first_ms: int
    end_ms: int


def event_lines(
    shop: Shop, users: pa.Array, items: pa.Array, part: Slice, draw: np.random.Generator
) -> pa.Array:
    """Some records of interactions.csv, by time, each with its line end.

    Args:
        shop: What visits are drawn from.
        users: The ids of the users.
        items: The ids of the items.
        part: How many, and when; it must have more milliseconds than rows.
        draw: Their randomness.

    Returns:
        An array of `part.rows` binary values.
    """
    user, item = visits(shop, part.rows, draw)
    visit, kind, rated = _funnel(part.rows, draw)
    times = _event_times(visit, kind, part, draw)
    rating = np.where(rated, _ratings(shop.quality[item[visit]], draw.random(part.rows)), 0)

    by_time = np.argsort(times, kind="stable")
    visit, kind, rating = visit[by_time], kind[by_time], rating[by_time]
    stamps = pa.array(_distinct(times[by_time], part), pa.timestamp("ms")).cast(pa.string())
    record = pc.binary_join_element_wise(
        users.take(pa.array(user[visit])),
        items.take(pa.array(item[visit])),
        pa.array(TYPES).take(pa.array(kind)),
        pc.replace_substring(stamps, " ", "T"),
        ",",
    )
    ends = pa.array([f"Z,{text}\n" for text in RATINGS]).take(pa.array(rating))
    return pc.binary_join_element_wise(record, ends, "").cast(pa.binary())


def _funnel(rows: int, draw: np.random.Generator) -> tuple[Ints, Ints, Flags]:
    """How far visits go: for each event its visit, its type, and whether it is rated."""
    chance = draw.random((rows, 5))
    view = np.ones(rows, dtype=bool)
    click = chance[:, 0] < CLICK
    like = click & (chance[:, 1] < LIKE)
    cart = click & (chance[:, 2] < CART)
    purchase = cart & (chance[:, 3] < PURCHASE)
    # Every visit has at least one event, so the first `rows` of them are there.
    visit, kind = np.nonzero(np.stack([view, click, like, cart, purchase], axis=1))
    visit, kind = visit[:rows], kind[:rows]
    return visit, kind, (kind == TYPES.index("purchase")) & (chance[visit, 4] < RATED)


def _event_times(visit: Ints, kind: Ints, part: Slice, draw: np.random.Generator) -> Ints:
    """When each event happens: soon after its visit."""
    visited = part.first_ms + draw.random(part.rows) * (part.end_ms - part.first_ms)
    delays = draw.random(part.rows) * LATEST_MS[kind]
    times: Ints = busy_time(visited)[visit] + delays.astype(np.int64)
    return times


def busy_time(times_ms: Floats) -> Ints:
    """Even times moved within their day, so that more of them lie in the busy hours.

    It keeps order, and midnight in its place.
    """
    days = times_ms / DAY_MS
    day = np.floor(days)
    passed = np.concatenate([[0.0], np.cumsum(HOUR_WEIGHTS) / HOUR_WEIGHTS.sum()])
    moved = day + np.interp(days - day, passed, np.arange(25) / 24)
    return np.asarray(moved * DAY_MS, dtype=np.int64)


def _distinct(times_ms: Ints, part: Slice) -> Ints:
    """Sorted times, moved by as little as makes them distinct and keeps them inside."""
    order = np.arange(len(times_ms))
    first_ms, end_ms = busy_time(np.array([part.first_ms, part.end_ms], dtype=float))
    later = np.maximum.accumulate(np.maximum(times_ms, first_ms) - order) + order
    times: Ints = np.minimum(later, end_ms - len(times_ms) + order)
    return times


def _ratings(quality: Floats, chance: Floats) -> Ints:
    """Indices into RATINGS: around the item's quality, in half stars."""
    steps = np.rint((0.25 + 0.55 * quality + 0.5 * (chance - 0.5)) * 8)
    return 1 + np.clip(steps, 0, 8).astype(np.int64)
