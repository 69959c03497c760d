"""The items of the made-up shop."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from headrace.arrow import np
from headrace.sample.draw import Floats, Ints, draws

COLUMNS = ("item_id", "title", "category", "price", "brand", "description")

ADJECTIVES = ("Classic", "Compact", "Everyday", "Light", "Premium", "Quiet", "Smart", "Solid", "Ultra")
COLOURS = ("black", "blue", "cream", "green", "grey", "red", "rosé", "white")
NO_BRAND_SHARE, NO_DESCRIPTION_SHARE = 0.03, 0.1


@dataclass(frozen=True)
class Category:
    """A shelf of the shop; `price` is the middle of its prices, which spread by a factor of 2.5."""

    name: str
    price: float
    brands: tuple[str, ...]
    nouns: tuple[str, ...]


CATEGORIES = (
    Category("Electronics", 180.0, ("Voltara", "Nexum", "Ohmly"), ("Headset", "Speaker", "Tablet")),
    Category("Computers", 650.0, ("Nexum", "Bytewell", "Kernelworks"), ("Laptop", "Monitor", "Mouse")),
    Category("Kitchen", 45.0, ("Hearthly", "Café Nord", "Panora"), ("Kettle", "Pan", "Mug Set", "Toaster")),
    Category("Furniture", 240.0, ("Oakline", "Hearthly", "Möbelhaus"), ("Chair", "Desk", "Shelf", "Lamp")),
    Category("Clothing", 38.0, ("Threadbare", "Linnea", "Northfold"), ("Shirt", "Jacket", "Jeans", "Scarf")),
    Category("Shoes", 75.0, ("Strider", "Northfold", "Pavé"), ("Sneakers", "Boots", "Sandals", "Loafers")),
    Category("Sports", 55.0, ("Strider", "Peakline", "Kinetiq"), ("Yoga Mat", "Dumbbell", "Tent", "Bottle")),
    Category("Toys", 24.0, ("Playforge", "Tinker", "Kiddle"), ("Puzzle", "Robot", "Blocks", "Kite")),
    Category("Books", 16.0, ("Papyrus", "Lantern", "Quill"), ("Novel", "Atlas", "Cookbook", "Biography")),
    Category("Beauty", 22.0, ("Velvetine", "Aloé", "Pureline"), ("Serum", "Shampoo", "Lipstick", "Cream")),
    Category("Groceries", 7.0, ("Café Nord", "Fieldgate", "Orchard"), ("Coffee", "Olive Oil", "Tea")),
    Category("Garden", 33.0, ("Greenhand", "Fieldgate", "Rootwell"), ("Trowel", "Hose", "Planter", "Shears")),
)


def item_ids(count: int) -> list[str]:
    """The ids of the items, in order."""
    width = max(6, len(str(count)))
    return [f"item_{number:0{width}d}" for number in range(1, count + 1)]


def item_categories(count: int, seed: int) -> Ints:
    """The index into CATEGORIES of every item."""
    return (draws(seed, "categories").random(count) * len(CATEGORIES)).astype(np.int64)


def item_lines(categories: Ints, seed: int) -> Iterator[str]:
    """The records of items.csv, each with its line end."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    chances = draws(seed, "items").random((len(categories), 7))
    for item_id, category, chance in zip(item_ids(len(categories)), categories, chances, strict=True):
        writer.writerow(_record(item_id, CATEGORIES[category], chance))
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _record(item_id: str, category: Category, chance: Floats) -> tuple[str, ...]:
    brand = category.brands[int(chance[0] * len(category.brands))]
    adjective = ADJECTIVES[int(chance[1] * len(ADJECTIVES))]
    noun = category.nouns[int(chance[2] * len(category.nouns))]
    colour = COLOURS[int(chance[3] * len(COLOURS))]
    price = max(1.0, round(category.price * 2.5 ** (2 * chance[4] - 1))) - 0.01
    # Commas, quotes and a line break: what real descriptions have, and CSV readers trip over.
    description = f'{adjective} {noun.lower()} in {colour}, "{brand}" quality.\nPart of {category.name}.'
    return (
        item_id,
        f"{brand} {adjective} {noun}, {colour}",
        category.name,
        f"{price:.2f}",
        "" if chance[5] < NO_BRAND_SHARE else brand,
        "" if chance[6] < NO_DESCRIPTION_SHARE else description,
    )
