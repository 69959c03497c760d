"""Who likes what in the made-up shop, and how often they come.

- Popularity follows Zipf-Mandelbrot, (rank + shift)^-s, with s solved so that
  the top 20 % of the items draw 80 % of the interest.
- Activity varies: one part is the same for all, another is exponential.
- Every user has two favourite categories, from which 70 % of the choices come.
"""

from dataclasses import dataclass

from headrace.arrow import np
from headrace.sample.catalog import CATEGORIES
from headrace.sample.draw import Floats, Ints, draws

TOP_ITEMS, TOP_SHARE = 0.2, 0.8
RANK_SHIFT = 0.005
"""Share of the items that flattens the head, so that no single item draws everybody."""

FAVOURITES = 2
FAVOURITE_SHARE = 0.7


@dataclass(frozen=True)
class Shop:
    """What every visit is drawn from.

    Attributes:
        order: Items by category.
        starts: Where each category begins in `order`, and at last the end.
        interest: Popularity along `order`, cumulated, with a leading 0.
        activity: Of the users, cumulated.
        favourites: Categories of each user; users x FAVOURITES.
        quality: Of each item, 0 to 1: what ratings lean on.
    """

    order: Ints
    starts: Ints
    interest: Floats
    activity: Floats
    favourites: Ints
    quality: Floats


def open_shop(users: int, categories: Ints, seed: int) -> Shop:
    """The shop of a seed.

    Args:
        users: How many.
        categories: Index of its category for each item.
        seed: Any integer from 0 on.
    """
    draw = draws(seed, "popularity")
    weights = np.empty(len(categories))
    weights[np.argsort(draw.random(len(categories)))] = _popularity(len(categories))
    quality = draw.random(len(categories))
    order = np.argsort(categories, kind="stable")

    draw = draws(seed, "users")
    activity = 1.0 - np.log1p(-draw.random(users))
    favourites = (draw.random((users, FAVOURITES)) * len(CATEGORIES)).astype(np.int64)
    return Shop(
        order=order,
        starts=np.searchsorted(categories[order], np.arange(len(CATEGORIES) + 1)),
        interest=np.concatenate([[0.0], np.cumsum(weights[order])]),
        activity=np.cumsum(activity),
        favourites=favourites,
        quality=quality,
    )


def _popularity(items: int) -> Floats:
    """Weights by rank, whose exponent is found by bisection."""
    ranks = np.arange(1, items + 1) + RANK_SHIFT * items
    top = max(1, round(TOP_ITEMS * items))
    low, high = 0.0, 8.0
    for _ in range(40):
        exponent = (low + high) / 2
        weights = ranks**-exponent
        if weights[:top].sum() < TOP_SHARE * weights.sum():
            low = exponent
        else:
            high = exponent
    return np.asarray(ranks**-high, dtype=np.float64)


def visits(shop: Shop, count: int, draw: np.random.Generator) -> tuple[Ints, Ints]:
    """Users and the items they look at, `count` each."""
    users = np.searchsorted(shop.activity, draw.random(count) * shop.activity[-1], side="right")
    liked = shop.favourites[users, (draw.random(count) * FAVOURITES).astype(np.int64)]
    low, high = shop.interest[shop.starts[liked]], shop.interest[shop.starts[liked + 1]]
    # A category without items sends its friends to the whole shop.
    anything = (draw.random(count) >= FAVOURITE_SHARE) | (low == high)
    low = np.where(anything, 0.0, low)
    high = np.where(anything, shop.interest[-1], high)
    places = np.searchsorted(shop.interest, low + draw.random(count) * (high - low), side="right") - 1
    # Rounding may reach the upper end, which belongs to nobody.
    return np.minimum(users, len(shop.activity) - 1), shop.order[np.minimum(places, len(shop.order) - 1)]
